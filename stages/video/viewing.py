"""One pass over a video for a network, and what those need who draw on the same frames once their maps have come.

The decision that is not obvious: who needs the pictures of a file decodes them a second time, beside the encoder. The
frames that the network has been given are dozens ahead, and held that long those of a 4K film would take 3 GB. Those of
a stream come once, and are held until they are drawn on. How much each frame differs from the one before it is measured
on the way, so that shots are known as soon as maps are.
"""

from array import array
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property

import numpy as np

from tinyhd_pipe.stages.video.decoding import Decoding, Picture, VideoFacts, decode, probe
from tinyhd_pipe.stages.video.shots import change, samples
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.stages.video.streams import LiveDecoding, Stream

Shown = tuple[Picture, Fraction | None]
"""A picture, and when it is shown."""


class Viewing(Iterator[Picture | None]):
    """The frames of one video in order, as `Decoding` or `LiveDecoding` gives them. Raises as they do."""

    def __init__(self, source: VideoSource | Stream) -> None:
        self.source = source
        self.changes = array("f")
        """How much each frame so far differs from the one before it (shots.py); 0 of the first."""
        self.contrasts = array("f")
        """The standard deviation of each frame's pixels so far, in grey levels."""
        self._decoding = LiveDecoding(source) if isinstance(source, Stream) else decode(source)
        self._before = samples(np.zeros((0, 0, 3), np.uint8))
        self._held: list[deque[Shown]] = []

    @cached_property
    def facts(self) -> VideoFacts:
        """Size and rate. Raises VideoError for what is no video."""
        return probe(self.source) if isinstance(self.source, VideoSource) else self._live.facts

    @property
    def problem(self) -> str | None:
        """One line on what did not decode; final when the iteration has ended."""
        return self._decoding.problem

    def __next__(self) -> Picture | None:
        picture = next(self._decoding)
        now = self._before if picture is None else samples(picture)
        self.changes.append(change(self._before, now) if self._before.size else 0.0)
        self.contrasts.append(float(now.std()) if now.size else 0.0)
        self._before = now
        for pictures in self._held:
            assert picture is not None, "only frames of a folder fail one by one"
            pictures.append((picture, self._decoding.shown))
        return picture

    def again(self) -> Iterator[Shown]:
        """Every frame once more, and when it is shown; one that does not decode is the one before it, or black.

        Of a stream it is asked for before the first frame, and gives each frame once it has come and not before.
        """
        if isinstance(self.source, VideoSource):
            return _shown(self.source, decode(self.source))
        self._held.append(deque())
        return _emptied(self._held[-1])

    def close(self) -> None:
        """Let a stream go."""
        if isinstance(self._decoding, LiveDecoding):
            self._decoding.close()

    @property
    def _live(self) -> LiveDecoding:
        assert isinstance(self._decoding, LiveDecoding)
        return self._decoding


def _emptied(pictures: deque[Shown]) -> Iterator[Shown]:
    while pictures:
        yield pictures.popleft()


def _shown(source: VideoSource, decoding: Decoding) -> Iterator[Shown]:
    before: Picture | None = None
    for picture in decoding:
        if picture is None:
            facts = probe(source) if before is None else None
            picture = before if facts is None else np.zeros((facts.height, facts.width, 3), np.uint8)
        assert picture is not None
        before = picture
        yield picture, decoding.shown
