"""Settings of the synthetic clips."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from tinyhd_pipe.stages.settings.ranges import Seed, Size


@dataclass(frozen=True)
class SampleOptions:
    """Synthetic clips: several textured objects, gaze goes to what moves or appears."""

    seed: Seed = 0
    """another seed gives other clips"""
    train: Annotated[int, Ge(2)] = 24
    """labelled clips to learn from"""
    heldout: Annotated[int, Ge(1)] = 8
    """labelled clips that nobody learns from"""
    unlabelled: Annotated[int, Ge(0)] = 8
    """clips without labels"""
    frames: Annotated[int, Ge(32)] = 60
    """frames of a clip, 30 a second"""
    size: Size = (64, 96)
    """height and width of a frame, pixels"""
