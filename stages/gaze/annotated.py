"""What every data set comes down to: videos, and for each of them files that say where people looked, by frame.

The decision that is not obvious: everything is paired by NUMBER and not by place. Maps are keyed by the absolute frame
that they belong to, so an annotation may have more or fewer frames than its video: whoever reads the video asks for the
frames that it has, and gets None where nothing was recorded. An all-zero density map counts as missing, because it has
no distribution to learn and KL to it is NaN. Cost: reading one map of 360x640 takes some 2 ms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.label_files import picture_size, read_fixation_file, read_grey, rescaled_points
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError, VideoError

Item = TypeVar("Item")
NAMED = 5
"""Names that a line lists before it says that there are more."""


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video and where people looked in it."""

    source: VideoSource
    """Its frames: a video file, or a folder of pictures."""
    folder: Path
    """Its annotation folder, such as `annotation/0001`."""
    density_maps: Mapping[int, str]
    """Absolute frame, counted from 0, to the file of its density map below `folder`; in order of frames."""
    fixations: Mapping[int, str]
    """The same for fixation maps, PNG or else .mat; empty where there are none. A file that holds the labels of many
    frames is named as a folder of them, `NAME.mp4/0014` (label_videos.py)."""


@dataclass(frozen=True)
class AnnotatedVideos:
    """What was found in a data set's folder."""

    layout: str
    """Which layout the folder has, as `--layout` names it."""
    videos: tuple[AnnotatedVideo, ...]
    """Those that have both frames and density maps."""
    left_out: tuple[str, ...] = ()
    """One line for each kind of thing that belongs to no such video: how many, why, and the first of their names."""


def read_density(video: AnnotatedVideo, frame: int) -> NDArray[np.float32] | None:
    """Read the density map of a frame, float32 (y, x) in [0, 1] or None where there is nothing to learn.

    `frame` is absolute, counted from 0. A map that is missing or zero everywhere is None: it must never
    become a target. Raises DataError for a file that is no picture.
    """
    file = video.density_maps.get(frame)
    if file is None:
        return None
    density = read_grey(video.folder / file)
    return density if density.any() else None


def read_fixations(video: AnnotatedVideo, frame: int) -> NDArray[np.bool_] | None:
    """Read where people looked at a frame, bool (y, x), or None where it was not recorded.

    `frame` is absolute, counted from 0. A frame at which nobody looked is all False, not None. Where the frame has a
    density map they are of its size: points recorded at another one are moved. Raises DataError for a file that is no
    picture, or a .mat file without the variable `I` or one alone.
    """
    file = video.fixations.get(frame)
    if file is None:
        return None
    fixations = read_fixation_file(video.folder / file)
    density = video.density_maps.get(frame)
    size = fixations.shape if density is None else picture_size(video.folder / density)
    return fixations if size == fixations.shape else rescaled_points(fixations, size)


def annotated(
    pairs: Sequence[Item], annotate: Callable[[Item], AnnotatedVideo]
) -> tuple[tuple[AnnotatedVideo, ...], tuple[str, ...]]:
    """The videos of these pairs, and a line for each of them whose annotation or frames cannot be understood.

    Raises DataError with that line where none can.
    """
    found, reasons = [], []
    for pair in pairs:
        try:
            found.append(annotate(pair))
        except (DataError, VideoError) as error:
            reasons.append(str(error))
    if reasons and not found:
        raise DataError(reasons[0])
    return tuple(found), tuple(reasons)


def left_out(without_video: Sequence[str], without_maps: Sequence[str]) -> tuple[str, ...]:
    """The lines on annotations without a video, and on videos without annotation."""
    return tuple(
        f"{_count(names, one)} {what}: {named(names)}"
        for one, what, names in (
            ("annotation", "without a video", without_video),
            ("video", "without density maps", without_maps),
        )
        if names
    )


def _count(names: Sequence[str], one: str) -> str:
    return f"{len(names)} {one}{'s' if len(names) > 1 else ''}"


def named(names: Sequence[str]) -> str:
    """The first of some names, for a line that says what was left out."""
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
