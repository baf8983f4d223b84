"""Rows of gaze tables sorted by video, on disk: tables hold one observer after another, maps need one video's.

The decision that is not obvious: of each piece of a table the rows of a video are appended to that video's own file, so
a table larger than memory takes no more of it than a piece and one video's rows. Cost: 60 bytes of disk a row, until
the maps are made.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.gaze_points import ROW, Rows
from tinyhd_pipe.stages.gaze.gaze_table import GOOD, INVALID, NO_POSITION, NOT_FIXATING, GazeRows

REASONS = {NO_POSITION: "without a position", INVALID: "not valid", NOT_FIXATING: "no fixation"}
"""What a row that the table itself rules out is counted under."""


@dataclass
class SpilledRows:
    """The rows that have come so far, by video."""

    folder: Path
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason to rows."""
    rows: int = 0
    """All rows of the tables."""
    observers: dict[str, int] = field(default_factory=dict)
    """Name to number, over all tables."""
    onsets: dict[tuple[str, int], float] = field(default_factory=dict)
    """Video and observer to when the first row of both was, seconds; rows without a position are rows, too."""
    _numbers: dict[str, int] = field(default_factory=dict)
    """Video to the number that its file has."""

    def add(self, piece: GazeRows, videos: NDArray[np.str_], table: str) -> None:
        """Sort in the rows of a piece; `videos` (row,) are ids, "" of what was not given.

        Observers of a table without names are one for each table.
        """
        self.rows += len(videos)
        names = [name or table for name in piece.observers]
        for name in dict.fromkeys(names):
            self.observers.setdefault(name, len(self.observers))
        numbers = np.array([self.observers[name] for name in names], np.int32)
        self.left_out["of videos that were not given"] += int((videos == "").sum())
        for state, reason in REASONS.items():
            self.left_out[reason] += int(((piece.state == state) & (videos != "")).sum())
        for video in np.unique(videos[videos != ""]).tolist():
            self._add_video(video, piece, numbers, np.flatnonzero(videos == video))

    def _add_video(self, video: str, piece: GazeRows, numbers: NDArray[np.int32], at: NDArray[np.int64]) -> None:
        for observer in np.unique(numbers[at]).tolist():
            times = piece.time[at[numbers[at] == observer]]
            first = float(np.nanmin(times)) if np.isfinite(times).any() else np.inf
            self.onsets[video, observer] = min(first, self.onsets.get((video, observer), np.inf))
        good = at[piece.state[at] == GOOD]
        rows = np.empty(len(good), ROW)
        for name in ("time", "frame", "last_frame", "duration", "x", "y"):
            rows[name] = getattr(piece, name)[good]
        rows["observer"], rows["share"], rows["from_first"] = numbers[good], piece.share, piece.from_first
        with self._file(video).open("ab") as file:
            rows.tofile(file)

    def of(self, video: str) -> tuple[Rows, NDArray[np.float64]]:
        """The rows of a video that have a position, and each observer's onset in it, (observer,) seconds."""
        path = self._file(video)
        rows = np.fromfile(path, ROW) if path.exists() else np.empty(0, ROW)
        onsets = np.full(len(self.observers), np.nan)
        for (of, observer), onset in self.onsets.items():
            if of == video:
                onsets[observer] = onset
        return rows, onsets

    def videos(self) -> list[str]:
        """Ids of those that have rows, in order."""
        return sorted({video for video, _ in self.onsets})

    def _file(self, video: str) -> Path:
        return self.folder / f"{self._numbers.setdefault(video, len(self._numbers))}.rows"
