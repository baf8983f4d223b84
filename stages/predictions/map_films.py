"""Films of predicted maps: over their frames, to be watched, or grey, to be read; in step with the original.

The decision that is not obvious: the video is decoded a second time, beside the encoder. The frames that the network
has been given are dozens ahead, and held that long those of a 4K film would take 3 GB.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np

from tinyhd_pipe.stages.networks.overlap import ahead
from tinyhd_pipe.stages.pictures.overlay import Overlay, Picture
from tinyhd_pipe.stages.predictions.map_files import Add, Map, eight_bits
from tinyhd_pipe.stages.settings.predict import Brightness
from tinyhd_pipe.stages.video.decoding import decode, probe
from tinyhd_pipe.stages.video.films import LOSSLESS_GREY, WATCHABLE, film_like
from tinyhd_pipe.stages.video.sources import VideoSource

AHEAD = 4
"""Frames that are decoded before their maps have come."""


@contextmanager
def overlay_film(source: VideoSource, path: Path, how: Overlay, brightness: Brightness, fps: float) -> Iterator[Add]:
    """Writes each map over its frame, as an MP4 with the original's sound; takes a map of every frame."""
    with film_like(source, path, WATCHABLE, fps) as add_picture, closing(ahead(_shown(source), AHEAD)) as frames:

        def add(frame: int, saliency: Map) -> None:
            picture, shown = next(frames)
            add_picture(how.drawn(picture, eight_bits(saliency, brightness)), shown)

        yield add


@contextmanager
def grey_film(source: VideoSource, path: Path, brightness: Brightness, fps: float) -> Iterator[Add]:
    """Writes each map as a frame of a lossless grey video; takes a map of every frame."""
    with film_like(source, path, LOSSLESS_GREY, fps) as add_picture, closing(ahead(_shown(source), AHEAD)) as frames:

        def add(frame: int, saliency: Map) -> None:
            _, shown = next(frames)
            add_picture(eight_bits(saliency, brightness), shown)

        yield add


def _shown(source: VideoSource) -> Iterator[tuple[Picture, Fraction | None]]:
    """Every frame and when it is shown; one that does not decode is the one before it, or black."""
    decoding = decode(source)
    before: Picture | None = None
    for picture in decoding:
        if picture is None:
            facts = probe(source) if before is None else None
            picture = before if facts is None else np.zeros((facts.height, facts.width, 3), np.uint8)
        assert picture is not None
        before = picture
        yield picture, decoding.shown
