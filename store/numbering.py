"""Which absolute numbers the frames of a video have, where they are not simply 0, 1, 2, ...

A video has its frames in places, counted from 0, and each frame has a number. Of a video file both are the same. A
folder of pictures may hold every 5th frame, or lack some, or begin anywhere: what is there is frame 0, 5, 10, 15 by
number, and 0, 1, 2, 3 by place. The rule for all of the code: windows, `every` and rows of a store go by place, since
they are made of frames that are there; whatever has a name goes by number: maps, labels, what is asked of a store, what
is written below a picture. Cost: three whole numbers for each stretch of evenly spaced frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Numbering:
    """The numbers of a video's frames, by place."""

    runs: tuple[tuple[int, int, int], ...] = ()
    """(first number, step, how many frames), one stretch after another; none: every frame's number is its place."""

    @staticmethod
    def of(numbers: Sequence[int]) -> "Numbering":
        """Of frames with these numbers, which rise. Raises ValueError where they do not."""
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            raise ValueError("numbers of frames must rise")
        if not numbers or (numbers[0] == 0 and numbers[-1] == len(numbers) - 1):
            return AS_THEY_COME
        runs: list[tuple[int, int, int]] = []
        for number in numbers:
            first, step, count = runs[-1] if runs else (number, 1, 0)
            if runs and count == 1:
                runs[-1] = (first, number - first, 2)
            elif runs and number == first + step * count:
                runs[-1] = (first, step, count + 1)
            else:
                runs.append((number, 1, 1))
        return Numbering(tuple(runs))

    @cached_property
    def _all(self) -> Numbers:
        return np.concatenate([first + step * np.arange(count, dtype=np.int64) for first, step, count in self.runs])

    def numbers(self, places: ArrayLike) -> Numbers:
        """The numbers of the frames in these places."""
        wanted = np.asarray(places, dtype=np.int64)
        return self._all[wanted] if self.runs else wanted

    def places(self, numbers: ArrayLike) -> Numbers:
        """The places of the frames with these numbers; -1 where no frame has one (and at or past the end of a video
        whose numbers are its places the number itself: only the video knows where it ends)."""
        wanted = np.asarray(numbers, dtype=np.int64)
        if not self.runs:
            return np.maximum(wanted, -1)
        places = np.minimum(np.searchsorted(self._all, wanted), len(self._all) - 1)
        return np.where(self._all[places] == wanted, places, -1)


AS_THEY_COME = Numbering()
"""0, 1, 2, ...: of every video file, and of every folder that holds all frames from the first."""
