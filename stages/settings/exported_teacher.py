"""What an exported network does not say of itself: a file that `export` made says all of this, others nothing."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, MinLen

from tinyhd_pipe.stages.settings.ranges import Count
from tinyhd_pipe.stages.settings.teacher_dump import LevelName

Layout = Literal["B C T Y X", "B T C Y X", "B C Y X"]
Values = Literal["probabilities", "logits", "log-probabilities", "shares"]
Triple = tuple[float, float, float]
Deviation = Annotated[float, Gt(0)]


@dataclass(frozen=True)
class ExportedTeacher:
    """What a network is that somebody else exported (--teacher onnx or torch); a file of `export` says it itself."""

    layout: Layout = "B C T Y X"
    """axes of the input: batch, colour, time, height, width; B C Y X for a network of single pictures"""
    colours: Literal["RGB", "BGR"] = "RGB"
    """order of the three colours"""
    mean: Triple = (123.675, 116.28, 103.53)
    """taken from pixels of 0 to 255, for each colour in its order; ImageNet's by default"""
    std: tuple[Deviation, Deviation, Deviation] = (58.395, 57.12, 57.375)
    """by which they are divided then"""
    frames: Count | None = None
    """frames of a window; as the file has it by default, 16 where it leaves that free"""
    spacing: Count = 1
    """frames of the video from one of a window to the next"""
    answers: Annotated[tuple[Annotated[int, Ge(0)], ...], MinLen(1)] | None = None
    """places in the window, counted from 0, whose frames get maps, as [15]; by default the last one"""
    head: Literal["reverse", "repeat"] | None = None
    """frames before the start: window reversed in time, or frame 0 repeats; by default reverse for last frames"""
    levels: Annotated[tuple[LevelName | Literal["-"], ...], MinLen(1)] | None = None
    """what the outputs are, in their order, as [final, -]; by default their own names, or final for the only one"""
    values: Values = "probabilities"
    """in [0, 1], each pixel by itself; logits of them; log-probabilities or shares: over all pixels of a map"""
    licence: str | None = None
    """terms of the weights, which store and students inherit"""
