"""The videos that a command is given: found below its paths, with a line on what was passed over there."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinyhd_pipe.pipeline import console

if TYPE_CHECKING:
    from tinyhd_pipe.stages.video.sources import VideoSource


def given_videos(paths: Sequence[Path]) -> "list[VideoSource]":
    """The videos at `paths`; says of each folder how many files in it were not taken, and of which endings.

    Raises VideoError where there is none.
    """
    from tinyhd_pipe.stages.video.sources import search_videos

    found = search_videos(paths)
    for left_out in found.left_out:
        console.say(str(left_out))
    return list(found.videos)
