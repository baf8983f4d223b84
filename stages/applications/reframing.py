"""A crop of another shape that follows what people look at: 9:16 out of 16:9, as a camera operator would pan.

The crop is as large as fits, so that it moves along one side of the picture, and a path is one number a frame. It holds
as much of the map as it can, at the price of moving: what is gained must be worth the way. The decision that is not
obvious: a path is planned (dynamic programming over all places, since a camera at rest is best and a jump is forbidden)
with a second of the film in sight, and not with the whole shot. A shot may last an hour, and a film that is written as
it goes plays when it is interrupted. What is behind that second is taken to be as it is on average in it, for twice the
time that the crop needs from side to side; without that, a crop would never set out for what is further than a second
away. Then the path is smoothed by a window of unit weight, which can neither speed it up nor lead it out of the
picture. At a cut all begins anew.

The way of thinking is that of Deselaers, Dreuw and Ney, "Pan, Zoom, Scan" (CVPR 2008): crops of a video by dynamic
programming over saliency. Cost: 1 to 2 ms a frame at 30 frames a second; no picture is held, and some 30 sums of maps.
"""

import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.errors import SettingError

Size = tuple[int, int]
"""(y, x)"""
Sums = NDArray[np.float64]
_PLACES = 128
"""At least, along the whole side: how finely paths are planned."""
_LEAN = 1e-6
"""Of a map that is held by two places alike, the one nearer to the middle is worth that much more."""
_PLANNED = 2 / 3
"""Share of what is seen ahead that is planned with; the rest is smoothed with."""


@dataclass(frozen=True)
class Reframing:
    """The shape of a crop and how it moves."""

    shape: Fraction
    """Width by height."""
    speed: float = 0.25
    """Share of the picture's side that it moves along, at most, in a second."""
    calm: float = 0.15
    """Share of all attention that must be gained, as long as is planned for, to be worth a move over the whole side."""
    ahead: float = 1.5
    """Seconds of the film that are seen before a place is settled."""


def shape_of(text: str) -> Fraction:
    """Width by height, from 1:10 to 10:1, of what is written as 9:16. Raises SettingError for what is not."""
    match = re.fullmatch(r"(\d{1,5}):(\d{1,5})", text)
    if not match or not int(match[1]) or not int(match[2]):
        raise SettingError(f"--reframe {text}: expected width:height in whole numbers, as in 9:16")
    shape = Fraction(int(match[1]), int(match[2]))
    if not Fraction(1, 10) <= shape <= 10:
        raise SettingError(f"--reframe {text}: expected a shape between 1:10 and 10:1")
    return shape


