"""What a student learns from: the maps of one store, or of several that hold the same videos, fused on the fly.

Maps are fused as distributions, each divided by its sum: what is trained on is a divergence of normalised maps, and a
teacher whose maps are brighter must not count for more. A level that only some stores have is fused over those. The
published log has no larger gain than three teachers fused (CC .492 to .511). Cost: one read for each store.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from tinyhd_pipe.stages.networks.levels import CONSPICUITY, FINAL, levels_of, plain_level
from tinyhd_pipe.stages.networks.licence import NONE_STATED
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.store.errors import DataError, SettingError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.reader import Store

Value = TypeVar("Value")
Maps = dict[str, NDArray[np.float32]]
Density = NDArray[np.float32] | None
"""(frame, y, x) density maps of the frames that are read, as large as their maps and mirrored as they are."""


class TeacherMaps(Protocol):
    """Teacher maps of videos, however they come about: from stores (`Targets`), or made live (`LiveTargets`)."""

    @property
    def urls(self) -> str: ...
    @property
    def levels(self) -> tuple[str, ...]: ...
    @property
    def every(self) -> int: ...
    @property
    def videos(self) -> list[str]: ...
    @property
    def licences(self) -> list[str]: ...
    def video(self, video: str, /) -> VideoRow: ...
    def read(
        self, video: str, frames: Any, /, *, size: tuple[int, int], mirrored: bool = False, density: Density = None
    ) -> Maps: ...
    def facts(self) -> dict[str, Any]: ...
    def lacking(self, decoders: Sequence[str], /) -> list[str]: ...


@dataclass(frozen=True)
class Targets:
    """Teacher maps of videos that all of some stores hold."""

    stores: tuple[Store, ...]
    weights: tuple[float, ...]
    """Of each store, positive; only their ratios count."""
    stood_for: tuple[str, ...] = ()
    """Levels whose target is the final map where no store has them (`with_stand_ins`)."""
    confidence: float | None = None
    """nats; a store's weight on a labelled sample is its own times exp(-KL(density ‖ its final map) / confidence), the
    KL as the mean over the sample's frames. None: weights are fixed. (Confidence as FerKD has it, for images.)"""

    @staticmethod
    def of(
        stores: Sequence[Store],
        weights: Sequence[float] | None = None,
        *,
        stood_for: tuple[str, ...] = (),
        confidence: float | None = None,
    ) -> "Targets":
        """Fuse stores, by equal weights where none are given.

        Raises SettingError where there are not as many weights as stores, DataError for a store without final maps.
        """
        if weights is not None and len(weights) != len(stores):
            raise SettingError(f"store_weights: {len(weights)} for {len(stores)} stores; give one for each --store")
        for store in stores:
            if FINAL not in store.levels:
                raise DataError(f"{store.url}: has no final maps, only {', '.join(store.levels)}; give another store")
        return Targets(tuple(stores), tuple(weights or [1.0] * len(stores)), stood_for, confidence)

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """Levels that there is a target for."""
        there = dict.fromkeys(level for store in self.stores for level in store.levels)
        return tuple(with_stand_ins(there, self.stood_for))

    @property
    def every(self) -> int:
        """All stores have maps of frames 0, every, 2 * every, ..."""
        return math.lcm(*(store.every for store in self.stores))

    @cached_property
    def videos(self) -> list[str]:
        """Ids of the videos that every store holds."""
        first, *others = (store.videos for store in self.stores)
        held = [set(videos) for videos in others]
        return [video for video in first if all(video in videos for videos in held)]

    @property
    def budget(self) -> float:
        """Mean KL(live ‖ stored) of a map, nats, as the least faithful store declares it."""
        return max(store.description.budget for store in self.stores)

    @property
    def licences(self) -> list[str]:
        """Terms of each store's maps, which are those of its teacher's weights."""
        return [store.description.provenance.get("licence", NONE_STATED) for store in self.stores]

    @property
    def urls(self) -> str:
        return ", ".join(store.url for store in self.stores)

    def video(self, video: str) -> VideoRow:
        """What the stores say of a video: a frame that failed in one of them has no target.

        Raises DataError where they saw different videos of that name.
        """
        first, *others = (store.video(video) for store in self.stores)
        for store, row in zip(self.stores[1:], others, strict=True):
            if (row.digest, row.frames) != (first.digest, first.frames):
                raise DataError(
                    f"{video}: {self.stores[0].url} and {store.url} saw different videos of that name; "
                    "run teacher-dump again for the one that has changed"
                )
        failed = sorted({frame for row in (first, *others) for frame in row.failed})
        return replace(first, failed=tuple(failed))

    def read(
        self, video: str, frames: Any, *, size: tuple[int, int], mirrored: bool = False, density: Density = None
    ) -> Maps:
        """Maps of some frames, level -> float32 (frame, y, x) at `size`; fused ones are distributions, of sum 1.

        `mirrored` gives those of the clip mirrored left to right: the teacher's own where a store has them, else the
        maps of the clip, mirrored. `density` is what `confidence` holds the teachers against.
        """
        read = [_read(store, video, frames, size, mirrored=mirrored) for store in self.stores]
        weights = self._weights(read, density)
        maps = read[0] if len(read) == 1 else {level: _fused(level, read, weights) for level in _all(read)}
        return with_stand_ins(maps, self.stood_for)

    def _weights(self, read: Sequence[Maps], density: Density) -> Sequence[float]:
        """Of each store for one sample."""
        if self.confidence is None or density is None or len(read) == 1:
            return self.weights
        divergences = [_divergence(density, maps[FINAL]) for maps in read]
        least = min(divergences)  # only ratios count, and exp of a large one would be 0 for all
        return [
            weight * math.exp((least - divergence) / self.confidence)
            for weight, divergence in zip(self.weights, divergences, strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        """Whose maps these are, as a student's weights file tells it."""
        teachers = [store.info()["teacher"] for store in self.stores]
        stores = [
            {
                "every": store.every,
                "levels": sorted(store.levels),
                "fidelity": store.description.budget,
                "flip": store.description.flip,
            }
            for store in self.stores
        ]
        return {
            "teacher": teachers[0] if len(teachers) == 1 else {"fused": teachers},
            "stores": stores,
            "store_weights": list(self.weights),
            "stood_for": list(self.stood_for),
        }

    def lacking(self, decoders: Sequence[str]) -> list[str]:
        """The maps of a student with these decoders that no store has a target for."""
        return lacking(decoders, self.levels)


def stood_for(recipe: StudentRecipe) -> tuple[str, ...]:
    """The levels for which the final map stands in, by a student's settings, where no teacher has them."""
    of_d1 = CONSPICUITY if recipe.missing_conspicuity == "final" else ()
    return (*of_d1, *(("d2", "d3") if recipe.missing_decoders == "final" else ()))


def with_stand_ins(maps: Mapping[str, Value], stood_for: Sequence[str]) -> dict[str, Value]:
    """The final map in the place of levels that are not there; for D1's four only where none of them is."""
    hierarchical = not maps.keys().isdisjoint(CONSPICUITY)
    missing = (level for level in stood_for if level not in maps and not (hierarchical and level in CONSPICUITY))
    return {**maps, **dict.fromkeys(missing, maps[FINAL])}


def lacking(decoders: Sequence[str], levels: Sequence[str]) -> list[str]:
    """The maps of a student with these decoders that are not among the levels of its teacher."""
    answered = (level for names in levels_of(decoders) for level in names)
    return [level for level in answered if plain_level(level) not in levels]


def usable_frames(row: VideoRow) -> NDArray[np.bool_] | None:
    """(frame,) False where there is no map because the frame did not decode; None where all of them are there."""
    usable = np.ones(row.frames, bool)
    usable[row.numbering.places(row.failed)] = False
    return usable if row.failed else None


def _read(store: Store, video: str, frames: Any, size: tuple[int, int], *, mirrored: bool) -> Maps:
    maps = store.read(video, frames, size=size, mirrored=mirrored and store.mirrored)
    if mirrored and not store.mirrored:
        maps = {level: np.ascontiguousarray(one[..., ::-1]) for level, one in maps.items()}
    return maps


def _fused(level: str, read: Sequence[Maps], weights: Sequence[float]) -> NDArray[np.float32]:
    having = [(weight, maps[level]) for weight, maps in zip(weights, read, strict=True) if level in maps]
    total = sum(weight for weight, _ in having)
    parts = [maps * (weight / total / maps.sum(axis=(-2, -1), keepdims=True)) for weight, maps in having]
    fused: NDArray[np.float32] = np.sum(parts, axis=0, dtype=np.float32)
    return fused


def _divergence(density: NDArray[np.float32], maps: NDArray[np.float32]) -> float:
    """Mean KL(density ‖ maps) over frames, (frame, y, x) each, in nats; frames without any gaze are passed over."""
    seen = density.sum(axis=(-2, -1)) > 0
    truth, stored = (one[seen] / one[seen].sum(axis=(-2, -1), keepdims=True) for one in (density, maps))
    return float(rel_entr(truth, stored).sum(axis=(-2, -1)).mean()) if seen.any() else 0.0


def _all(read: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(level for maps in read for level in maps))
