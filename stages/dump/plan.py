"""What a dump has before it: which videos, how long on this machine, how many bytes, and when it has paid for itself.

Nothing is written. Frames are estimates: packets are counted, as headers are wrong by up to 100 times and decoding is
what the dump itself does. Time and bytes come from at most 48 maps made here and now (some seconds); a store that is
there says itself what its maps take.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from torch import Tensor

from tinyhd_pipe.stages.dump.break_even import BreakEven, break_even, windows_of
from tinyhd_pipe.stages.dump.identity import as_of_now, description_of, levels_for, nothing_decodes
from tinyhd_pipe.stages.dump.map_source import MapSource, Work, map_source
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.overlap import ahead, in_parallel
from tinyhd_pipe.stages.networks.teacher_maps import BATCHES_AHEAD
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.decoding import count_packets, decode
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.plan import ShardPlan, Source
from tinyhd_pipe.store.reader import open_store
from tinyhd_pipe.store.schema import CHUNK_FRAMES, Description
from tinyhd_pipe.store.writer import create_or_open, read_description

MEASURED_SECONDS, MEASURED_MAPS = 5.0, 48
"""Enough of a measurement; at least one chunk of maps is made."""


@dataclass(frozen=True)
class DumpPlan:
    """What a dump would do now."""

    store: str
    videos: int
    """Videos given, whether they decode or not."""
    videos_left: int
    """Those of them that the dump would make."""
    frames: int
    """Frames of all videos given; an estimate by counting packets."""
    maps_left: int
    """Maps of each level that the dump would make."""
    shards_left: int
    seconds_a_map: float
    """Measured here; 0 where nothing is left to do."""
    seconds_left: float
    bytes_a_map: float
    """All levels together."""
    bytes_left: float
    break_even: BreakEven | None
    """None where no teacher runs: maps are read from files."""
    problems: Mapping[str, str]
    """Video id -> one line, for those that are no video or cannot be read."""


def plan_dump(
    sources: Sequence[VideoSource],
    url: str,
    teacher: Network | MapSource,
    options: DumpOptions,
    *,
    labelled: int = 0,
    reading: Callable[[int, int], None] = lambda done, total: None,
) -> DumpPlan:
    """Say what `teacher_dump` with the same arguments would do, from reading alone.

    `labelled` says how many of the videos are; 0: an epoch takes one clip of every video. Raises what the dump would:
    StoreError where the store is another teacher's, VideoError where no video decodes.
    """
    maps = map_source(teacher)
    found, problems = identify(sources, maps, reading)
    by_id = {source.id: source for source in sources}
    problems = problems | _not_videos([by_id[video.id] for video in found.values() if not video.frames])
    there = read_description(url)
    seconds = 0.0
    if there is None:
        description, seconds = _measured(maps, sources, options)
    else:
        description = as_of_now(there, maps, options)
    writer = create_or_open(url, description, make=False)
    videos = list(found.values())
    plan = writer.plan(
        videos,
        shard_bytes=options.shard_bytes,
        retry_problems=options.retry_problems,
        prune=options.prune,
        write=False,
    )
    left = _left(plan, found, options.every)
    if left and not seconds:
        _, seconds = _measured(maps, sources, options)
    bytes_a_map = _bytes_a_map(url, writer.description)
    maps_left = sum(left.values())
    frames = sum(video.frames for video in found.values())
    return DumpPlan(
        store=url,
        videos=len(sources),
        videos_left=len(left),
        frames=frames,
        maps_left=maps_left,
        shards_left=len(plan.todo),
        seconds_a_map=seconds,
        seconds_left=seconds * maps_left,
        bytes_a_map=bytes_a_map,
        bytes_left=bytes_a_map * maps_left,
        break_even=_break_even(teacher, frames, options, videos=len(found), labelled=labelled)
        if isinstance(teacher, Network)
        else None,
        problems=problems,
    )


def identify(
    sources: Sequence[VideoSource], maps: MapSource, reading: Callable[[int, int], None]
) -> tuple[dict[str, Source], dict[str, str]]:
    """Digests and estimated length of every video; apart from them, those whose file cannot be read, with a reason.

    `reading` is told (videos done, videos in all). Raises VideoError where no file can be read.
    """
    found, unreadable = {}, {}
    for done, source in enumerate(sources, start=1):
        try:
            found[source.id] = Source(source.id, digest(source), _packets(source), maps.content(source))
        except VideoError as error:
            unreadable[source.id] = str(error)
        reading(done, len(sources))
    if not found:
        raise VideoError(next(iter(unreadable.values())))
    return found, unreadable


def _packets(source: VideoSource) -> int:
    try:
        return count_packets(source)
    except VideoError:  # it is in the plan all the same: the dump says why it gave nothing
        return 0


def _not_videos(sources: Sequence[VideoSource]) -> dict[str, str]:
    reasons = {}
    for source in sources:
        try:
            count_packets(source)
        except VideoError as error:
            reasons[source.id] = str(error)
    return reasons


def _left(plan: ShardPlan, found: Mapping[str, Source], every: int) -> dict[str, int]:
    """Video id -> maps, for the videos that the teacher would have to make."""
    to_make = [member.id for task in plan.todo for member in task.to_make]
    return {video: -(-found[video].frames // every) for video in to_make if video in found}


def _measured(maps: MapSource, sources: Sequence[VideoSource], options: DumpOptions) -> tuple[Description, float]:
    """What a store of these maps would say of itself, and the seconds that one map takes with all its levels.

    Raises VideoError when none of the videos decodes, SettingError when 8 bits cannot keep the budget.
    """
    samples: list[Mapping[str, Tensor]] = []
    made, times = [0], [time.perf_counter()]
    with closing(_maps_of_any(maps, sources, options)) as coming:
        for several in coming:
            samples.append({level: logits.cpu() for level, logits in several.items()})
            made.append(made[-1] + len(samples[-1]["final"]))
            times.append(time.perf_counter())
            long_enough = made[-1] >= CHUNK_FRAMES and times[-1] - times[1] > MEASURED_SECONDS
            if made[-1] >= MEASURED_MAPS or long_enough:
                break
    first = 1 if len(times) > 2 else 0  # the first windows wait for frames and choose kernels
    seconds = (times[-1] - times[first]) / (made[-1] - made[first])
    return description_of(maps, samples, options), seconds


def _maps_of_any(
    maps: MapSource, sources: Sequence[VideoSource], options: DumpOptions
) -> Generator[Mapping[str, Tensor], None, None]:
    """Maps of one video after another, without those that do not decode."""
    reasons, made = [], False

    def answer(work: Work) -> Mapping[str, Tensor]:
        return work(levels_for(options)).logits

    for source in sources:
        try:
            work = ahead(maps.work(source, decode(source), options.every), BATCHES_AHEAD)
            for several in in_parallel(answer, work, maps.threads):
                made = True
                yield several
        except VideoError as error:
            reasons.append(str(error))
    if not made:
        raise nothing_decodes(reasons)


def _bytes_a_map(url: str, description: Description) -> float:
    """What a map of each level takes together: as the store has it, or as measured where it has none yet."""
    if read_description(url) is not None:
        facts = open_store(url).info()
        if facts["frames_with_maps"]:
            return float(facts["bytes"] / facts["frames_with_maps"])
    return float(sum(level["bytes_per_map"] for level in description.measured.values()))


def _break_even(teacher: Network, frames: int, options: DumpOptions, *, videos: int, labelled: int) -> BreakEven:
    """As published: an epoch is one clip of every labelled video and as many of unlabelled ones."""
    clips = labelled * (2 if videos > labelled else 1) if labelled else videos
    windows = windows_of(frames, outputs=teacher.outputs, every=options.every, mirrored=options.flip == "both")
    return break_even(windows, clips, outputs=teacher.outputs)
