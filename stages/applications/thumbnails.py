"""The frames that draw most attention to one place, and that place: what a thumbnail of a film shows.

A frame counts by the share of its map that the best crop of a given size holds: much where all look at one thing,
little where they look about. The decision that is not obvious: this is of a map's form alone and not of its height,
which a network leaves to chance. Frames in which there is little to see, as while a film fades in, count less, by the
deviation of their pixels. Frames are kept apart, so that they are no copies of one moment: within a shot by half
of an even spread, and by a second at least; where that cannot be, there are fewer.

Cost: .3 ms a frame; one candidate is held for each second of the film.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_ENOUGH = 40.0
"""Standard deviation of the pixels, in grey levels, of a frame in which there is enough to see."""


@dataclass(frozen=True)
class Thumbnails:
    """How many, and of what."""

    count: int
    zoom: float = 0.6
    """Share of the picture's width and height that a crop covers."""
    apart: float = 1.0
    """Seconds between two of one shot, at least."""


@dataclass(frozen=True)
class Candidate:
    """A frame, and what a crop of it would show."""

    score: float
    """Share of the map that the crop holds, 0 to 1."""
    top: float
    """Where the crop begins, as a share of the picture's height."""
    left: float
    worth: float = 0.0
    """What candidates are chosen by: the score, less of what shows little."""
    place: int = 0
    """Of the frame among all."""
    shot: int = 0


def best_crop(saliency: NDArray[np.floating], zoom: float) -> Candidate:
    """The crop of a map (y, x) that holds most of it; of an empty map the middle one, with score 0."""
    height, width = (max(1, round(zoom * side)) for side in saliency.shape)
    below = np.pad(saliency.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    held = below[height:, width:] - below[:-height, width:] - below[height:, :-width] + below[:-height, :-width]
    if below[-1, -1] <= 0:
        return Candidate(0.0, (1 - zoom) / 2, (1 - zoom) / 2)
    rows, columns = (np.flatnonzero(line) for line in ((held >= held.max()).any(1), (held >= held.max()).any(0)))
    top, left = int(rows[len(rows) // 2]), int(columns[len(columns) // 2])
    scale = [(1 - zoom) / max(1, whole - part) for whole, part in zip(saliency.shape, (height, width), strict=True)]
    return Candidate(float(held[top, left] / below[-1, -1]), top * scale[0], left * scale[1])


@dataclass
class BestFrames:
    """The best frame of each second, as maps come."""

    how: Thumbnails
    fps: float
    _best: list[Candidate] = field(default_factory=list)
    _frames: int = 0
    _shot: int = 0
    _began: int = 0
    """Where the second at hand began."""

    def add(self, saliency: NDArray[np.floating], *, starts_shot: bool, contrast: float = _ENOUGH) -> None:
        """Take the next frame's map, and the standard deviation of its pixels."""
        found = best_crop(saliency, self.how.zoom)
        place, self._frames = self._frames, self._frames + 1
        self._shot += starts_shot
        worth = found.score * min(1.0, contrast / _ENOUGH)
        candidate = Candidate(found.score, found.top, found.left, worth, place, self._shot)
        if starts_shot or place - self._began >= max(1, round(self.how.apart * self.fps)):
            self._began = place
            self._best.append(candidate)
        elif candidate.worth > self._best[-1].worth:
            self._best[-1] = candidate

    def chosen(self) -> list[Candidate]:
        """The best ones that are far enough apart, the best first; fewer than asked for of a short film."""
        distance = max(self.how.apart * self.fps, self._frames / (2 * self.how.count))
        chosen: list[Candidate] = []
        for candidate in sorted(self._best, key=lambda one: -one.worth):
            if len(chosen) < self.how.count and _is_apart(candidate, chosen, distance):
                chosen.append(candidate)
        return chosen


def _is_apart(candidate: Candidate, others: Sequence[Candidate], distance: float) -> bool:
    return all(abs(one.place - candidate.place) >= distance for one in others if one.shot == candidate.shot)
