"""Undoing damage: what can be written anew is, and what is lost becomes work for the teacher."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyhd_pipe.store.catalogue import live_shards, read_manifests
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import GROUP, SHARDS_GROUP, Manifest
from tinyhd_pipe.store.plan import ShardTask
from tinyhd_pipe.store.plan_files import planned_tasks, read_plan_files, task_of, write_plan
from tinyhd_pipe.store.schema import ROOT, Description, read_description
from tinyhd_pipe.store.storage import Storage, open_storage
from tinyhd_pipe.store.verify import VerifyReport, expected_shards


def repair(url: str | os.PathLike[str], report: VerifyReport) -> tuple[ShardTask, ...]:
    """Write anew what needs no teacher, and say which shards are to be written to undo the rest.

    Each damaged shard becomes one task, for `StoreWriter.shard`: under its own number, with the intact
    videos copied from itself. Call it inside `StoreWriter.exclusive`, and with a teacher that is the
    store's own.

    Raises `StoreError` where a damaged shard stands in no plan: nobody knows then what it held.
    """
    storage = open_storage(url)
    plans, damaged_plans = read_plan_files(storage)
    for damage in report.damages:
        if damage.path == SHARDS_GROUP:
            storage.write(SHARDS_GROUP, GROUP)
        elif damage.path == ROOT:
            storage.write(ROOT, Description.from_plain(plans[-1]["description"]).to_json())
    all_manifests, _ = read_manifests(storage)
    manifests = live_shards(all_manifests)
    _restore_plans(storage, plans, damaged_plans, manifests)
    planned = expected_shards(plans, all_manifests)
    numbers = sorted({damage.shard for damage in report.damages if damage.shard is not None})
    return tuple(_task(number, report, manifests, planned) for number in numbers)


def _restore_plans(
    storage: Storage,
    plans: Sequence[Mapping[str, Any]],
    damaged: Iterable[str],
    manifests: Mapping[int, Manifest],
) -> None:
    """Make damaged and missing plans anew from the manifests of the shards that no other plan names.

    One plan gets all of them, which is the plan that was there unless several were damaged at once, or shards of it
    were replaced since.
    """
    planned = planned_tasks(plans)
    forgotten = [task_of(manifest) for number, manifest in manifests.items() if number not in planned]
    description = read_description(storage)
    for path in damaged:
        storage.remove(path)
    if forgotten and description is not None:
        write_plan(storage, forgotten, description.to_plain(), path=min(damaged, default=None))


def _task(
    number: int, report: VerifyReport, manifests: Mapping[int, Manifest], planned: Mapping[int, ShardTask]
) -> ShardTask:
    if number not in manifests:
        if number not in planned:
            raise StoreError(f"shard {number}: no plan says what it held: delete its folder and dump its videos again")
        return ShardTask(number, planned[number].members, planned[number].replaces, in_place=True)
    manifest = manifests[number]
    lost = {
        affected.video
        for damage in report.damages
        if damage.shard == number and damage.lost
        for affected in damage.affected
    }
    copied = {member.id: number for member in manifest.members if member.id not in lost}
    return ShardTask(number, manifest.members, manifest.replaces, copied=copied, in_place=True)
