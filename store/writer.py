"""Making and extending a store: one plan, then shard by shard, each by its own worker if need be.

writer = create_or_open("maps.zarr", description)
with writer.exclusive():
    for task in writer.plan(sources).todo:
        with writer.shard(task) as shard:
            for member in task.to_make:
                with shard.video(member.id, height=360, width=640, rate="30/1") as video:
                    video.append({"final": logits})
                    video.finish(frames=len(logits))
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tinyhd_pipe.store.catalogue import live_shards, shard_numbers
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.lock import claimed, exclusive
from tinyhd_pipe.store.manifest import GROUP, SHARDS, SHARDS_GROUP, manifest_path, shard_folder
from tinyhd_pipe.store.plan import ShardPlan, ShardTask, Source, plan_shards
from tinyhd_pipe.store.plan_files import PLANS, holds, read_plans, read_sealed, sealed_manifest, write_plan
from tinyhd_pipe.store.schema import ROOT, Description
from tinyhd_pipe.store.schema import read_description as _read_description
from tinyhd_pipe.store.shard import ShardWriter, write_shard
from tinyhd_pipe.store.storage import LOCK, PARTIAL, Storage, open_storage

SHARD_BYTES = 128 * 2**20
_BYTES_A_PIXEL = 0.3  # measured on real maps at the default fidelity


def read_description(url: str | os.PathLike[str]) -> Description | None:
    """What an existing store says about itself, or None where there is none yet."""
    return _read_description(open_storage(url))


def create_or_open(url: str | os.PathLike[str], description: Description, *, make: bool = True) -> "StoreWriter":
    """Open a store for writing, making it where there is none.

    Without `make` nothing is written: what is not there yet can be previewed. Raises `StoreError` where there is one
    with another identity, or something else than a store.
    """
    storage = open_storage(url)
    present = read_description(url)
    if present is None:
        if foreign := [name for name in storage.folders("") if not _ours_before_the_root(name)]:
            raise StoreError(f"{url}: holds {foreign[0]} and is no store: name a new or an empty folder")
        if make:
            storage.write(SHARDS_GROUP, GROUP)
            storage.write(ROOT, description.to_json())
        present = description
    present.refuse_other(description, os.fspath(url))
    return StoreWriter(os.fspath(url), present)


def remove_store(url: str | os.PathLike[str]) -> None:
    """Remove all maps of a store, its plans and its root; nothing happens where there is none.

    What makes a shard exist goes first and the root last: killed in between, it is a store with fewer maps, which
    still says whose they are, and the same call goes on. Call it inside `exclusive`.
    """
    storage = open_storage(url)
    for number in shard_numbers(storage):
        storage.remove(manifest_path(number))
    for path in (SHARDS, PLANS, ROOT):
        storage.remove(path)


def _ours_before_the_root(name: str) -> bool:
    """What a dump that was killed before there was a root may have left."""
    return name in (SHARDS, LOCK) or name.endswith(PARTIAL)


@dataclass(frozen=True)
class StoreWriter:
    """Writes shards of one store; picklable, so that each worker writes its own."""

    url: str
    description: Description
    """What the store says about itself; the measured figures are those of the dump that made it."""

    @property
    def storage(self) -> Storage:
        return open_storage(self.url)

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep other dumps out while the context lasts. Raises `StoreError` where one is at work."""
        return exclusive(self.storage)

    def plan(
        self,
        sources: Sequence[Source],
        *,
        shard_bytes: int = SHARD_BYTES,
        shard_frames: int | None = None,
        retry_problems: bool = False,
        prune: bool = False,
        write: bool = True,
    ) -> ShardPlan:
        """Sweep what an earlier run left half-written, and say which shards are to be written.

        Arguments:
            sources: all videos that should be in the store; those already there cost nothing.
            shard_bytes: size of a shard, which is written, retried and copied as a whole.
            shard_frames: the same in frames, where several stores are to have the same shards.
            retry_problems: make those videos again that are listed with a problem.
            prune: drop videos that are not among the sources.
            write: without it the plan is a preview from reading alone: nothing is swept and nothing written.

        The plan is written down before it is returned. Call it inside `exclusive`, a preview anywhere.
        """
        storage = self.storage
        sealed, manifests = read_sealed(storage)
        if write:
            sweep(storage, sealed)
        problems = [
            manifest.columns["id"][position]
            for manifest in live_shards(manifests).values()
            for position in manifest.problems
        ]
        plan = plan_shards(
            sources,
            read_plans(storage),
            sealed,
            frames_per_shard=shard_frames or self.frames_in(shard_bytes),
            retried=problems if retry_problems else (),
            prune=prune,
        )
        if write and plan.new:
            write_plan(storage, plan.new, self.description.to_plain())
        return plan

    def is_sealed(self, task: ShardTask) -> bool:
        """Whether the shard of this task is finished; a task that is run twice looks first."""
        sealed = sealed_manifest(self.storage, task.number)
        return sealed is not None and holds(sealed, task) and not task.in_place

    def claim(self, task: ShardTask) -> AbstractContextManager[None]:
        """Keep other workers off this shard while the context lasts; waits for one that is at it. Look whether the
        shard is sealed inside it."""
        return claimed(self.storage, task.number)

    def made(self, task: ShardTask) -> tuple[int, int]:
        """Of the sealed shard of this task: maps of each level that were not copied, and bytes of all maps.

        Raises `StoreError` where the shard is not sealed.
        """
        sealed = sealed_manifest(self.storage, task.number)
        if sealed is None:
            raise StoreError(f"{self.url}: shard {task.number} is not there after it was made: run again")
        new = {member.id for member in task.to_make}
        rows = zip(sealed.columns["id"], sealed.columns["rows"], strict=True)
        maps = sum(count for video_id, count in rows if video_id in new)
        return maps, sum(file.bytes for file in sealed.levels.values())

    def sweep(self) -> None:
        """Remove what dead workers left. Call it inside `exclusive`, when no shard is being written."""
        sweep(self.storage, read_sealed(self.storage)[0])

    @contextmanager
    def shard(self, task: ShardTask, *, threads: int = 1) -> Iterator[ShardWriter]:
        """Write one shard; leaving normally finishes it, an exception leaves the store as it was.

        With several `threads` its levels are encoded side by side, into the same bytes.
        """
        with write_shard(self.storage, self.description, task, threads=threads) as shard:
            yield shard

    def frames_in(self, shard_bytes: int) -> int:
        """About how many frames of a video a shard of that size holds, `every` counted in."""
        pixels = sum(level.grid[0] * level.grid[1] for level in self.description.levels)
        return max(1, int(shard_bytes * self.description.every / (pixels * _BYTES_A_PIXEL)))


def sweep(storage: Storage, sealed: Mapping[int, ShardTask]) -> None:
    """Remove what no reader looks at: temporary files, unfinished shards, shards that were replaced."""
    numbers = shard_numbers(storage)
    manifests = storage.read_many(manifest_path(number) for number in numbers)
    replaced = {number for task in sealed.values() for number in task.replaces}
    for number in numbers:
        if number in replaced:
            storage.remove(manifest_path(number))
        if number in replaced or manifest_path(number) not in manifests:
            storage.remove(shard_folder(number))
    for path in storage.sizes(""):
        if path.endswith(PARTIAL):
            storage.remove(path)
