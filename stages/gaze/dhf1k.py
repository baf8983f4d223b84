"""The layout in which people have DHF1K.

    video/001.AVI
    annotation/0001/maps/0001.png
    annotation/0001/fixation/0001.png or annotation/0001/fixation/maps/0001.mat

The decision that is not obvious: everything is found by NUMBER and not by name, because the data set itself
writes video 1 as `001` and its annotation as `0001`; file `0001.png` belongs to frame 0. Nothing is decoded here.
Cost: finding lists three folders a video (some 4 s and 50 MB for the 700 annotated ones of DHF1K).

Source of the layout: Wang et al., "Revisiting video saliency prediction in the deep learning era", PAMI 2019.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TypeVar

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, AnnotatedVideos, named
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.errors import DataError, VideoError

LAYOUT = "video/001.AVI with annotation/0001/maps/0001.png"

Item = TypeVar("Item")


def find_dhf1k(root: Path) -> AnnotatedVideos:
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
    without_video = [folders[number].name for number in labelled if number not in sources]
    without_maps = [sources[number].id for number in sorted(sources.keys() - set(labelled))]
    return AnnotatedVideos(
        "dhf1k",
        tuple(found),
        left_out=tuple(
            f"{len(names)} {what}: {named(names)}"
            for what, names in (
                ("annotations without a video", without_video),
                ("videos without density maps", without_maps),
            )
            if names
        ),
    )


def _sources_by_number(folder: Path) -> dict[int, VideoSource]:
    """The videos and frame folders below a folder, by the number that the first part of their id is."""
    try:
        sources = find_videos([folder]) if folder.is_dir() else []
    except VideoError:  # none there: the frames may lie elsewhere
        sources = []
    return _by_number(folder, ((PurePath(source.id).parts[0], source) for source in sources))


def _by_number(folder: Path, items: Iterable[tuple[str, Item]]) -> dict[int, Item]:
    """Key by number what has a numeric name, in any spelling (1, 001.AVI, 0001); leave out the rest."""
    found: dict[int, tuple[str, Item]] = {}
    for name, item in items:
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
