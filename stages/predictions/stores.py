"""A store's final maps, as something to be scored: what a teacher is worth as it was stored.

Cost: reading, a twentieth of scoring. Frames that were never dumped, or failed, are frames that it has no map of.
"""

from collections.abc import Collection
from functools import partial
from typing import Any

import numpy as np

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.predictions.contender import Contender, Predictions
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.reader import FrameStatus, Store, open_store

LEVEL = "final"
TOGETHER = 32
"""Frames that are read at once."""


def of_store(name: str, url: str) -> Contender:
    """The final maps of a store, on the teacher's grid.

    Raises StoreError where there is no store, SettingError where it keeps no final maps.
    """
    store = open_store(url)
    if LEVEL not in store.levels:
        raise SettingError(f"{url}: has no final maps, but {', '.join(store.levels)}; dump it with level final")
    return Contender(name, _identity(store), partial(_maps, store))


def _maps(store: Store, video: AnnotatedVideo, frames: Collection[int]) -> Predictions:
    name = video.source.id
    if name not in store.videos:
        return
    wanted = np.array(sorted(frames), np.int64)
    there = wanted[store.status(name, wanted) == FrameStatus.VALID].tolist()
    for some in (there[start : start + TOGETHER] for start in range(0, len(there), TOGETHER)):
        maps = store.read(name, some, store.description.teacher_grid, levels=(LEVEL,))[LEVEL]
        yield from zip(some, maps, strict=True)


def _identity(store: Store) -> dict[str, Any]:
    """What the store says about itself, and what it holds: a shard that was made anew has other checksums."""
    return {
        "store": store.info(),
        "shards": [manifest.levels[LEVEL].sha256 for manifest in store.manifests if manifest.rows],
    }
