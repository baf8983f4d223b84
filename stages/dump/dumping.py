"""The loop of a dump, whatever makes its maps: identify videos, plan, make what is missing, tell what became of it.

Work is done shard by shard (shard_work.py) in the order of a plan that depends on the videos alone: killed at any
instant, a rerun finds the finished shards, sweeps the open one and ends with the same bytes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tinyhd_pipe.stages.dump.identity import as_of_now, describe
from tinyhd_pipe.stages.dump.map_source import MapSource
from tinyhd_pipe.stages.dump.plan import identify
from tinyhd_pipe.stages.dump.shard_work import Job, make_together
from tinyhd_pipe.stages.networks.licence import ACCEPTED, NONE_STATED, forbids_commerce, refuse_unasked
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import StoreError, VideoError
from tinyhd_pipe.store.lock import exclusive
from tinyhd_pipe.store.plan import ShardPlan, Source
from tinyhd_pipe.store.reader import open_store
from tinyhd_pipe.store.schema import Description
from tinyhd_pipe.store.storage import open_storage
from tinyhd_pipe.store.writer import StoreWriter, create_or_open, read_description, remove_store

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


@dataclass(frozen=True)
class Order:
    """One store that is to be made."""

    url: str
    maps: MapSource
    options: DumpOptions

    @property
    def begins_again(self) -> bool:
        """Whether the store that is there is of other maps, and may be removed."""
        return self.options.overwrite and _belongs_to_another(self.url, self.maps, self.options)

    def refuse_what_cannot_be(self) -> None:
        """Raise StoreError where the store there is of other maps, SettingError for terms that nobody has agreed to."""
        there = read_description(self.url)
        if there is not None and not self.begins_again:
            there.refuse_other(as_of_now(there, self.maps, self.options), self.url)
        else:
            refuse_unasked(self.licence, f"the teacher of {self.url}", allowed=self.options.allow_noncommercial)

    @property
    def licence(self) -> str:
        return str(self.maps.provenance.get("licence", NONE_STATED))


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
    (dumped,) = dump_together(sources, [Order(url, maps, options)], listeners, cluster)
    return dumped


def dump_together(
    sources: Sequence[VideoSource], orders: Sequence[Order], listeners: Listeners, cluster: "Cluster | None" = None
) -> list[Dumped]:
    """The same for several teachers, each with a store of its own; what they all lack of a video is decoded once.

    New stores get the same videos in their shards. Where those differ, for what was there before, each store's shards
    are made by themselves. `cluster` is of a single order, and so are maps from files: several are of networks.
    """
    with ExitStack() as locks:
        for order in orders:
            locks.enter_context(exclusive(open_storage(order.url)))
            order.refuse_what_cannot_be()
        estimates, unreadable = identify(sources, orders[0].maps, listeners.reading)
        if unreadable and any(order.options.prune for order in orders):
            raise VideoError(f"{next(iter(unreadable.values()))}; to prune now would drop its maps")
        writers = [_begun(order, sources) for order in orders]
        plans = _plans(writers, orders, list(estimates.values()))
        groups = _groups(writers, plans, orders)
        counter = _Counter.of_groups(groups, estimates, listeners.report)
        by_id = {source.id: source for source in sources}
        if cluster is not None:
            from tinyhd_pipe.stages.dump.cluster import make_shards

            make_shards(cluster, writers[0], plans[0].todo, by_id, report=counter.stands_at)
        else:
            for jobs in groups:
                make_together(jobs, by_id, made=counter.made)
    return [_summary(order.url, estimates, unreadable, plan) for order, plan in zip(orders, plans, strict=True)]


def _begun(order: Order, sources: Sequence[VideoSource]) -> StoreWriter:
    if order.begins_again:
        remove_store(order.url)
    return create_or_open(order.url, _description(order, sources))


def _plans(writers: Sequence[StoreWriter], orders: Sequence[Order], videos: Sequence[Source]) -> list[ShardPlan]:
    options = [order.options for order in orders]
    frames = min(writer.frames_in(one.shard_bytes) for writer, one in zip(writers, options, strict=True))
    return [
        writer.plan(videos, shard_frames=frames, retry_problems=one.retry_problems, prune=one.prune)
        for writer, one in zip(writers, options, strict=True)
    ]


def _groups(
    writers: Sequence[StoreWriter], plans: Sequence[ShardPlan], orders: Sequence[Order]
) -> list[tuple[Job, ...]]:
    """The shards of all plans, those of several stores together in which the same videos are to be made."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for writer, plan, order in zip(writers, plans, orders, strict=True):
        for task in plan.todo:
            to_make = tuple(member.id for member in task.to_make)
            key = to_make or (writer.url, str(task.number))
            groups.setdefault(key, []).append(Job(writer, task, order.maps))
    return [tuple(jobs) for jobs in groups.values()]


def _description(order: Order, sources: Sequence[VideoSource]) -> Description:
    """What the store says of itself, as it would be were it made of these maps now."""
    there = read_description(order.url)
    if there is not None:
        return as_of_now(there, order.maps, order.options)
    description = describe(order.maps, sources, order.options)
    accepted = ACCEPTED if forbids_commerce(order.licence) else {}
    return replace(description, provenance={**description.provenance, **accepted})


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
    def of_groups(
        groups: Sequence[Sequence[Job]], estimates: Mapping[str, Source], report: Callable[[DumpProgress], None]
    ) -> "_Counter":
        frames = sum(
            -(-estimates[member.id].frames // job.writer.description.every)
            for jobs in groups
            for job in jobs
            for member in job.task.to_make
        )
        videos = sum(len(jobs[0].task.to_make) for jobs in groups)
        report(DumpProgress(0, videos, 0, frames))  # the clock that tells the time left starts now
        return _Counter(DumpProgress(0, videos, 0, frames), report)

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


def _summary(url: str, estimates: Mapping[str, Source], unreadable: Mapping[str, str], plan: ShardPlan) -> Dumped:
    store = open_store(url)
    rows = {video: store.video(video) for video in estimates}
    problems = {video: row.problem for video, row in rows.items() if row.problem}
    made = {member.id for task in plan.todo for member in task.to_make} & rows.keys()
    return Dumped(
        store=url,
        videos=sum(row.rows > 0 for row in rows.values()),
        frames=sum(rows[video].rows for video in made),
        already_there=len(rows) - len(made),
        others=len(set(store.videos) - rows.keys()),
        problems={**unreadable, **problems},
    )
