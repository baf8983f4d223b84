"""A film of the part that people look at, in another shape, and a table of where that part is in the original.

    DIR/001.AVI.9x16.mp4
    DIR/001.AVI.9x16.csv     frame,x,y,w,h: absolute frames from 0; pixels of the upright original

The film is written as places are settled, some seconds behind the maps (applications/reframing.py), and the table with
it. Cost: decoding once more and encoding, less than an overlay.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TextIO

from tinyhd_pipe.stages.applications.reframing import CropPath, Reframing, Size, crop_size, rail_for
from tinyhd_pipe.stages.predictions.map_files import Add, Map
from tinyhd_pipe.stages.predictions.map_films import pictures_again
from tinyhd_pipe.stages.video.films import WATCHABLE, film_like
from tinyhd_pipe.stages.video.shots import LATE, starts_shot
from tinyhd_pipe.stages.video.viewing import Viewing


@contextmanager
def reframed_film(viewing: Viewing, path: Path, table: Path, how: Reframing, fps: float) -> Iterator[Add]:
    """Writes the crop of every frame, as an MP4 with the original's sound, and the table; takes a map of every frame.

    Raises VideoError for what is no video.
    """
    facts = viewing.facts
    size = (facts.height, facts.width)
    crop = crop_size(size, how.shape)
    rail = rail_for(size, crop, facts.fps or fps, how)
    boxes = _Boxes(viewing, CropPath(rail, facts.fps or fps, how), size, crop)
    with (
        film_like(viewing.source, path, WATCHABLE, facts.fps or fps) as add_picture,
        rows_file(table) as rows,
        closing(pictures_again(viewing)) as frames,
    ):
        rows.write("frame,x,y,w,h\n")

        def crop_all(settled: Iterable[tuple[int, int, int]]) -> None:
            for frame, x, y in settled:
                picture, shown = next(frames)
                add_picture(picture[y : y + crop[0], x : x + crop[1]], shown)
                rows.write(f"{frame},{x},{y},{crop[1]},{crop[0]}\n")

        def add(frame: int, saliency: Map) -> None:
            crop_all(boxes.add(frame, saliency))

        yield add
        crop_all(boxes.end())


class _Boxes:
    """Where the crop of each frame is, as maps come."""

    def __init__(self, viewing: Viewing, path: CropPath, size: Size, crop: Size) -> None:
        self._changes, self._path, self._rail = viewing.changes, path, path.rail
        self._size, self._crop = size, crop
        self._unseen: deque[Map] = deque()
        """Maps of frames of which it is not known yet whether they begin a shot."""
        self._frames: deque[int] = deque()
        self._place = 0

    def add(self, frame: int, saliency: Map) -> Iterator[tuple[int, int, int]]:
        """(frame, x, y) of those that are settled now."""
        self._frames.append(frame)
        self._unseen.append(saliency)
        if len(self._unseen) > LATE:
            yield from self._seen()

    def end(self) -> Iterator[tuple[int, int, int]]:
        while self._unseen:
            yield from self._seen()
        yield from map(self._box, self._path.end())

    def _seen(self) -> Iterator[tuple[int, int, int]]:
        begins = starts_shot(self._changes, self._place)
        yield from map(self._box, self._path.add(self._unseen.popleft(), starts_shot=begins))
        self._place += 1

    def _box(self, where: float) -> tuple[int, int, int]:
        along = round(where * self._size[0 if self._rail.is_upright else 1])
        across = [(whole - part) // 2 for whole, part in zip(self._size, self._crop, strict=True)]
        y, x = (along, across[1]) if self._rail.is_upright else (across[0], along)
        return self._frames.popleft(), x, y


@contextmanager
def rows_file(path: Path) -> Iterator[TextIO]:
    """A text file that is written row by row, and is there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", newline="") as rows:
            yield rows
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
