"""Write the fixations of a data set as one table, which `from_gaze` reads again.

Places are shares of the picture, the middle of each fixated pixel, so that the table means the same for maps of any
size. Observers are not in fixation maps, and so not in the table. Cost: reading the maps, some 2 ms each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_fixations
from tinyhd_pipe.stages.gaze.gaze_table import new_table, write_points
from tinyhd_pipe.store.errors import DataError


@dataclass(frozen=True)
class ToGaze:
    """What was written."""

    table: Path
    videos: int
    """Videos that have fixations in it."""
    frames: int
    """Frames that have any."""
    points: int
    """Its rows."""


def to_gaze(
    videos: Sequence[AnnotatedVideo], table: Path, *, report: Callable[[int, int], None] = lambda done, total: None
) -> ToGaze:
    """Write video, frame (from 0) and place of every fixation; the file is there whole or not at all.

    Raises DataError where no video has fixations, or a fixation map cannot be read.
    """
    if not any(video.fixations for video in videos):
        raise DataError(f"{table}: nothing to write, none of {len(videos)} videos has fixation maps")
    counted = [0, 0, 0]
    with new_table(table) as file:
        for done, video in enumerate(videos):
            report(done, len(videos))
            in_video = 0
            for frame in video.fixations:
                looked_at = read_fixations(video, frame)
                if looked_at is not None and looked_at.any():
                    points = np.argwhere(looked_at)
                    write_points(file, video.source.id, frame, points, looked_at.shape)
                    counted[1] += 1
                    in_video += len(points)
            counted[0] += in_video > 0
            counted[2] += in_video
    report(len(videos), len(videos))
    return ToGaze(table, *counted)
