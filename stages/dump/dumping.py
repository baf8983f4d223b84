"""The loop of a dump, whatever makes its maps: identify videos, plan, make what is missing, tell what became of it.

Work is done shard by shard (shard_work.py) in the order of a plan that depends on the videos alone: killed at any
instant, a rerun finds the finished shards, sweeps the open one and ends with the same bytes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tinyhd_pipe.stages.dump.identity import as_of_now, describe
from tinyhd_pipe.stages.dump.map_source import MapSource
from tinyhd_pipe.stages.dump.plan import identify
from tinyhd_pipe.stages.dump.shard_work import make_shard
from tinyhd_pipe.stages.networks.licence import ACCEPTED, forbids_commerce, refuse_unasked
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


@dataclass(frozen=True)
class Listeners:
    """Who is told how a dump goes on."""

    report: Callable[[DumpProgress], None] = lambda progress: None
    """Told of every batch."""
    reading: Callable[[int, int], None] = lambda done, total: None
    """Told (videos read, videos in all) while they are identified."""


def dump(
    sources: Sequence[VideoSource],
    url: str,
    maps: MapSource,
    options: DumpOptions,
    listeners: Listeners,
    cluster: "Cluster | None" = None,
) -> Dumped:
    """Bring the maps of every video that the store does not have yet into it; arguments and errors as `teacher_dump`
    has them."""
    with exclusive(open_storage(url)):
        begins_again = options.overwrite and _belongs_to_another(url, maps, options)
        if begins_again or read_description(url) is None:
            whose = f"the teacher of {url}"
            refuse_unasked(str(maps.provenance["licence"]), whose, allowed=options.allow_noncommercial)
        estimates, unreadable = identify(sources, maps, listeners.reading)
        if options.prune and unreadable:
            raise VideoError(f"{next(iter(unreadable.values()))}; to prune now would drop its maps")
        if begins_again:
            remove_store(url)
        description = _description(url, maps, sources, options)
        writer = create_or_open(url, description)
        by_id = {source.id: source for source in sources}
        videos = list(estimates.values())
        plan = writer.plan(
            videos,
            shard_bytes=options.shard_bytes,
            retry_problems=options.retry_problems,
            prune=options.prune,
        )
        counter = _Counter.of_plan(plan.todo, estimates, options.every, listeners.report)
        if cluster is not None:
            from tinyhd_pipe.stages.dump.cluster import make_shards

            make_shards(cluster, writer, plan.todo, by_id, report=counter.stands_at)
        else:
            for task in plan.todo:
                make_shard(writer, task, by_id, maps, made=counter.made)
    return _summary(url, estimates, unreadable, counter)


def _description(url: str, maps: MapSource, sources: Sequence[VideoSource], options: DumpOptions) -> Description:
    """What the store says of itself, as it would be were it made of these maps now."""
    there = read_description(url)
    if there is None:
        description = describe(maps, sources, options)
        accepted = ACCEPTED if forbids_commerce(str(maps.provenance["licence"])) else {}
        return replace(description, provenance={**description.provenance, **accepted})
    return as_of_now(there, maps, options)


def _belongs_to_another(url: str, maps: MapSource, options: DumpOptions) -> bool:
    """Whether these maps may not join those that are there."""
    there = read_description(url)
    if there is None:
        return False
    try:
        there.refuse_other(as_of_now(there, maps, options), url)
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
