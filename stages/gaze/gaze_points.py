"""Rows of gaze tables as points: which pixel of which frames somebody looked at.

The decision that is not obvious: a sample is a point of the frame that is shown at its time, a fixation one of every
frame that is shown while it lasts, the one on which it begins among them. Every row that gives no point is counted
under the reason why. Cost: 60 bytes a row of one video; rows of others lie on disk meanwhile (spilled_rows.py).
"""

from collections import Counter
from dataclasses import dataclass
from math import radians, tan

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.settings.from_gaze import FromGazeOptions
from tinyhd_pipe.stages.video.frame_times import ShownFrames
from tinyhd_pipe.store.errors import VideoError

ROW = np.dtype(
    [
        *(("time", "f8"), ("frame", "f8"), ("last_frame", "f8"), ("duration", "f8"), ("x", "f8"), ("y", "f8")),
        *(("observer", "i4"), ("share", "?"), ("from_first", "?")),
    ]
)
"""A row with a position, as GazeRows has it; observers are numbered."""
Rows = NDArray[np.void]
DEFAULT_SIGMA = 18
"""The part of a video's height that is one standard deviation of the Gaussian where none is set."""


@dataclass(frozen=True, eq=False)
class Points:
    """Where people looked in one video."""

    frame: NDArray[np.int64]
    """(point,) place of the frame in its video, ascending."""
    y: NDArray[np.int64]
    """(point,) pixel of the video."""
    x: NDArray[np.int64]
    left_out: Counter[str]
    """Reason to how many rows it has kept out."""

    def of(self, frame: int, reach: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """y and x of the points of a frame, and of so many frames on both sides of it."""
        first, stop = np.searchsorted(self.frame, (frame - reach, frame + reach + 1))
        return self.y[first:stop], self.x[first:stop]


def points_of(rows: Rows, onsets: NDArray[np.float64], shown: ShownFrames, options: FromGazeOptions) -> Points:
    """The points that rows of one video give.

    Arguments:
        onsets: (observer,) when each one's first row of the video was, seconds.
        shown: when the video's frames are shown, and how large they are.

    Raises VideoError where that is not known and rows have times.
    """
    if not shown.timed and (~np.isfinite(rows["frame"]) | (rows["duration"] > 0)).any():
        raise VideoError(f"{shown.name}: does not say how many frames a second it is shown at; set from_gaze.fps")
    left_out: Counter[str] = Counter()

    def kept(keep: NDArray[np.bool_], reason: str, *columns: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        left_out[reason] += int((~keep).sum())
        return [column[keep] for column in columns]

    once = _without_repeated(rows)
    left_out["repeated"] += len(rows) - len(once)
    first, last = _frames(once, onsets, shown, options)
    y, x = _pixels(once, shown.size, options)
    timed = (last >= 0) & (first < shown.frames)
    first, last, y, x = kept(timed, "before or after the video", first, last, y, x)
    inside = (y >= 0) & (y < shown.size[0]) & (x >= 0) & (x < shown.size[1])
    first, last, y, x = kept(inside, "off the picture", first, last, y, x)
    first, last = first.clip(min=0), last.clip(max=shown.frames - 1)
    lasting = last - first + 1
    starts = np.repeat(np.cumsum(lasting) - lasting, lasting)
    frames = np.repeat(first, lasting) + np.arange(lasting.sum()) - starts
    order = np.argsort(frames, kind="stable")
    return Points(frames[order], np.repeat(y, lasting)[order], np.repeat(x, lasting)[order], left_out)


def _without_repeated(rows: Rows) -> Rows:
    """Each row once: the same observer, time and place."""
    columns = [np.nan_to_num(rows[name].astype(float), nan=-1e300) for name in ROW.names or ()]
    order = np.lexsort(columns)
    same = np.ones(max(0, len(rows) - 1), bool)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    once: Rows = rows[np.sort(order[np.append(np.ones(min(1, len(rows)), bool), ~same)])]
    return once


def _frames(
    rows: Rows, onsets: NDArray[np.float64], shown: ShownFrames, options: FromGazeOptions
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row,) places of the first frame and the last one that each row is about; outside the video none is between."""
    number, last_number = rows["frame"] - options.first_frame, rows["last_frame"] - options.first_frame
    numbered = np.isfinite(number)
    place = np.searchsorted(shown.numbers, np.where(numbered, number, 0))
    time = rows["time"] - np.where(rows["from_first"], onsets[rows["observer"]], 0.0)
    begins = np.where(numbered, shown.starts[place], time)
    first = np.where(numbered, place, shown.at(np.where(np.isfinite(begins), begins, -1.0)))
    ends = begins + np.where(rows["duration"] > 0, rows["duration"], 0.0)
    last = np.searchsorted(shown.starts, np.where(np.isfinite(ends), ends, -1.0), side="left") - 1
    last = np.maximum(first, np.minimum(last, shown.frames - 1))
    by_number = np.where(np.isfinite(last_number), last_number, number)
    last = np.where(np.isfinite(last_number), np.searchsorted(shown.numbers, by_number, side="right") - 1, last)
    there = ~numbered | (np.searchsorted(shown.numbers, by_number, side="right") > place)
    return first, np.where(there, last, -1)  # a number between those of two pictures is none's


def _pixels(rows: Rows, size: tuple[int, int], options: FromGazeOptions) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row,) y and x of the pixel that each row lies in; pixel i covers i to i + 1."""
    height, width = size
    left, top, shown_width, shown_height = options.picture or (0.0, 0.0, width, height)
    x = np.where(rows["share"], rows["x"], (rows["x"] - left) / shown_width) * width
    y = np.where(rows["share"], rows["y"], (rows["y"] - top) / shown_height) * height
    # What is far off is as good as one pixel off, and fits an integer.
    y, x = (np.floor(np.clip(at, -1, max(size) + 1)).astype(np.int64) for at in (y, x))
    return y, x


def sigma_of(size: tuple[int, int], options: FromGazeOptions) -> tuple[float, float]:
    """Standard deviation of the Gaussian along y and x, in pixels of a video of this size.

    From degrees: an angle a that is looked at straight on spans 2 d tan(a / 2) of a screen at distance d.
    """
    if options.sigma_degrees is None:
        sigma = options.sigma or size[0] / DEFAULT_SIGMA
        return sigma, sigma
    assert options.distance_cm is not None
    assert options.screen_cm is not None
    assert options.screen_px is not None
    spans_cm = 2 * options.distance_cm * tan(radians(options.sigma_degrees) / 2)
    on_screen = options.picture[2:] if options.picture else options.screen_px
    x, y = (
        spans_cm / cm * px * side / shown
        for cm, px, side, shown in zip(options.screen_cm, options.screen_px, size[::-1], on_screen, strict=True)
    )
    return y, x
