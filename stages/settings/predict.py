"""Settings of a prediction."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["png", "npz", "zarr", "video"]
Brightness = Literal["peak", "absolute"]
Colours = Literal["heat", "rainbow", "grey"]


@dataclass(frozen=True)
class PredictOptions:
    """Make a map of every frame of any video."""

    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """of the network; auto: bfloat16 for full-width HD2S where the device has units for it"""
