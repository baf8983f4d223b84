"""Videos with recorded gaze, in the layout in which people have DHF1K.

    video/001.AVI
    annotation/0001/maps/0001.png
    annotation/0001/fixation/0001.png or annotation/0001/fixation/maps/0001.mat

The decision that is not obvious: everything is found by NUMBER and not by name, because the data set itself
writes video 1 as `001` and its annotation as `0001`; file `0001.png` belongs to frame 0. Nothing is decoded
here, so an annotation may have more or fewer frames than its video: whoever reads the video asks for the
frames that it has, and gets None where nothing was recorded. An all-zero density map counts as missing,
because it has no distribution to learn and KL to it is NaN.

Cost: finding lists three folders a video (some 4 s and 50 MB for the 700 annotated ones of DHF1K); reading
one map of 360x640 takes some 2 ms.

Source of the layout: Wang et al., "Revisiting video saliency prediction in the deep learning era", PAMI 2019.
"""

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.video.sources import VideoSource, find_videos, is_lfs_pointer
from tinyhd_pipe.store.errors import DataError, VideoError

LAYOUT = "video/001.AVI with annotation/0001/maps/0001.png"

Item = TypeVar("Item")


@dataclass(frozen=True)
class AnnotatedVideo:
    """A video and where people looked in it."""

    source: VideoSource
    """Its frames: a video file, or a folder of pictures."""
    folder: Path
    """Its annotation folder, such as `annotation/0001`."""
    density_maps: Mapping[int, str]
    """Absolute frame, counted from 0, to the file of its density map below `folder`; in order of frames."""
    fixations: Mapping[int, str]
    """The same for fixation maps, PNG or else .mat; empty where there are none."""


def find_annotated_videos(root: Path) -> list[AnnotatedVideo]:
    """Find the videos below `root` that have density maps, in the order of their numbers.

    `root` holds `video/` and `annotation/`; the frames of a video may instead be pictures, in a folder
    `video/NNN` or beside the maps in `annotation/NNNN/images` or `frames`. Ids are those that `find_videos`
    gives below `video/` (or `annotation/`), as a dump of that folder has them. Videos without density maps
    (DHF1K's 701 to 1000), annotations without a video and stray files are left out.

    Raises DataError when `root` has no such layout, when nothing in it matches, when two videos have one
    number, and when maps are numbered from 0.
    """
    annotation = root / "annotation"
    if not annotation.is_dir():
        raise DataError(f"{root}: has no folder 'annotation'; give the folder that holds {LAYOUT}")
    names = sorted(path.name for path in annotation.iterdir() if path.is_dir())
    folders = _by_number(annotation, ((name, annotation / name) for name in names))
    maps = {number: _numbered_files(folder, "maps", "png") for number, folder in folders.items()}
    labelled = sorted(number for number, files in maps.items() if files)
    if not labelled:
        raise DataError(f"{annotation}: no density maps in it; expected {LAYOUT}")
    sources = _sources_by_number(annotation) | _sources_by_number(root / "video")
    found = [
        AnnotatedVideo(sources[number], folders[number], maps[number], _find_fixations(folders[number]))
        for number in labelled
        if number in sources
    ]
    if not found:
        raise DataError(f"{root}: no video for any of its {len(labelled)} annotations; expected {LAYOUT}")
    return found


def read_density(video: AnnotatedVideo, frame: int) -> NDArray[np.float32] | None:
    """Read the density map of a frame, float32 (y, x) in [0, 1] or None where there is nothing to learn.

    `frame` is absolute, counted from 0. A map that is missing or zero everywhere is None: it must never
    become a target. Raises DataError for a file that is no picture.
    """
    file = video.density_maps.get(frame)
    if file is None:
        return None
    density = _read_grey(video.folder / file)
    return density if density.any() else None


def read_fixations(video: AnnotatedVideo, frame: int) -> NDArray[np.bool_] | None:
    """Read where people looked at a frame, bool (y, x), or None where it was not recorded.

    `frame` is absolute, counted from 0. A frame at which nobody looked is all False, not None. Raises
    DataError for a file that is no picture, or a .mat file without the variable `I`.
    """
    file = video.fixations.get(frame)
    if file is None:
        return None
    path = video.folder / file
    return _read_mat(path) if path.suffix.lower() == ".mat" else _read_grey(path) > 0


def _sources_by_number(folder: Path) -> dict[int, VideoSource]:
    """The videos and frame folders below a folder, by the number that the first part of their id is."""
    try:
        sources = find_videos([folder]) if folder.is_dir() else []
    except VideoError:  # none there: the frames may lie elsewhere
        sources = []
    return _by_number(folder, ((PurePath(source.id).parts[0], source) for source in sources))


def _by_number(folder: Path, named: Iterable[tuple[str, Item]]) -> dict[int, Item]:
    """Key by number what has a numeric name, in any spelling (1, 001.AVI, 0001); leave out the rest."""
    found: dict[int, tuple[str, Item]] = {}
    for name, item in named:
        stem = PurePath(name).stem
        if not stem.isdecimal():
            continue
        number = int(stem)
        if number in found:
            raise DataError(f"{folder}: {found[number][0]} and {name} are both number {number}; keep one of them")
        found[number] = (name, item)
    return {number: item for number, (_, item) in found.items()}


def _find_fixations(folder: Path) -> dict[int, str]:
    """Fixation maps by frame; a PNG is preferred to the .mat file of the same frame."""
    files = _numbered_files(folder, "fixation/maps", "mat") | _numbered_files(folder, "fixation", "png")
    return dict(sorted(files.items()))


def _numbered_files(folder: Path, below: str, suffix: str) -> dict[int, str]:
    """Absolute frame to file, in order: NNNN.png is frame NNNN - 1."""
    files: dict[int, str] = {}
    for name in _names(folder / below):
        stem, _, ending = name.rpartition(".")
        if ending.lower() != suffix or not stem.isdecimal():
            continue
        if int(stem) == 0:
            raise DataError(f"{folder / below / name}: frames count from 1 (0001.{suffix}); renumber them")
        # The same few names recur in every video: kept once, all of DHF1K's fit in little memory.
        files[int(stem) - 1] = sys.intern(f"{below}/{name}")
    return dict(sorted(files.items()))


def _names(folder: Path) -> list[str]:
    """Names of the files in a folder, in no order: text, since paths cost three times as much."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _read_grey(path: Path) -> NDArray[np.float32]:
    """Read channel 1 of a picture of 8 or 16 bits, as (y, x) in [0, 1]."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L") if picture.mode in ("1", "P") else picture)
    except (OSError, SyntaxError, ValueError) as error:
        advice = "is a Git LFS pointer; run git lfs pull" if is_lfs_pointer(path) else "download it again or delete it"
        raise DataError(f"{path}: cannot be read as a picture; {advice}") from error
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: pixels are {pixels.dtype}; expected a PNG of 8 or 16 bits")
    channel = pixels if pixels.ndim == 2 else pixels[..., 0]
    return channel.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _read_mat(path: Path) -> NDArray[np.bool_]:
    """Read the variable `I` of a MATLAB file, (y, x), as true where it is not zero."""
    from scipy.io import loadmat  # slow to import, and needed for few data sets

    try:
        fixations = np.asarray(loadmat(path, variable_names=["I"])["I"])
    except Exception as error:  # scipy's reader raises a dozen kinds of error, down to zlib's
        raise DataError(
            f"{path}: no readable variable 'I'; expected a fixation map as MATLAB saves it with -v7"
        ) from error
    return fixations > 0
