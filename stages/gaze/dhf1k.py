"""The layout in which people have DHF1K.

    video/001.AVI
    annotation/0001/maps/0001.png
    annotation/0001/fixation/0001.png or annotation/0001/fixation/maps/0001.mat

The decision that is not obvious: everything is found by NUMBER and not by name, because the data set itself
writes video 1 as `001` and its annotation as `0001`; file `0001.png` belongs to frame 0. Nothing is decoded here.
Cost: finding lists three folders a video (some 5 s and 50 MB for the 700 annotated ones of DHF1K).

Source of the layout: Wang et al., "Revisiting video saliency prediction in the deep learning era", PAMI 2019.
"""

from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TypeVar

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, AnnotatedVideos, annotated, left_out
from tinyhd_pipe.stages.gaze.label_files import PICTURES
from tinyhd_pipe.stages.gaze.label_folders import FIXATIONS, FrameNames, has_labels, label_files
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
    labelled = sorted(number for number, folder in folders.items() if has_labels(folder / "maps"))
    if not labelled:
        raise DataError(f"{annotation}: no density maps in it; expected {LAYOUT}")
    sources = _sources_by_number(annotation) | _sources_by_number(root / "video")
    pairs = [(sources[number], folders[number]) for number in labelled if number in sources]
    if not pairs:
        raise DataError(f"{root}: no video for any of its {len(labelled)} annotations; expected {LAYOUT}")
    without_video = [folders[number].name for number in labelled if number not in sources]
    without_maps = [sources[number].id for number in sorted(sources.keys() - set(labelled))]
    found, broken = annotated(pairs, lambda pair: _annotated(*pair))
    return AnnotatedVideos("dhf1k", found, (*left_out(without_video, without_maps), *broken))


def _annotated(source: VideoSource, folder: Path) -> AnnotatedVideo:
    """A video and its maps; those of a video file count from 1, as the data set's own do."""
    frames = FrameNames.of(source) if source.is_frame_folder else FrameNames(1, refuses_0=True)
    return AnnotatedVideo(
        source,
        folder,
        density_maps=label_files(folder, ["maps"], PICTURES, frames),
        fixations=label_files(folder, ["fixation/maps", "fixation"], FIXATIONS, frames),
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
