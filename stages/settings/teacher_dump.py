"""Settings of a dump."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Gt, Le, MinLen

from tinyhd_pipe.stages.settings.ranges import Count
from tinyhd_pipe.store.encoding import offset_of_step
from tinyhd_pipe.store.schema import Level

LevelName = Literal["conspicuity_2", "conspicuity_3", "conspicuity_4", "conspicuity_5", "d2", "d3", "final"]


@dataclass(frozen=True)
class StoredLevel:
    """How one level is to be stored, where somebody has decided already."""

    grid: tuple[Count, Count]
    """height and width of the stored map, which divide those of the teacher's own"""
    step: Annotated[float, Gt(0), Le(1)]
    """logits between neighbouring codes"""

    def level(self, name: str, top: float | None = None) -> Level:
        """`top`: the logit of the last code; by default codes lie around where networks' maps do."""
        return Level(name, self.grid, scale=self.step, offset=offset_of_step(self.step, top))


@dataclass(frozen=True)
class DumpOptions:
    """Which maps a dump makes and how it stores them."""

    every: Count = 1
    """frames between two dumped ones: maps are made of frames 0, every, 2 * every, ..."""
    fidelity: Annotated[float, Gt(0), Le(0.1)] = 2e-4
    """mean KL(live, stored) that a stored map may cost, nats"""
    keep: Annotated[tuple[LevelName, ...], MinLen(1)] | None = None
    """levels that are stored, as [final, d2]; by default all that the teacher has, or that an existing store has"""
    flip: Literal["none", "both"] = "none"
    """both: the maps of the clips mirrored left to right are made and stored, too, at twice the cost"""
    levels: Mapping[str, StoredLevel] = field(default_factory=dict)
    """grid and step of levels that are not to be chosen: {final: {grid: [96, 128], step: 0.07}}"""
    shard_megabytes: Annotated[float, Gt(0), Le(4096)] = 128
    """size of a shard: what a kill can cost, and a file"""
    retry_problems: bool = False
    """make those videos again that the store lists with a problem"""
    prune: bool = False
    """drop the maps of videos that are not given; kept otherwise, so that a second folder does not remove the first"""

    overwrite: bool = False
    """remove a store whose maps are of another teacher, preprocessing, fidelity or every, and begin again"""
    allow_noncommercial: bool = False
    """begin a store of a teacher whose terms forbid commercial use, also of students that learn from it"""

    @property
    def shard_bytes(self) -> int:
        return round(self.shard_megabytes * 2**20)
