"""Run the teacher once for every frame of every video, and keep its maps.

Each frame is decoded once and scaled once; windows are cut from the scaled frames. Decoding runs in a thread ahead of
the teacher; maps are encoded and written between its batches. Work is done shard by shard in the order of a plan that
depends on the videos alone: killed at any instant, a rerun finds the finished shards, sweeps the open one and ends
with the same bytes. Cost: the teacher's own, one window for each frame, and that of encoding its maps.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from tinyhd_pipe.stages.fidelity import choose_levels, to_grid
from tinyhd_pipe.stages.inference import ScaledFrame, clip_of, scaled_frames, windows
from tinyhd_pipe.stages.losses import CONSPICUITY
from tinyhd_pipe.stages.networks import Network, Size
from tinyhd_pipe.stages.video import Picture, VideoSource, decode, digest, probe
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.plan import ShardTask, Source
from tinyhd_pipe.store.reader import open_store
from tinyhd_pipe.store.schema import Description, Temporal
from tinyhd_pipe.store.shard import ShardWriter
from tinyhd_pipe.store.writer import create_or_open, read_description

LEVELS = (*CONSPICUITY, "final")
SAMPLED_VIDEOS, SAMPLED_FRAMES = 4, 48
"""What grids and steps are chosen from: the first frames of the first videos."""
READ_AHEAD = 32
"""Frames decoded before the teacher asks for them."""
PROVENANCE = ("torch", "licence")
"""Facts of the teacher that are worth keeping, and that two dumps into one store may differ in."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class DumpProgress:
    """Where a dump stands."""

    videos: int
    """Videos finished in this run."""
    videos_in_all: int
    """Videos that this run has to make."""
    frames: int
    """Maps made in this run."""
    frames_in_all: int
    """An estimate from the videos' headers."""


@dataclass(frozen=True)
class Dumped:
    """What a dump left in the store."""

    store: str
    videos: int
    """Videos that have maps now, out of those given."""
    frames: int
    """Maps of each level that this run made."""
    already_there: int
    """Videos that were finished before this run."""
    problems: Mapping[str, str]
    """Video id -> one line, for those that gave no frame at all or not all of them."""


def teacher_dump(
    sources: Sequence[VideoSource],
    url: str,
    teacher: Network,
    *,
    every: int = 1,
    budget: float = 2e-4,
    shard_bytes: int = 128 << 20,
    batch: int = 1,
    report: Callable[[DumpProgress], None] = lambda progress: None,
    reading: Callable[[int, int], None] = lambda done, total: None,
) -> Dumped:
    """Make the teacher's maps of every video that the store does not have yet.

    Arguments:
        url: a folder, or any fsspec URL; made where there is none.
        every: maps are made of frames 0, every, 2 * every, ...
        budget: mean KL(live ‖ stored) that a stored map may cost, nats.
        shard_bytes: size of a shard, which is what a kill can cost.
        batch: windows in one forward pass.
        report: told of every batch; reading: told (videos read, videos in all) while they are identified.

    Raises StoreError when the store belongs to another teacher or another dump writes to it, VideoError when no video
    can be read at all. A video that fails is listed in the result and in the store; the others are done.
    """
    estimates, unreadable = _identify(sources, reading)
    writer = create_or_open(url, _description(url, teacher, sources, every=every, budget=budget))
    grids = {level.name: level.grid for level in writer.description.levels}
    by_id = {source.id: source for source in sources}
    with writer.exclusive():
        plan = writer.plan(list(estimates.values()), shard_bytes=shard_bytes)
        counter = _Counter.of_plan(plan.todo, estimates, every, report)
        for task in plan.todo:
            with writer.shard(task) as shard:
                for member in shard.to_make:
                    _dump_video(by_id[member.id], shard, teacher, grids, every, batch, counter)
    return _summary(url, estimates, unreadable, counter)


def _description(
    url: str, teacher: Network, sources: Sequence[VideoSource], *, every: int, budget: float
) -> Description:
    """What the store says of itself, as it would be were it made by this teacher now; grids and steps are kept."""
    there = read_description(url)
    if there is None:
        return describe(teacher, sources, every=every, budget=budget)
    return replace(
        there,
        teacher_grid=teacher.scaling.size,
        teacher=_identity(teacher),
        temporal=_temporal(teacher, every),
        budget=budget,
    )


def _temporal(teacher: Network, every: int) -> Temporal:
    if teacher.outputs == 1:
        return Temporal(every=every)
    return Temporal(
        map_of="every frame of the window", head="the first window", short_video="first frame repeated", every=every
    )


def _identity(teacher: Network) -> dict[str, Any]:
    return {name: fact for name, fact in teacher.facts.items() if name not in PROVENANCE}


def _identify(
    sources: Sequence[VideoSource], reading: Callable[[int, int], None]
) -> tuple[dict[str, Source], dict[str, str]]:
    """Digest and estimated length of every video; apart from them, those whose file cannot be read, with a reason."""
    estimates, unreadable = {}, {}
    for done, source in enumerate(sources, start=1):
        try:
            estimates[source.id] = Source(source.id, digest(source), _estimate(source))
        except VideoError as error:
            unreadable[source.id] = str(error)
        reading(done, len(sources))
    if not estimates:
        raise VideoError(next(iter(unreadable.values())))
    return estimates, unreadable


