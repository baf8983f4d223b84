"""Which videos a store holds and where: all shard manifests, as columns in memory.

There is no central index that would have to be rewritten: the manifests are the index. They are read once,
when the store is opened (concurrently where the storage can): 240,000 videos in 480 shards take half a second
of one processor and 160 MB.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import SHARDS, Manifest, manifest_path
from tinyhd_pipe.store.storage import Storage


@dataclass(frozen=True)
class Catalogue:
    """Every run of maps in the store, ordered by shard, as parallel columns."""

    manifests: Sequence[Manifest]
    """The live shards in order of their numbers."""
    first_run: NDArray[np.int64]
    """(shard,) Position of each shard's first run among all runs."""
    runs_of: dict[str, int | tuple[int, ...]]
    """Video id -> position of its run, or of its runs in the order of their first frames."""


def shard_numbers(storage: Storage) -> list[int]:
    """Numbers of all shard folders, sealed or not."""
    return sorted(int(name) for name in storage.folders(SHARDS) if name.isdecimal())


def read_manifests(storage: Storage) -> tuple[dict[int, Manifest], dict[int, str]]:
    """All sealed shards, and for those whose manifest is damaged what is wrong with it, both by number."""
    paths = {manifest_path(number): number for number in shard_numbers(storage)}
    manifests: dict[int, Manifest] = {}
    damaged: dict[int, str] = {}
    for path, text in storage.read_many(paths).items():
        number = paths[path]
        try:
            manifests[number] = Manifest.from_json(text)
        except ValueError as error:
            damaged[number] = str(error)
    return manifests, damaged


def live_shards(manifests: dict[int, Manifest]) -> dict[int, Manifest]:
    """Without the shards that a later one has taken the place of."""
    replaced = {number for manifest in manifests.values() for number in manifest.replaces}
    return {number: manifests[number] for number in sorted(manifests) if number not in replaced}


def read_catalogue(storage: Storage) -> Catalogue:
    """Raises `StoreError` where a manifest is damaged: its videos would silently be missing."""
    manifests, damaged = read_manifests(storage)
    for number, reason in sorted(damaged.items()):
        raise StoreError(f"{storage.url}: {manifest_path(number)} is damaged ({reason}): run 'store verify --repair'")
    live = list(live_shards(manifests).values())
    first_run = np.cumsum([0, *(len(manifest) for manifest in live)])[:-1].astype(np.int64)
    ids = list(chain.from_iterable(manifest.columns["id"] for manifest in live))
    runs_of: dict[str, int | tuple[int, ...]] = {video_id: run for run, video_id in enumerate(ids)}
    if len(runs_of) < len(ids):
        _join_runs(runs_of, ids, list(chain.from_iterable(manifest.columns["first_frame"] for manifest in live)))
    return Catalogue(live, first_run, runs_of)


def _join_runs(runs_of: dict[str, int | tuple[int, ...]], ids: Sequence[str], first_frames: Sequence[int]) -> None:
    """Give videos with several runs all of them, in the order of their first frames."""
    several: dict[str, list[int]] = {}
    for run, video_id in enumerate(ids):
        if runs_of[video_id] != run or video_id in several:
            several.setdefault(video_id, []).append(run)
    for video_id, runs in several.items():
        last = runs_of[video_id]
        assert isinstance(last, int)
        runs_of[video_id] = tuple(sorted({*runs, last}, key=lambda run: first_frames[run]))
