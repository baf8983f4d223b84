"""Maps that others have made, as something to be scored: folders of pictures, or grey videos.

    DIR/001/0001.png      the map of the frame whose density map is 0001.png, whatever the rest of its name
    DIR/001.AVI/0001.png  beside 001.AVI.json, which `predict` leaves: the map of frame 0, however density maps count
    DIR/001.avi           its n-th frame is the map of the video's n-th frame
    001.avi               of one video

The decision that is not obvious: pictures meet truth by number, as density maps and videos do: folder `1` is video
`001.AVI`, and `pred_0015.png` is the map of `maps/0015.png`. A folder or file that is named as the video is goes before
one that merely has its number. Values are channel 1, as of density maps; no metric depends on their scale, but a map of
8 bits has ties and zeros, for which information gain charges.

Cost: reading a picture, some 2 ms, or decoding a frame.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density
from tinyhd_pipe.stages.predictions.contender import Contender, Predictions
from tinyhd_pipe.stages.predictions.records import first_name_in
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoSource
from tinyhd_pipe.store.errors import DataError, SettingError

LAYOUT = "DIR/001/0001.png, DIR/001.avi, or one video file"


def of_pictures(name: str, path: Path) -> Contender:
    """Predicted maps below a folder, or one predicted video.

    Raises SettingError where there is nothing of the kind.
    """
    if not path.exists():
        raise SettingError(f"{path}: no such file or folder; expected predicted maps: {LAYOUT}")
    made = [path] if path.is_file() else sorted(path.iterdir())
    found = {one.name: one for one in made if one.is_dir() or one.suffix.lower() in VIDEO_SUFFIXES}
    if not found:
        raise SettingError(f"{path}: no predicted maps in it; expected {LAYOUT}")
    return Contender(name, _identity(found.values()), partial(_maps, found, path.is_file()))


def _maps(found: Mapping[str, Path], is_one: bool, video: AnnotatedVideo, frames: Collection[int]) -> Predictions:
    place = next(iter(found.values())) if is_one else _of_video(found, video)
    if place is None:
        return
    yield from _of_folder(place, video, frames) if place.is_dir() else _of_film(place, frames)


def _of_video(found: Mapping[str, Path], video: AnnotatedVideo) -> Path | None:
    """The folder or film that is named as a video is, or else has its number."""
    id_ = PurePath(video.source.id)
    if id_.name in found and first_name_in(found[id_.name]) is not None:
        return found[id_.name]
    names = {id_.name, id_.stem, id_.parts[0], video.folder.name}
    named = [path for name, path in found.items() if name in names or PurePath(name).stem in names]
    numbers = {number for name in names if (number := _number(PurePath(name).stem, whole=True)) is not None}
    numbered = [path for name, path in found.items() if _number(PurePath(name).stem, whole=True) in numbers]
    several = named or numbered
    if len(several) > 1:
        raise DataError(f"{video.source.id}: predicted by {several[0]} and {several[1]}; keep one of them")
    return several[0] if several else None


def _of_folder(folder: Path, video: AnnotatedVideo, frames: Collection[int]) -> Predictions:
    pictures = {_number(path.stem): path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
    first = first_name_in(folder)
    for frame in sorted(frames):
        number = _number(PurePath(video.density_maps[frame]).stem) if first is None else frame + first
        file = pictures.get(number)
        if file is None:
            continue
        read = read_density(replace(video, folder=folder, density_maps={frame: file}), frame)
        if read is not None:
            yield frame, read


def _of_film(path: Path, frames: Collection[int]) -> Predictions:
    for number, picture in enumerate(decode(VideoSource(path.name, path))):
        if number in frames and picture is not None:
            yield number, picture[..., 0].astype(np.float32) / np.float32(255)


def _number(stem: str, *, whole: bool = False) -> int | None:
    """The number that a name ends in, or that it is as a whole."""
    match = re.fullmatch(r"\d+", stem) if whole else re.search(r"\d+$", stem)
    return int(match.group()) if match else None


def _identity(found: Iterable[Path]) -> dict[str, Any]:
    """Names, lengths and times of change of everything: a map that was made anew is another one."""
    files = [file for place in found for file in ([place] if place.is_file() else sorted(place.iterdir()))]
    return {"pictures": [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]}
