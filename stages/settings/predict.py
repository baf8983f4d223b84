"""Settings of a prediction."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Le

from tinyhd_pipe.stages.settings.ranges import NotNegative, Positive

Format = Literal["png", "npz", "zarr", "video"]
Brightness = Literal["peak", "absolute"]
Colours = Literal["heat", "rainbow", "light"]
RoiFormat = Literal["ffmpeg", "kvazaar"]


@dataclass(frozen=True)
class PredictOptions:
    """Make a map of every frame of any video."""

    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """of the network; auto: bfloat16 for full-width HD2S where the device has units for it"""
    strength: Annotated[float, Gt(0), Le(1)] = 0.7
    """of an overlay: how much of the frame its map covers where it is brightest"""
    fps: Positive = 25.0
    """frames a second of films where the original does not say, as of a folder of pictures"""
    reframe_speed: Positive = 0.25
    """of --reframe: share of the picture's side that the crop moves along, at most, in a second"""
    reframe_calm: NotNegative = 0.15
    """of --reframe: share of all attention that must be gained, for some seconds, to be worth a move over the side"""
    reframe_ahead: NotNegative = 1.5
    """of --reframe: seconds of the film that are seen before a place is settled"""
    roi_strength: Annotated[float, Gt(0), Le(2)] = 0.5
    """of --roi: share of the offsets that are best where nothing counts but the map"""
    roi_limit: Annotated[float, Gt(0), Le(12)] = 4.0
    """of --roi: the largest offset, in QP"""
    roi_seconds: Positive = 0.5
    """of --roi: how long offsets stay"""
    thumbnail_zoom: Annotated[float, Gt(0), Le(1)] = 0.6
    """of --thumbnail: share of the picture's width and height that a crop covers"""
    thumbnail_apart: NotNegative = 1.0
    """of --thumbnail: seconds between two of one shot, at least"""