def crop_size(picture: Size, shape: Fraction) -> Size:
    """(y, x) of the largest crop of this shape, its sides even, as players want them."""
    height, width = picture
    tall, wide = min(height, round(width / shape)), min(width, round(height * shape))
    return max(2, tall // 2 * 2), max(2, wide // 2 * 2)


@dataclass(frozen=True)
class Rail:
    """The places in which a crop can be, and how far it gets from one frame to the next."""

    is_upright: bool
    """Whether it moves up and down, else left and right."""
    length: float
    """The share of the side that the crop covers."""
    places: NDArray[np.float64]
    """(place,) where it begins, as a share of the side: evenly from 0 to 1 - length."""
    reach: int
    """Places that it moves in a frame, at most."""
    seen: int
    """Frames that a path is planned with."""
    beyond: float
    """Frames behind those that it is planned for."""
    price: float
    """What a move by one place costs: maps that must be gained as a whole."""

    def gains(self, saliency: NDArray[np.floating]) -> Sums:
        """(place,) the share of a map (y, x) that a crop holds in each place; of an empty map the middle is best."""
        along = saliency.sum(axis=1 if self.is_upright else 0, dtype=np.float64)
        below = np.concatenate([[0.0], np.cumsum(along)])
        edges = np.linspace(0, 1, len(below))
        held: Sums = np.interp(self.places + self.length, edges, below) - np.interp(self.places, edges, below)
        to_middle = np.abs(self.places - self.places[-1] / 2)
        gains: Sums = held / max(below[-1], np.finfo(np.float32).tiny) - _LEAN * to_middle
        return gains


def rail_for(picture: Size, crop: Size, fps: float, how: Reframing) -> Rail:
    """Where a crop moves in pictures of one size, at this many frames a second."""
    is_upright = crop[0] / picture[0] < crop[1] / picture[1]
    length = crop[0] / picture[0] if is_upright else crop[1] / picture[1]
    limit = how.speed / fps
    reach = max(1, int(np.ceil(limit * _PLACES)))
    places = np.linspace(0, 1 - length, int(np.ceil((1 - length) / limit * reach)) + 1)
    seen = max(1, round(how.ahead * _PLANNED * fps))
    beyond = 2 * (len(places) - 1) / reach
    price = how.calm * (seen + beyond) * (places[1] if len(places) > 1 else 0.0)
    return Rail(is_upright, length, places, reach, seen, beyond, price)


def planned(gains: Sequence[Sums], start: int | None, rail: Rail, *, ends: bool) -> list[int]:
    """The place of each frame on the path that holds most, less the price of its moves.

    Arguments:
        gains: of each frame, as `Rail.gains` gives them.
        start: the place of the frame before them; None where nothing is before.
        ends: whether the shot ends with them.
    """
    best = gains[0]
    origins = []
    if start is not None:
        before = np.full(len(best), -np.inf)
        before[start] = 0.0
        best = gains[0] + _moved(before, rail)[0]
    for gain in gains[1:]:
        moved, origin = _moved(best, rail)
        best = gain + moved
        origins.append(origin)
    path = [int(np.argmax(best if ends else best + _worth_beyond(np.mean(gains, axis=0), rail)))]
    for origin in reversed(origins):
        path.append(int(origin[path[-1]]))
    return path[::-1]


def _moved(before: Sums, rail: Rail) -> tuple[Sums, NDArray[np.int64]]:
    """The best sum with which each place is reached, and from which place."""
    moves = np.arange(-rail.reach, rail.reach + 1)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(before, rail.reach, constant_values=-np.inf), len(moves))
    worth = around - rail.price * np.abs(moves)
    choice = np.argmax(worth, axis=1)
    every = np.arange(len(before))
    return worth[every, choice], every + choice - rail.reach


def _worth_beyond(gain: Sums, rail: Rail) -> Sums:
    """(place,) what a crop that is in each place holds from then on, if all frames are as this one and it goes to where
    that is worth most."""
    every = np.arange(len(gain))
    way = np.abs(every[:, None] - every)
    below = np.cumsum(gain) - gain / 2
    on_the_way = np.abs(below[:, None] - below) / rail.reach
    worth: Sums = (on_the_way + (rail.beyond - way / rail.reach) * gain - rail.price * way).max(axis=1)
    return worth


class CropPath:
    """A path that is settled as maps come, `delay` frames behind them."""

    def __init__(self, rail: Rail, fps: float, how: Reframing) -> None:
        self.rail = rail
        self._smoothed = round(how.ahead * (1 - _PLANNED) * fps)
        window = np.hanning(2 * self._smoothed + 3)[1:-1]
        self._window = window / window.sum()
        self._coming: deque[Sums] = deque()
        self._settled: deque[float] = deque()
        self._last: int | None = None

    @property
    def delay(self) -> int:
        """Frames."""
        return self.rail.seen + self._smoothed

    def add(self, saliency: NDArray[np.floating], *, starts_shot: bool) -> Iterator[float]:
        """The places that are settled by this frame's map, each the share of the side at which the crop begins."""
        if starts_shot:
            yield from self.end()
        self._coming.append(self.rail.gains(saliency))
        if len(self._coming) > self.rail.seen:
            yield from self._settle(planned(list(self._coming), self._last, self.rail, ends=False)[0])
            self._coming.popleft()

    def end(self) -> Iterator[float]:
        """The places of all frames that are left of the shot."""
        if self._coming:
            for place in planned(list(self._coming), self._last, self.rail, ends=True):
                yield from self._settle(place)
        if self._last is not None:
            for _ in range(self._smoothed):
                yield from self._settle(self._last)
        self._coming.clear()
        self._settled.clear()
        self._last = None

    def _settle(self, place: int) -> Iterator[float]:
        where = float(self.rail.places[place])
        if self._last is None:
            self._settled.extend([where] * self._smoothed)
        self._last = place
        self._settled.append(where)
        if len(self._settled) == len(self._window):
            yield float(self._window @ np.array(self._settled))
            self._settled.popleft()
