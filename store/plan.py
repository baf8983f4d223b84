"""Which video goes into which shard: decided once, written down, never decided again.

A rerun has to find the very shards that the killed run was making, or its bytes would differ. So membership
is fixed by a plan file, `plans/00000.json`, that is written before the first shard and never changed; a
later dump of more or of changed videos adds another one. A plan is a function of the videos (in the order
of their ids) and of the plans and sealed shards that are there; how long a run was killed after which shard
does not enter.

A plan also tells what a lost shard held, and carries a copy of the store's description.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tinyhd_pipe.store.errors import StoreError


@dataclass(frozen=True)
class Source:
    """A video that should be in the store."""

    id: str
    digest: str
    """Of its content: another digest is another video."""
    frames: int
    """How many frames it probably has; used only to fill shards evenly."""
    maps: str = ""
    """Digest of the files that its maps are taken from: others are other maps. Empty where a network makes them."""


@dataclass(frozen=True)
class Member:
    """A video as the member of a shard."""

    id: str
    digest: str
    maps: str = ""
    """Digest of the files that its maps are taken from; empty where a network makes them."""


@dataclass(frozen=True)
class ShardTask:
    """One shard to write, which is one unit of work for one worker."""

    number: int
    members: tuple[Member, ...]
    replaces: tuple[int, ...] = ()
    """Shards that this one takes the place of."""
    remade: frozenset[str] = frozenset()
    """Ids that must not be copied although their digest is known: what is there is damaged or failed."""
    copied: Mapping[str, int] = field(default_factory=dict)
    """Id -> shard from which its bytes are copied; everything else is made by the teacher."""
    in_place: bool = False
    """The shard is there, but damaged, and is written anew under its own number."""

    @property
    def to_make(self) -> tuple[Member, ...]:
        """The members that the teacher has to make, in order."""
        return tuple(member for member in self.members if member.id not in self.copied)


@dataclass(frozen=True)
class ShardPlan:
    """What a dump has to do."""

    done: tuple[int, ...]
    """Numbers of the shards that are finished."""
    todo: tuple[ShardTask, ...]
    """The shards to write, in order; each may be written by another worker."""
    new: tuple[ShardTask, ...] = ()
    """Those of `todo` that no plan file names yet."""


def plan_shards(
    sources: Sequence[Source],
    planned: Mapping[int, ShardTask],
    sealed: Mapping[int, ShardTask],
    *,
    frames_per_shard: int,
    retried: Iterable[str] = (),
    prune: bool = False,
) -> ShardPlan:
    """Compare what should be in the store with what was planned and what is finished.

    Arguments:
        sources: all videos of this dump, in any order.
        planned: shards by number as the plan files have them.
        sealed: shards by number as their manifests have them.
        frames_per_shard: where one shard ends and the next begins; a longer video has a shard to itself.
        retried: ids to make again although their content is unchanged.
        prune: drop videos that are not among the sources. Otherwise they stay as they are: a second folder
            dumped into the same store must not remove the first.

    Raises `StoreError` where two sources share an id.
    """
    wanted = {source.id: source for source in sorted(sources, key=lambda source: source.id)}
    if len(wanted) < len(sources):
        raise StoreError(f"{_first_double(sources)}: two videos have this id: rename one of them")
    known = {**planned, **sealed}
    live = {number: _with_copies(task, sealed) for number, task in sorted(without_replaced(known).items())}
    pending = {number: task for number, task in live.items() if number not in sealed}
    again = frozenset(retried) - {video_id for task in pending.values() for video_id in _ids(task)}
    edits: dict[int, tuple[Member, ...]] = {}
    for number, task in live.items():
        members = tuple(_updated(task.members, wanted, {} if prune else _there(task, sealed)))
        if members != task.members or not again.isdisjoint(_ids(task)):
            edits[number] = members
    present = {video_id for task in live.values() for video_id in _ids(task)}
    absent = [source for video_id, source in wanted.items() if video_id not in present]
    again |= {
        video_id for number in edits.keys() & pending.keys() for video_id in pending[number].remade & wanted.keys()
    }
    # What a shard that was never made should have replaced is still there, and no manifest would say that it is not.
    replaced = {number: (number, *(pending[number].replaces if number in pending else ())) for number in edits}
    added = list(_packed(absent, frames_per_shard))
    new = _new_tasks(edits, replaced, added, again, max(known, default=-1) + 1)
    final = without_replaced({**known, **{task.number: task for task in new}})
    todo = [_with_copies(task, sealed) for number, task in sorted(final.items()) if number not in sealed]
    return ShardPlan(tuple(sorted(final.keys() & sealed.keys())), tuple(todo), tuple(new))


def _ids(task: ShardTask) -> list[str]:
    return [member.id for member in task.members]


def _first_double(sources: Sequence[Source]) -> str:
    return Counter(source.id for source in sources).most_common(1)[0][0]


def without_replaced(tasks: Mapping[int, ShardTask]) -> dict[int, ShardTask]:
    """The shards that should be there in the end."""
    replaced = {number for task in tasks.values() for number in task.replaces}
    return {number: task for number, task in tasks.items() if number not in replaced}


def _there(task: ShardTask, sealed: Mapping[int, ShardTask]) -> dict[str, Member]:
    """The videos of a shard as the store has them: its own, or where it is not finished those that it replaces."""
    numbers = (task.number,) if task.number in sealed else task.replaces
    return {member.id: member for number in numbers if number in sealed for member in sealed[number].members}


def _updated(members: Sequence[Member], wanted: Mapping[str, Source], there: Mapping[str, Member]) -> Iterable[Member]:
    """The members with the digests of today; those that are not wanted as they are there, if they are."""
    for member in members:
        if (source := wanted.get(member.id)) is not None:
            yield Member(member.id, source.digest, source.maps)
        elif member.id in there:
            yield there[member.id]


def _new_tasks(
    edits: Mapping[int, tuple[Member, ...]],
    replaced: Mapping[int, tuple[int, ...]],
    added: Sequence[tuple[Member, ...]],
    again: frozenset[str],
    free: int,
) -> list[ShardTask]:
    """Tasks with numbers from `free` on: one for each edited shard that keeps a member and for each added group.

    Shards that keep none are replaced by the first task, whatever that makes, or by an empty one.
    """
    emptied = tuple(gone for number, members in edits.items() if not members for gone in replaced[number])
    kept = [(members, replaced[number]) for number, members in edits.items() if members]
    groups = [*kept, *((members, ()) for members in added)]
    if emptied:
        first, replaces = groups[0] if groups else ((), ())
        groups[:1] = [(first, replaces + emptied)]
    return [
        ShardTask(free + place, members, replaces, again & {member.id for member in members})
        for place, (members, replaces) in enumerate(groups)
    ]


def _packed(sources: Sequence[Source], frames_per_shard: int) -> Iterable[tuple[Member, ...]]:
    """Fill shards one after another."""
    members: list[Member] = []
    frames = 0
    for source in sources:
        if members and frames + source.frames > frames_per_shard:
            yield tuple(members)
            members, frames = [], 0
        members.append(Member(source.id, source.digest, source.maps))
        frames += source.frames
    if members:
        yield tuple(members)


def _with_copies(task: ShardTask, sealed: Mapping[int, ShardTask]) -> ShardTask:
    """Say which members are copied from the finished shards that this one replaces."""
    copied: dict[str, int] = {}
    for number in task.replaces:
        there = set(sealed[number].members) if number in sealed else set()
        copied |= {member.id: number for member in task.members if member in there and member.id not in task.remade}
    return ShardTask(task.number, task.members, task.replaces, task.remade, copied)
