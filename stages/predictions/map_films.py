"""Films of predicted maps: over their frames, to be watched, or grey, to be read; in step with the original.

The decision that is not obvious: films are written while maps come, and a frame is drawn on when its own has come, or
of a crop when its place is settled; whatever is ahead of it waits as a map, and not as a picture (video/viewing.py).
"""

from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tinyhd_pipe.stages.networks.overlap import ahead
from tinyhd_pipe.stages.pictures.overlay import Overlay
from tinyhd_pipe.stages.predictions.map_files import Add, Map, eight_bits
from tinyhd_pipe.stages.settings.predict import Brightness
from tinyhd_pipe.stages.video.films import LOSSLESS_GREY, WATCHABLE, film_like
from tinyhd_pipe.stages.video.streams import Stream
from tinyhd_pipe.stages.video.viewing import Shown, Viewing

AHEAD = 4
"""Frames that are decoded before their maps have come."""


@contextmanager
def overlay_film(viewing: Viewing, path: Path, how: Overlay, brightness: Brightness, fps: float) -> Iterator[Add]:
    """Writes each map over its frame, as an MP4 with the original's sound; takes a map of every frame."""
    with (
        film_like(viewing.source, path, WATCHABLE, viewing.facts.fps or fps) as add_picture,
        closing(pictures_again(viewing)) as frames,
    ):

        def add(frame: int, saliency: Map) -> None:
            picture, shown = next(frames)
            add_picture(how.drawn(picture, eight_bits(saliency, brightness)), shown)

        yield add


@contextmanager
def grey_film(viewing: Viewing, path: Path, brightness: Brightness, fps: float) -> Iterator[Add]:
    """Writes each map as a frame of a lossless grey video; takes a map of every frame."""
    with (
        film_like(viewing.source, path, LOSSLESS_GREY, viewing.facts.fps or fps) as add_picture,
        closing(pictures_again(viewing)) as frames,
    ):

        def add(frame: int, saliency: Map) -> None:
            _, shown = next(frames)
            add_picture(eight_bits(saliency, brightness), shown)

        yield add


def pictures_again(viewing: Viewing) -> Generator[Shown]:
    """Every frame of a video once more, of a file decoded ahead in a thread, and when it is shown."""
    again = viewing.again()
    return (one for one in again) if isinstance(viewing.source, Stream) else ahead(again, AHEAD)
