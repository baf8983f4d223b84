"""One pass over a video for a network, and what those need who draw on the same frames once their maps have come.

The decision that is not obvious: who needs the pictures decodes them a second time, beside the encoder. The frames that
the network has been given are dozens ahead, and held that long those of a 4K film would take 3 GB. How much each frame
differs from the one before it is measured on the way, so that shots are known as soon as maps are.
"""

from array import array
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from tinyhd_pipe.stages.video.decoding import Decoding, Picture, decode, probe
from tinyhd_pipe.stages.video.shots import change, samples
from tinyhd_pipe.stages.video.sources import VideoSource


class Viewing(Iterator[Picture | None]):
    """The frames of one video in order, as `Decoding` gives them."""

    def __init__(self, source: VideoSource) -> None:
        self.source = source
        self.changes = array("f")
        """How much each frame so far differs from the one before it (shots.py); 0 of the first."""
        self._decoding = decode(source)
        self._before = samples(np.zeros((0, 0, 3), np.uint8))

    @property
    def problem(self) -> str | None:
        """One line on what did not decode; final when the iteration has ended."""
        return self._decoding.problem

    def __next__(self) -> Picture | None:
        picture = next(self._decoding)
        now = self._before if picture is None else samples(picture)
        self.changes.append(change(self._before, now) if self._before.size else 0.0)
        self._before = now
        return picture

    def again(self) -> Iterator[tuple[Picture, Fraction | None]]:
        """Every frame once more, and when it is shown; one that does not decode is the one before it, or black."""
        return _shown(self.source, decode(self.source))


def _shown(source: VideoSource, decoding: Decoding) -> Iterator[tuple[Picture, Fraction | None]]:
    before: Picture | None = None
    for picture in decoding:
        if picture is None:
            facts = probe(source) if before is None else None
            picture = before if facts is None else np.zeros((facts.height, facts.width, 3), np.uint8)
        assert picture is not None
        before = picture
        yield picture, decoding.shown
