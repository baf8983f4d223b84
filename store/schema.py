"""What a store says about itself: levels, encoding, temporal contract, teacher, fidelity.

All of it lies in the attributes of the root group, so a student takes nothing from the outside. Two dumps
may share a store only if everything here but the measured figures and the provenance is equal: maps of two
teachers in one store would be learned from as if they were one.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from tinyhd_pipe.store.documents import opened_json, sealed_json
from tinyhd_pipe.store.encoding import CHUNK_FRAMES as CHUNK_FRAMES
from tinyhd_pipe.store.encoding import DEFAULT_BUDGET, offset_of_step, step_of_budget
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.storage import Storage

SCHEMA = 1
ROOT = "zarr.json"
HELD = "within half a step / sqrt(map / its mean), at most 1 logit, from frame to frame of a chunk"

MIRRORED = "levels with mirror_of hold maps of the clip mirrored left to right, as the teacher gave them for that clip"


@dataclass(frozen=True)
class Level:
    """One kind of map and how it is stored."""

    name: str
    grid: tuple[int, int]
    """(y, x) of the stored maps."""
    scale: float
    """Logit step between neighbouring codes (CF scale_factor)."""
    offset: float
    """Logit of code 0 (CF add_offset)."""
    mirror_of: str | None = None
    """The level whose maps of the clip mirrored left to right these are; None for maps of the clip as it is."""

    @property
    def kind(self) -> str:
        """The level by which readers ask: that of the clip as it is."""
        return self.mirror_of or self.name

    @staticmethod
    def at_budget(name: str, grid: tuple[int, int], budget: float = DEFAULT_BUDGET) -> "Level":
        """A level whose rounding keeps mean KL(live || stored) within `budget` nats."""
        scale = step_of_budget(budget)
        return Level(name, grid, scale, offset_of_step(scale))


@dataclass(frozen=True)
class Temporal:
    """Which frames a map was made from."""

    window: int = 16
    """Frames that the teacher sees at once; 0 where that is not known."""
    map_of: str = "last frame of the window"
    head: str = "time-reversed window"
    """How the frames before the first full window got theirs."""
    short_video: str = "last frame repeated"
    """What fills the window of a video with fewer frames than it."""
    every: int = 1
    """Frames 0, every, 2 * every, ... of a video have maps."""


@dataclass(frozen=True)
class Description:
    """The identity card of a store."""

    levels: tuple[Level, ...]
    teacher_grid: tuple[int, int]
    """(y, x) on which the live teacher gives its maps."""
    teacher: Mapping[str, Any]
    """Whatever must be equal for two maps to be of one teacher: kind, weights, preprocessing, precision."""
    temporal: Temporal = field(default_factory=Temporal)
    budget: float = DEFAULT_BUDGET
    """Declared fidelity: mean KL(live || stored) on normalised maps, in nats."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Fidelity as measured by the dump that made the store; not part of its identity."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Library versions, licence and other facts worth keeping; not part of the identity."""
    chunk_frames: int = CHUNK_FRAMES
    """Maps that are compressed together."""

    def __post_init__(self) -> None:
        names = [level.name for level in self.levels]
        if not names or len(set(names)) != len(names) or not all(name.isidentifier() for name in names):
            raise StoreError(f"levels {names}: a store needs at least one, each with a name of its own")
        if strangers := [level.name for level in self.levels if level.kind not in names]:
            raise StoreError(f"level {strangers[0]}: mirrors a level that is not among {names}")
        if self.temporal.every < 1:
            raise StoreError(f"every {self.temporal.every}: expected 1 (all frames) or more")

    @property
    def every(self) -> int:
        return self.temporal.every

    @property
    def flip(self) -> Literal["none", "both"]:
        """Whether maps of the mirrored clips are stored, too."""
        return "both" if any(level.mirror_of for level in self.levels) else "none"

    def to_json(self) -> bytes:
        """The root zarr.json."""
        return sealed_json(self.to_plain(), indent=1)

    def to_plain(self) -> dict[str, Any]:
        """The same facts as dicts, lists, strings and numbers."""
        return {
            "schema": SCHEMA,
            "levels": {level.name: _level_to_plain(level) for level in self.levels},
            "to_teacher_grid": "bilinear upsampling of the logits, align_corners=False, then sigmoid",
            "teacher_grid": list(self.teacher_grid),
            **({"mirrored": MIRRORED} if self.flip == "both" else {}),
            "encoding": {"domain": "logit", "chunk_frames": self.chunk_frames, "pixels_held": HELD},
            "temporal": asdict(self.temporal),
            "teacher": dict(self.teacher),
            "fidelity": {
                "figure": "mean KL(live || stored) on normalised maps, nats",
                "budget": self.budget,
                "measured": dict(self.measured),
            },
            "provenance": dict(self.provenance),
        }

    @staticmethod
    def from_json(text: bytes, url: str) -> "Description":
        """Read the root zarr.json. Raises `StoreError` where it is no store of ours, damaged, or too new."""
        try:
            plain = opened_json(text)
        except ValueError as error:
            raise StoreError(
                f"{url}: zarr.json: {error}: not a store of teacher maps, or damaged: 'tinyhd-pipe store verify' tells"
            ) from error
        if plain.get("schema") != SCHEMA:
            raise StoreError(
                f"{url}: schema {plain.get('schema')}, this version reads {SCHEMA}: use the version it names"
            )
        return Description.from_plain(plain)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "Description":
        """From what `to_plain` gives."""
        return Description(
            levels=tuple(_level_from_plain(name, level) for name, level in plain["levels"].items()),
            teacher_grid=(plain["teacher_grid"][0], plain["teacher_grid"][1]),
            teacher=plain["teacher"],
            temporal=Temporal(**plain["temporal"]),
            budget=plain["fidelity"]["budget"],
            measured=plain["fidelity"]["measured"],
            provenance=plain["provenance"],
            chunk_frames=plain["encoding"]["chunk_frames"],
        )

    def refuse_other(self, other: "Description", url: str) -> None:
        """Raise `StoreError`, naming the first fact that differs, where maps of `other` must not join."""
        mine, theirs = _identity(self), _identity(other)
        # Another teacher is said before that its maps are stored otherwise.
        for fact in sorted(mine.keys() | theirs.keys(), key=lambda fact: (not fact.startswith("teacher."), fact)):
            if mine.get(fact) != theirs.get(fact):
                raise StoreError(
                    f"{url}: made with {fact} = {_short(mine.get(fact, 'missing'))}, "
                    f"not {_short(theirs.get(fact, 'missing'))}: "
                    "maps of the two must not mix, use another --store"
                )


def read_description(storage: Storage) -> Description | None:
    """What the store there says about itself; None where there is none.

    Raises `StoreError` where it cannot be read, is damaged, or is something else.
    """
    try:
        text = storage.read(ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreError(f"{storage.url}: cannot be read: {error.strerror or error}: check path and rights") from error
    return Description.from_json(text, storage.url)


def _level_to_plain(level: Level) -> dict[str, Any]:
    plain = {"grid": list(level.grid), "scale_factor": level.scale, "add_offset": level.offset}
    return {**plain, "mirror_of": level.mirror_of} if level.mirror_of else plain


def _level_from_plain(name: str, plain: Mapping[str, Any]) -> Level:
    grid = (plain["grid"][0], plain["grid"][1])
    return Level(name, grid, plain["scale_factor"], plain["add_offset"], plain.get("mirror_of"))


def _identity(description: Description) -> dict[str, object]:
    """What must be equal, as dotted names and plain values."""
    plain = replace(description, measured={}, provenance={}).to_plain()
    names = {f"levels.{level.name}": "stored" for level in description.levels}  # which level, before how it is stored
    return {"flip": description.flip, **names, **dict(_flat("", json.loads(json.dumps(plain))))}


def _flat(prefix: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(f"{prefix}.{key}".lstrip("."), inner)]
    return [(prefix, value)]


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:16] + "…"
