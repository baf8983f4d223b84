"""Settings of a report."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from tinyhd_pipe.stages.settings.ranges import Count, Positive


@dataclass(frozen=True)
class ReportOptions:
    """Show a run on one page."""

    loop_frames: Annotated[int, Ge(1), Le(24)] = 16
    """frames of a loop in the gallery"""
    loop_every: Count = 3
    """frames of the video from one frame of a loop to the next"""
    panel: Annotated[int, Ge(32), Le(640)] = 192
    """largest width of a picture in the gallery, pixels; the page grows with it"""
    price: Positive | None = None
    """of an hour of the machine, in any currency; null leaves out what time has cost"""
