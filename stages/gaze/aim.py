"""The layout of the AIM 2024 and NTIRE 2026 challenges on video saliency, as its archives unpack.

    Videos/NAME.mp4
    SaliencyTrain/Train/NAME.mp4             density maps as a grey video; or NAME/001.png, as its evaluator writes them
    FixationsTrain/Train/NAME/fixations.json for each frame a list of points [y, x]; or NAME.json, NAME.txt
    TrainTestSplit.json                      names of videos by split

The decision that is not obvious: folders between `SaliencyTrain` and a name are looked through, since archives differ
in them, and pictures in `fixations/` and `fixations_maps/` are passed over: the organisers call them lossy and score by
the points. Cost: one walk; a header of every video of maps, 1 ms each.

Sources: the README and evaluator (bench.py) that the organisers publish with each challenge. Not held against the files
themselves: whether a folder `Train` is in the archives, and what the split of training is called.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, AnnotatedVideos, left_out
from tinyhd_pipe.stages.gaze.label_files import PICTURES, picture_size
from tinyhd_pipe.stages.gaze.label_folders import FrameNames, has_labels, label_files
from tinyhd_pipe.stages.gaze.label_videos import EachFrame, video_of_maps
from tinyhd_pipe.stages.video.numbers import natural
from tinyhd_pipe.stages.video.sources import VIDEO_SUFFIXES, VideoSource, find_videos
from tinyhd_pipe.store.errors import DataError, VideoError

SALIENCY, FIXATIONS = "saliency", "fixations"
"""How the folders of labels begin, in small letters; what follows is `Train`, `Test` or nothing."""
HALVES = ("", "train", "test", "val")
VIDEOS = "videos"
SPLITS = "TrainTestSplit.json"
POINTS = "fixations.json"
LAYOUT = "Videos/NAME.mp4, SaliencyTrain/Train/NAME.mp4 and FixationsTrain/Train/NAME/fixations.json"


def is_aim(root: Path) -> bool:
    """Whether a folder looks like the challenge's: videos of maps, or lists of points, in folders named as its."""
    for kind, folder in _label_folders(root):
        if kind == SALIENCY and any(_videos_in(folder)):
            return True
        if kind == FIXATIONS and any(_points_in(folder)):
            return True
    return False


def find_aim(root: Path) -> AnnotatedVideos:
    """Find the videos below `root` that have density maps, in natural order of their ids, which are those of a dump.

    Raises DataError where there are no maps or no video for any of them.
    """
    maps: dict[str, Mapping[int, str]] = {}
    points: dict[str, str] = {}
    for kind, folder in _label_folders(root):
        if kind == SALIENCY:
            maps |= _maps_in(root, folder)
        else:
            points |= {name: file.relative_to(root).as_posix() for name, file in _points_in(folder)}
    if not maps:
        raise DataError(f"{root}: no density maps in it; expected {LAYOUT}")
    sources = _sources(root)
    found = [
        AnnotatedVideo(source, root, maps[name], _fixations(root, points.get(name), maps[name]))
        for name, source in sorted(sources.items(), key=lambda item: natural(item[1].id))
        if name in maps
    ]
    if not found:
        raise DataError(f"{root}: no video for any of its {len(maps)} videos of maps; expected {LAYOUT}")
    without_video = sorted(maps.keys() - sources.keys(), key=natural)
    without_maps = sorted((sources[name].id for name in sources.keys() - maps.keys()), key=natural)
    return AnnotatedVideos("aim", tuple(found), left_out(without_video, without_maps))


def names_of_splits(root: Path) -> dict[str, list[str]]:
    """Split to the names of its videos; empty without `TrainTestSplit.json`. Raises DataError where that is no such."""
    file = root / SPLITS
    if not file.is_file():
        return {}
    try:
        splits = json.loads(file.read_text())
        return {str(split): [PurePath(str(name)).stem for name in names] for split, names in splits.items()}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{file}: cannot be read ({error}); expected names of videos by split, as JSON") from error


def _label_folders(root: Path) -> Iterator[tuple[str, Path]]:
    """SALIENCY or FIXATIONS, and such a folder."""
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        name = folder.name.lower()
        for kind in (SALIENCY, FIXATIONS):
            if folder.is_dir() and name.startswith(kind) and name.removeprefix(kind).strip("_- ") in HALVES:
                yield kind, folder


def _videos_in(folder: Path) -> Iterator[Path]:
    return (file for file in _files(folder) if file.suffix.lower() in VIDEO_SUFFIXES)


def _points_in(folder: Path) -> Iterator[tuple[str, Path]]:
    """The name of a video, and the list of its points."""
    for file in _files(folder):
        if file.name.lower() == POINTS:
            yield file.parent.name, file
        elif file.suffix.lower() in (".json", ".txt") and file.name != SPLITS:
            yield file.stem, file


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))


def _maps_in(root: Path, folder: Path) -> dict[str, Mapping[int, str]]:
    """Name of a video to its maps by frame, from a video of them or from pictures."""
    maps: dict[str, Mapping[int, str]] = {}
    for below in (path for path in folder.rglob("*") if path.is_dir() and has_labels(path)):
        maps[below.name] = label_files(root, [below.relative_to(root).as_posix()], PICTURES, FrameNames(1))
    for file in _videos_in(folder):  # of both, pictures are quicker to read
        if file.stem not in maps:
            maps[file.stem] = EachFrame(file.relative_to(root).as_posix(), video_of_maps(file).frames)
    return maps


def _fixations(root: Path, points: str | None, maps: Mapping[int, str]) -> Mapping[int, str]:
    """Points of the frames that have maps, in whose pixels they are."""
    return EachFrame(points, max(maps) + 1, picture_size(root / next(iter(maps.values())))) if points else {}


def _sources(root: Path) -> dict[str, VideoSource]:
    """The videos by name: those in `Videos`, else those that are no labels."""
    folder = next((path for path in sorted(root.iterdir()) if path.is_dir() and path.name.lower() == VIDEOS), root)
    try:
        found = find_videos([folder])
    except VideoError:
        return {}
    labels = [folder for _, folder in _label_folders(root)]
    return {_name(source): source for source in found if not any(at in source.path.parents for at in labels)}


def _name(source: VideoSource) -> str:
    return source.path.name if source.is_frame_folder else source.path.stem
