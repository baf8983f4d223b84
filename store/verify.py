"""Finding damage: every byte of a store is covered by some checksum, and here all of them are looked at.

Chunks have their own CRC-32C, so have indices, manifests, plans and the root; what has none (the metadata
of an array) is a function of the manifest and is compared byte by byte; and the manifest has one of each
data file as a whole. What is found is named by video and frame. Cost: one sequential read of the store;
memory holds one chunk.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyhd_pipe.store.catalogue import live_shards, read_manifests
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.inspection import inspect
from tinyhd_pipe.store.manifest import (
    GROUP,
    SHARDS_GROUP,
    Manifest,
    data_path,
    manifest_path,
    metadata_path,
    shard_folder,
)
from tinyhd_pipe.store.plan import ShardTask, without_replaced
from tinyhd_pipe.store.plan_files import PLANS, planned_tasks, read_plan_files, task_of
from tinyhd_pipe.store.schema import ROOT, Description, read_description
from tinyhd_pipe.store.shard import level_metadata
from tinyhd_pipe.store.storage import Storage, open_storage


@dataclass(frozen=True)
class Affected:
    """Maps of one video that cannot be trusted."""

    video: str
    first_frame: int = 0
    last_frame: int | None = None
    """The last one, included; None: all of them."""

    def __str__(self) -> str:
        if self.last_frame is None:
            return f"{self.video} (all frames)"
        return f"{self.video} (frames {self.first_frame} to {self.last_frame})"


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was written."""

    path: str
    """Relative to the store."""
    reason: str
    shard: int | None = None
    level: str | None = None
    affected: tuple[Affected, ...] = ()
    lost: bool = True
    """Maps have to be made again; otherwise what is damaged can be written anew without a teacher."""

    def __str__(self) -> str:
        named = ", ".join(map(str, self.affected[:4])) + (", …" if len(self.affected) > 4 else "")
        return f"{self.path}: {self.reason}" + (f": {named}" if named else "")


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` looked at and what it found."""

    shards: int
    chunks: int
    bytes: int
    damages: tuple[Damage, ...]

    @property
    def sound(self) -> bool:
        return not self.damages


def verify(url: str | os.PathLike[str], report: Callable[[int, int], None] = lambda done, total: None) -> VerifyReport:
    """Look at every byte of a store; `report` is told (shards done, shards in all).

    Raises `StoreError` only where nothing says what the store should hold.
    """
    storage = open_storage(url)
    plans, damaged_plans = read_plan_files(storage)
    damages = [Damage(path, reason, lost=False) for path, reason in damaged_plans.items()]
    if storage.read_many([SHARDS_GROUP]).get(SHARDS_GROUP) != GROUP:
        damages.append(Damage(SHARDS_GROUP, "is missing or not as written", lost=False))
    description, from_root = _description(storage, plans)
    if not from_root:
        damages.append(Damage(ROOT, "is missing or damaged", lost=False))
    manifests, broken = read_manifests(storage)
    planned = expected_shards(plans, manifests)
    live = live_shards(manifests)
    if not damaged_plans and (forgotten := live.keys() - planned_tasks(plans).keys()):
        named = ", ".join(map(str, sorted(forgotten)[:4])) + (", …" if len(forgotten) > 4 else "")
        damages.append(Damage(PLANS, f"a plan is missing, of shards {named}", lost=False))
    numbers = sorted(live.keys() | broken.keys() | (planned.keys() - manifests.keys()))
    for done, number in enumerate(numbers):
        report(done, len(numbers))
        if number in live:
            damages += _shard_damages(storage, description, live[number])
        else:
            damages.append(_unreadable(number, broken.get(number), planned.get(number)))
    report(len(numbers), len(numbers))
    return VerifyReport(
        shards=len(numbers),
        chunks=sum(manifest.rows // description.chunk_frames * len(manifest.levels) for manifest in live.values()),
        bytes=sum(file.bytes for manifest in live.values() for file in manifest.levels.values()),
        damages=tuple(damages),
    )


def expected_shards(plans: Sequence[Mapping[str, Any]], manifests: Mapping[int, Manifest]) -> dict[int, ShardTask]:
    """The shards that should be there, by all plans and by what finished shards say that they take the place of."""
    finished = {number: task_of(manifest) for number, manifest in manifests.items()}
    return without_replaced({**planned_tasks(plans), **finished})


def known_description(url: str | os.PathLike[str]) -> Description:
    """What a store says of itself, where its root is damaged from the copy in its plans.

    Raises `StoreError` where neither can be read, or where there is no store.
    """
    storage = open_storage(url)
    return _description(storage, read_plan_files(storage)[0])[0]


def _description(storage: Storage, plans: Sequence[Mapping[str, Any]]) -> tuple[Description, bool]:
    """The same, and whether the root says so."""
    try:
        description = read_description(storage)
    except StoreError:
        if not plans:
            raise
        description = None
    if description is not None:
        return description, True
    if not plans:
        raise StoreError(f"{storage.url}: no store there: make one with 'tinyhd-pipe teacher-dump'")
    return Description.from_plain(plans[-1]["description"]), False


def _unreadable(number: int, broken: str | None, planned: ShardTask | None) -> Damage:
    """A shard without a manifest that can be read."""
    affected = tuple(Affected(member.id) for member in planned.members) if planned else ()
    if broken is not None:
        return Damage(manifest_path(number), broken, number, affected=affected)
    return Damage(shard_folder(number), "is missing: deleted, or its dump was not finished", number, affected=affected)


def _shard_damages(storage: Storage, description: Description, manifest: Manifest) -> Iterator[Damage]:
    number, chunks = manifest.number, manifest.rows // description.chunk_frames
    for level in description.levels if manifest.rows else ():
        path = metadata_path(number, level.name)
        if storage.read_many([path]).get(path) != level_metadata(description, level, manifest.rows):
            yield Damage(path, "is missing or not as written", number, level.name, lost=False)
        path = data_path(number, level.name)
        try:
            file = storage.open(path)
        except FileNotFoundError:
            affected = _affected(description, manifest, range(chunks))
            yield Damage(path, "is missing", number, level.name, affected)
            continue
        for finding in inspect(file, chunks, manifest.levels[level.name]):
            affected = _affected(description, manifest, finding.chunks)
            yield Damage(path, finding.reason, number, level.name, affected, finding.lost)


def _affected(description: Description, manifest: Manifest, chunks: range) -> tuple[Affected, ...]:
    """The videos and frames that lie in adjacent chunks."""
    start, stop = chunks.start * description.chunk_frames, chunks.stop * description.chunk_frames
    found = []
    for position in range(len(manifest)):
        row = manifest.row(position)
        first = max(start - row.first_row, 0)
        last = min(stop - row.first_row, row.rows) - 1
        if first <= last:
            places = [row.first_frame + place * description.every for place in (first, last)]
            found.append(Affected(row.id, *row.numbering.numbers(places).tolist()))
    return tuple(found)
