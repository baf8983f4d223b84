"""Run the teacher once for every frame of every video, and keep its maps.

Work is done shard by shard (shard_work.py) in the order of a plan that depends on the videos alone: killed at any
instant, a rerun finds the finished shards, sweeps the open one and ends with the same bytes. Cost: the teacher's own,
one window for each frame (teacher_maps.py), and that of encoding its maps.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from tinyhd_pipe.stages.fidelity import Given, choose_levels
from tinyhd_pipe.stages.networks import Network
from tinyhd_pipe.stages.shard_work import make_shard
from tinyhd_pipe.stages.teacher_maps import LEVELS, teacher_maps
from tinyhd_pipe.stages.video import VideoSource, decode, digest, probe
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.plan import ShardTask, Source
from tinyhd_pipe.store.reader import open_store
from tinyhd_pipe.store.schema import Description, Temporal
from tinyhd_pipe.store.writer import create_or_open, read_description

SAMPLED_VIDEOS, SAMPLED_FRAMES = 4, 48
"""What grids and steps are chosen from: the first frames of the first videos."""
PROVENANCE = ("torch", "licence")
"""Facts of the teacher that are worth keeping, and that two dumps into one store may differ in."""


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
    given: Mapping[str, Given] | None = None,
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
        given: level -> grid and step, for levels that are not to be chosen by measuring; they are measured all the
            same, and refused where they cost more than the budget.
        shard_bytes: size of a shard, which is what a kill can cost.
        batch: windows in one forward pass.
        report: told of every batch; reading: told (videos read, videos in all) while they are identified.

    Raises StoreError when the store belongs to another teacher or another dump writes to it, VideoError when no video
    can be read at all. A video that fails is listed in the result and in the store; the others are done.
    """
    estimates, unreadable = _identify(sources, reading)
    writer = create_or_open(url, _description(url, teacher, sources, every=every, budget=budget, given=given or {}))
    by_id = {source.id: source for source in sources}
    with writer.exclusive():
        plan = writer.plan(list(estimates.values()), shard_bytes=shard_bytes)
        counter = _Counter.of_plan(plan.todo, estimates, every, report)
        for task in plan.todo:
            make_shard(writer, task, by_id, teacher, batch=batch, made=counter.made)
    return _summary(url, estimates, unreadable, counter)


def _description(
    url: str,
    teacher: Network,
    sources: Sequence[VideoSource],
    *,
    every: int,
    budget: float,
    given: Mapping[str, Given],
) -> Description:
    """What the store says of itself, as it would be were it made by this teacher now; grids and steps are kept."""
    there = read_description(url)
    if there is None:
        return describe(teacher, sources, every=every, budget=budget, given=given)
    return replace(
        there,
        levels=tuple(given[level.name].level(level.name) if level.name in given else level for level in there.levels),
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

    def made(self, frames: int, videos: int) -> None:
        self.stand = replace(self.stand, frames=self.stand.frames + frames, videos=self.stand.videos + videos)
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


def describe(
    teacher: Network,
    sources: Sequence[VideoSource],
    *,
    every: int,
    budget: float,
    given: Mapping[str, Given] | None = None,
) -> Description:
    """What a new store of this teacher's maps says of itself; grids and steps are measured on the first videos.

    Raises VideoError when none of the videos decodes, SettingError when 8 bits, or what is given, cannot keep the
    budget.
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
    maps_of = {level: torch.cat(maps) for level, maps in samples.items()}
    choices = choose_levels(maps_of, size=size, budget=budget, given=given)
    return Description(
        levels=tuple(choice.level for choice in choices),
        teacher_grid=size,
        teacher=_identity(teacher),
        temporal=_temporal(teacher, every),
        budget=budget,
        measured={choice.level.name: {"kl": choice.kl, "bytes_per_map": choice.bytes_per_map} for choice in choices},
        provenance={name: teacher.facts[name] for name in PROVENANCE},
    )
