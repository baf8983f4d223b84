"""Run the teacher once for every frame of every video, and keep its maps.

Work is done shard by shard (dump/shard_work.py) in the order of a plan that depends on the videos alone: killed at any
instant, a rerun finds the finished shards, sweeps the open one and ends with the same bytes. Cost: the teacher's own,
one window for each frame (networks/teacher_maps.py), and that of encoding its maps.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tinyhd_pipe.stages.dump.identity import as_of_now, describe
from tinyhd_pipe.stages.dump.plan import identify
from tinyhd_pipe.stages.dump.shard_work import make_shard
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import StoreError, VideoError
from tinyhd_pipe.store.lock import exclusive
from tinyhd_pipe.store.plan import ShardTask, Source
from tinyhd_pipe.store.reader import open_store
from tinyhd_pipe.store.schema import Description
from tinyhd_pipe.store.storage import open_storage
from tinyhd_pipe.store.writer import create_or_open, read_description, remove_store

if TYPE_CHECKING:
    from tinyhd_pipe.stages.dump.cluster import Cluster


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
    """An estimate: packets are counted, nothing is decoded for it."""
    bytes_written: int = 0
    """Of maps and indexes, those copied from older shards included."""
    seconds: float = 0.0
    """Since the first video of this run was begun."""

    @property
    def frames_a_second(self) -> float:
        """Maps of each level a second, over this run so far; 0 before the first."""
        return self.frames / self.seconds if self.frames else 0.0


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
    others: int
    """Videos of the store that are not among those given: they are kept unless pruning is asked for."""
    problems: Mapping[str, str]
    """Video id -> one line, for those that gave no frame at all or not all of them."""


def teacher_dump(
    sources: Sequence[VideoSource],
    url: str,
    teacher: Network,
    options: DumpOptions = DumpOptions(),
    *,
    cluster: "Cluster | None" = None,
    report: Callable[[DumpProgress], None] = lambda progress: None,
    reading: Callable[[int, int], None] = lambda done, total: None,
) -> Dumped:
    """Make the teacher's maps of every video that the store does not have yet.

    Arguments:
        url: a folder, or any fsspec URL; made where there is none.
        options: which maps, how they are stored, and what becomes of other videos, of problems and of a store of
            another teacher (refused by default, because a store may have cost weeks). Levels whose
            grid and step are given are measured all the same, and refused where they cost more than the budget.
        cluster: Dask workers that make the shards, to the same bytes; without one this process does.
        report: told of every batch; reading: told (videos read, videos in all) while they are identified.

    Raises StoreError when the store belongs to another teacher or another dump writes to it, VideoError when no video
    can be read at all, ClusterError when there are no workers or they see other files. A video that fails is listed in
    the result and in the store; the others are done.
    """
    with exclusive(open_storage(url)):
        estimates, unreadable = identify(sources, reading)
        if options.prune and unreadable:
            raise VideoError(f"{next(iter(unreadable.values()))}; to prune now would drop its maps")
        if options.overwrite and _belongs_to_another(url, teacher, options):
            remove_store(url)
        description = _description(url, teacher, sources, options)
        writer = create_or_open(url, description)
        by_id = {source.id: source for source in sources}
        videos = list(estimates.values())
        plan = writer.plan(
            videos,
            shard_bytes=options.shard_bytes,
            retry_problems=options.retry_problems,
            prune=options.prune,
        )
        counter = _Counter.of_plan(plan.todo, estimates, options.every, report)
        if cluster is not None:
            from tinyhd_pipe.stages.dump.cluster import make_shards

            make_shards(cluster, writer, plan.todo, by_id, report=counter.stands_at)
        else:
            for task in plan.todo:
                make_shard(writer, task, by_id, teacher, made=counter.made)
    return _summary(url, estimates, unreadable, counter)


def _description(url: str, teacher: Network, sources: Sequence[VideoSource], options: DumpOptions) -> Description:
    """What the store says of itself, as it would be were it made by this teacher now."""
    there = read_description(url)
    if there is None:
        return describe(teacher, sources, options)
    return as_of_now(there, teacher, options)


def _belongs_to_another(url: str, teacher: Network, options: DumpOptions) -> bool:
    """Whether this teacher's maps may not join those that are there."""
    there = read_description(url)
    if there is None:
        return False
    try:
        there.refuse_other(as_of_now(there, teacher, options), url)
    except StoreError:
        return True
    return False


@dataclass
class _Counter:
    """Counts what this run has done, and tells it."""

    stand: DumpProgress
    report: Callable[[DumpProgress], None]
    started: float = field(default_factory=time.perf_counter)

    @staticmethod
    def of_plan(
        todo: Sequence[ShardTask],
        estimates: Mapping[str, Source],
        every: int,
        report: Callable[[DumpProgress], None],
    ) -> "_Counter":
        to_make = [member.id for task in todo for member in task.to_make]
        frames = sum(-(-estimates[video].frames // every) for video in to_make)
        report(DumpProgress(0, len(to_make), 0, frames))  # the clock that tells the time left starts now
        return _Counter(DumpProgress(0, len(to_make), 0, frames), report)

    def made(self, frames: int, videos: int, written: int) -> None:
        stand = self.stand
        self.stands_at(stand.frames + frames, stand.videos + videos, stand.bytes_written + written)

    def stands_at(self, frames: int, videos: int, written: int) -> None:
        self.stand = replace(
            self.stand,
            frames=frames,
            videos=videos,
            bytes_written=written,
            seconds=time.perf_counter() - self.started,
        )
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
        others=len(set(store.videos) - rows.keys()),
        problems={**unreadable, **problems},
    )
