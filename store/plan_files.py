"""Plan files: reading and writing what `plan` decides, and finding out what of it is finished."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from tinyhd_pipe.store.catalogue import read_manifests
from tinyhd_pipe.store.documents import opened_json, sealed_json
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import SHARDS, Manifest, data_path, manifest_path, metadata_path, shard_folder
from tinyhd_pipe.store.plan import Member, ShardTask
from tinyhd_pipe.store.storage import Storage

PLANS = "plans"


def plan_path(number: int) -> str:
    """Where a plan lies in the store."""
    return f"{PLANS}/{number:05d}.json"


def write_plan(
    storage: Storage, tasks: Sequence[ShardTask], description: Mapping[str, Any], path: str | None = None
) -> None:
    """Add a plan file with these new shards, under the first free number unless `path` says which."""
    taken = {int(name.removesuffix(".json")) for name in _plan_names(storage)}
    shards = [
        {
            "shard": task.number,
            "replaces": list(task.replaces),
            "remade": sorted(task.remade),
            "id": [member.id for member in task.members],
            "digest": [member.digest for member in task.members],
            **({"maps": [member.maps for member in task.members]} if any(m.maps for m in task.members) else {}),
        }
        for task in tasks
    ]
    document = sealed_json({"description": dict(description), "shards": shards})
    storage.write(path or plan_path(next(number for number in count() if number not in taken)), document)


def read_plans(storage: Storage) -> dict[int, ShardTask]:
    """All planned shards by number. Raises `StoreError` where a plan is damaged."""
    plans, damaged = read_plan_files(storage)
    for path, reason in damaged.items():
        raise StoreError(f"{storage.url}/{path}: {reason}: delete it and run again, finished shards are kept")
    return planned_tasks(plans)


def read_plan_files(storage: Storage) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The plans in the order in which they were made, and path -> reason for those that are damaged."""
    plans: list[dict[str, Any]] = []
    damaged: dict[str, str] = {}
    texts = storage.read_many(f"{PLANS}/{name}" for name in _plan_names(storage))
    for path, text in sorted(texts.items()):
        try:
            plans.append(opened_json(text))
        except ValueError as error:
            damaged[path] = str(error)
    return plans, damaged


def planned_tasks(plans: Sequence[Mapping[str, Any]]) -> dict[int, ShardTask]:
    """The shards of these plans by number."""
    return {shard["shard"]: _task(shard) for plan in plans for shard in plan["shards"]}


def _plan_names(storage: Storage) -> list[str]:
    names = storage.folders(PLANS)
    return [name for name in names if name.endswith(".json") and name.removesuffix(".json").isdecimal()]


def _task(shard: Mapping[str, Any]) -> ShardTask:
    maps = shard.get("maps") or [""] * len(shard["id"])
    members = tuple(map(Member, shard["id"], shard["digest"], maps))
    return ShardTask(shard["shard"], members, tuple(shard["replaces"]), frozenset(shard["remade"]))


def read_sealed(storage: Storage) -> tuple[dict[int, ShardTask], dict[int, Manifest]]:
    """The shards that are finished: intact manifest, every file there with its size. Both by number.

    A shard whose file is missing or cut short counts as not finished, so that a rerun makes it again.
    """
    manifests, _ = read_manifests(storage)
    sizes = storage.sizes(SHARDS)
    whole = {number: manifest for number, manifest in manifests.items() if _is_whole(manifest, sizes)}
    return {number: task_of(manifest) for number, manifest in whole.items()}, whole


def sealed_manifest(storage: Storage, number: int) -> Manifest | None:
    """The manifest of this shard if it is finished, by the same rule."""
    path = manifest_path(number)
    try:
        manifest = Manifest.from_json(storage.read_many([path])[path])
    except (KeyError, ValueError):
        return None
    return manifest if _is_whole(manifest, storage.sizes(shard_folder(number))) else None


def holds(manifest: Manifest, task: ShardTask) -> bool:
    """Whether the shard of this manifest has the members of the task."""
    return task_of(manifest).members == task.members


def _is_whole(manifest: Manifest, sizes: Mapping[str, int]) -> bool:
    return all(
        sizes.get(data_path(manifest.number, level)) == file.bytes and metadata_path(manifest.number, level) in sizes
        for level, file in manifest.levels.items()
    )


def task_of(manifest: Manifest) -> ShardTask:
    """The task that a finished shard was."""
    return ShardTask(manifest.number, manifest.members, manifest.replaces)
