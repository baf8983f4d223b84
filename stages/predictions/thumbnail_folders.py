"""A folder of the frames of a video that draw most attention, whole and cropped, and a table of them.

    DIR/001.AVI.thumbnails/1.jpg, 1.crop.jpg, 2.jpg ...     the best one first
    DIR/001.AVI.thumbnails/thumbnails.csv                   rank,frame,score,x,y,w,h: absolute frames from 0; pixels of
                                                            the upright original

The folder is there when it is whole. Frames are decoded once more when they are known, up to the last one: .5 ms each.
"""

import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from tinyhd_pipe.stages.applications.thumbnails import BestFrames, Candidate, Thumbnails
from tinyhd_pipe.stages.predictions.map_files import Add, Map
from tinyhd_pipe.stages.video.decoding import Picture
from tinyhd_pipe.stages.video.shots import LATE, starts_shot
from tinyhd_pipe.stages.video.viewing import Viewing

_QUALITY = 92
"""Of JPEG."""


@contextmanager
def thumbnail_folder(viewing: Viewing, path: Path, how: Thumbnails, fps: float) -> Iterator[Add]:
    """Writes the folder when the maps of all frames have come. Raises VideoError for what is no video."""
    best = BestFrames(how, viewing.facts.fps or fps)
    unseen: deque[Map] = deque()  # of frames of which it is not known yet whether they begin a shot
    numbers: list[int] = []

    def see() -> None:
        place = len(numbers) - len(unseen)
        begins = starts_shot(viewing.changes, place)
        best.add(unseen.popleft(), starts_shot=begins, contrast=viewing.contrasts[place])

    def add(frame: int, saliency: Map) -> None:
        numbers.append(frame)
        unseen.append(saliency)
        if len(unseen) > LATE:
            see()

    yield add
    while unseen:
        see()
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        _write(viewing, partial, best.chosen(), numbers, how.zoom)
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(viewing: Viewing, folder: Path, chosen: list[Candidate], numbers: list[int], zoom: float) -> None:
    ranks = {candidate.place: rank for rank, candidate in enumerate(chosen, 1)}
    rows = {}
    for place, (picture, _) in enumerate(viewing.again()):
        if place in ranks:
            rank = ranks[place]
            x, y, width, height = _box(chosen[rank - 1], picture, zoom)
            _save(picture, folder / f"{rank}.jpg")
            _save(picture[y : y + height, x : x + width], folder / f"{rank}.crop.jpg")
            score = chosen[rank - 1].score
            rows[rank] = f"{rank},{numbers[place]},{score:.4f},{x},{y},{width},{height}\n"
        if len(rows) == len(ranks):
            break
    table = "".join(rows[rank] for rank in sorted(rows))
    (folder / "thumbnails.csv").write_text(f"rank,frame,score,x,y,w,h\n{table}")


def _box(candidate: Candidate, picture: Picture, zoom: float) -> tuple[int, int, int, int]:
    """(x, y, width, height) in pixels."""
    whole = picture.shape[:2]
    height, width = (max(1, round(zoom * side)) for side in whole)
    y, x = (
        min(round(candidate.top * whole[0]), whole[0] - height),
        min(round(candidate.left * whole[1]), whole[1] - width),
    )
    return x, y, width, height


def _save(picture: Picture, path: Path) -> None:
    Image.fromarray(picture).save(path, quality=_QUALITY)