def _estimate(source: VideoSource) -> int:
    try:
        return probe(source).frames
    except VideoError:  # it is in the plan all the same: the dump says why it gave nothing
        return 0


def _dump_video(
    source: VideoSource,
    shard: ShardWriter,
    teacher: Network,
    grids: Mapping[str, Size],
    every: int,
    batch: int,
    counter: "_Counter",
) -> None:
    """Write the maps of one video, or the reason why there are none."""
    decoding = decode(source)
    maps = teacher_maps(teacher, ahead(decoding, READ_AHEAD), every=every, batch=batch)
    try:
        facts, first = probe(source), next(maps)
    except VideoError as error:
        shard.failed_video(source.id, str(error).removeprefix(f"{source.path}: "))
        counter.video_done()
        return
    rate = str(facts.fps) if facts.fps else ""
    with shard.video(source.id, height=facts.height, width=facts.width, rate=rate) as video:
        for frames, logits in chain([first], maps):
            video.append({level: to_grid(full, grids[level]).cpu().numpy() for level, full in logits.items()})
            for frame in frames:
                if not frame.decoded:
                    video.mark_failed(frame.number)
            counter.frames_done(len(frames))
        video.finish(decoding.frames, decoding.problem)
    counter.video_done()


@dataclass
class _Counter:
    """Counts what this run has done, and tells it."""

    stand: DumpProgress
    report: Callable[[DumpProgress], None]

    @staticmethod
    def of_plan(
        todo: Sequence[ShardTask],
        estimates: Mapping[str, Source],
        every: int,
        report: Callable[[DumpProgress], None],
    ) -> "_Counter":
        to_make = [member.id for task in todo for member in task.to_make]
        frames = sum(-(-estimates[video].frames // every) for video in to_make)
        return _Counter(DumpProgress(0, len(to_make), 0, frames), report)

    def frames_done(self, frames: int) -> None:
        self.stand = replace(self.stand, frames=self.stand.frames + frames)
        self.report(self.stand)

    def video_done(self) -> None:
        self.stand = replace(self.stand, videos=self.stand.videos + 1)
        self.report(self.stand)


def _summary(url: str, estimates: Mapping[str, Source], unreadable: Mapping[str, str], counter: _Counter) -> Dumped:
    store = open_store(url)
    rows = {video: store.video(video) for video in estimates}
    problems = {video: row.problem for video, row in rows.items() if row.problem}
    return Dumped(
        store=url,
        videos=sum(row.rows > 0 for row in rows.values()),
        frames=counter.stand.frames,
        already_there=len(rows) - counter.stand.videos,
        problems={**unreadable, **problems},
    )


def teacher_maps(
    teacher: Network, pictures: Iterator[Picture | None], *, every: int = 1, batch: int = 1
) -> Iterator[tuple[list[ScaledFrame], dict[str, Tensor]]]:
    """The teacher's logits of frames 0, every, 2 * every, ... of one video.

    Yields (frames, level -> float32 (frame, y, x) on the level's native grid), of `batch` windows at a time. Batches
    never span videos, so a video's maps depend on that video alone.
    """
    frames = scaled_frames(teacher.scaling, pictures)
    coming = windows(teacher, frames, every=every, reverse_head=True)
    while several := list(islice(coming, batch)):
        clip = torch.stack([clip_of(window) for window, _ in several])  # (B, 3, T, H, W)
        logits = teacher.frame_logits(clip, [len(answered) for _, answered in several], LEVELS)
        answered = [frame for _, frames in several for frame in frames]
        wanted = [place for place, frame in enumerate(answered) if frame.number % every == 0]
        yield [answered[place] for place in wanted], {level: maps[wanted] for level, maps in logits.items()}


def ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items, made in a thread that runs at most `depth` of them ahead; what it raises is raised here."""
    end: Any = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item


def describe(teacher: Network, sources: Sequence[VideoSource], *, every: int, budget: float) -> Description:
    """What a new store of this teacher's maps says of itself; grids and steps are measured on the first videos.

    Raises VideoError when none of the videos decodes, SettingError when 8 bits cannot keep the budget.
    """
    samples: dict[str, list[Tensor]] = {level: [] for level in LEVELS}
    sampled = 0
    reasons = []
    for source in sources:
        if sampled == SAMPLED_VIDEOS:
            break
        try:
            for _, logits in teacher_maps(teacher, islice(decode(source), SAMPLED_FRAMES)):
                for level, maps in logits.items():
                    samples[level].append(maps.cpu())
            sampled += 1
        except VideoError as error:
            reasons.append(str(error))
    if not sampled:
        raise VideoError(reasons[0] if len(reasons) == 1 else f"none of {len(reasons)} videos decodes; {reasons[0]}")
    size = teacher.scaling.size
    choices = choose_levels({level: torch.cat(maps) for level, maps in samples.items()}, size=size, budget=budget)
    return Description(
        levels=tuple(choice.level for choice in choices),
        teacher_grid=size,
        teacher=_identity(teacher),
        temporal=_temporal(teacher, every),
        budget=budget,
        measured={choice.level.name: {"kl": choice.kl, "bytes_per_map": choice.bytes_per_map} for choice in choices},
        provenance={name: teacher.facts[name] for name in PROVENANCE},
    )
