"""Settings of making maps from gaze tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from tinyhd_pipe.stages.settings.ranges import Count, Positive


@dataclass(frozen=True)
class FromGazeOptions:
    """Make fixation and density maps from tables of eye trackers."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """names of columns that are not known by themselves: {x: Gaze_X, time: t_ms}; or --column x=Gaze_X"""
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """of times; auto: as the column's name or the kind of export says, else seconds"""
    duration_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """of durations; auto: as the column's name or the kind of export says, else that of times"""
    position_unit: Literal["auto", "px", "share"] = "auto"
    """px: pixels, share: of the picture's width and height; auto: as the column's name says, else px"""
    time_origin: Literal["auto", "video", "first"] = "auto"
    """video: times count from its first frame; first: from each observer's first row of it; auto: as exports do"""
    first_frame: Annotated[int, Ge(0)] = 0
    """the number that a column of frames gives the first one"""
    fps: Positive | None = None
    """frames a second, where the video does not say it or says it wrongly"""
    picture: tuple[float, float, Positive, Positive] | None = None
    """left, top, width, height of the video on the screen, pixels of the table; null: its pixels are the video's own"""
    sigma: Positive | None = None
    """of the Gaussian, pixels of the video; null: an 18th of its height, 20 of 360, about a degree as often shown"""
    sigma_degrees: Positive | None = None
    """of the Gaussian in degrees of visual angle, instead of sigma; needs the three settings below"""
    distance_cm: Positive | None = None
    """from eye to screen"""
    screen_cm: tuple[Positive, Positive] | None = None
    """width and height of the screen"""
    screen_px: tuple[Count, Count] | None = None
    """the same in pixels; a video whose place on it is not given (picture) fills it"""
    pool: Count = 1
    """frames whose points make a density map, its own in the middle: an odd number"""
    confidence: Annotated[float, Gt(0), Le(1)] = 0.6
    """least validity of a row, where it is a number from 0 to 1"""
    saccades: bool = False
    """take rows, too, of which the table says that they are no fixation"""
    fixations: Literal["png", "mat", "both"] = "png"
    """files of fixation maps"""

    def __post_init__(self) -> None:
        if self.pool % 2 == 0:
            raise ValueError(f"pool {self.pool}: expected an odd number of frames")
        geometry = (self.distance_cm, self.screen_cm, self.screen_px)
        if self.sigma_degrees is not None and self.sigma is not None:
            raise ValueError("sigma and sigma_degrees are both given; leave one of them out")
        if self.sigma_degrees is not None and None in geometry:
            raise ValueError("sigma_degrees needs distance_cm, screen_cm and screen_px")
