"""Data sets in which videos and their maps are paired by name: UCF Sports, Hollywood-2, and whatever people make.

    training/Diving-Side-001/{images,maps,fixation}/Diving-Side_001_001.png         UCF Sports
    testing/actioncliptest00001_1/{images,maps,fixation}/actioncliptest00001_00003.png    Hollywood-2, a folder a shot
    videos/a.mp4  maps/a/0001.png  fixations/a/0001.mat                              any folder

The decision that is not obvious: the tree itself has no say. A folder that is named as maps or fixations are makes all
below it labels; a path without those names, and without names that say nothing (`videos`, `images`), is what a video
and its labels are paired by. So `videos/a.mp4` meets `maps/a`, `a/maps` and `labels/a/density`. Cost: one walk.

Sources of the layouts: Mathe and Sminchisescu, "Actions in the eye", PAMI 2015, as DHF1K's authors give them out.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, AnnotatedVideos, annotated, left_out
from tinyhd_pipe.stages.gaze.label_files import PICTURES
from tinyhd_pipe.stages.gaze.label_folders import FIXATIONS, FrameNames, counts_from_0, label_files
from tinyhd_pipe.stages.video.numbers import natural
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.errors import DataError, VideoError

MAP_FOLDERS = frozenset({"maps", "map", "density", "densities", "density_maps", "saliency", "saliency_maps", "salmaps"})
FIXATION_FOLDERS = frozenset({"fixation", "fixations", "fixation_maps", "fixmaps", "fixation_points"})
SAYING_NOTHING = frozenset(
    {"video", "videos", "clips", "frames", "frame", "images", "image", "annotation", "annotations", "labels", "data"}
)
LAYOUT = "videos or folders of frames, and beside each its maps, as in videos/a.mp4 and maps/a/0001.png"
Key = tuple[str, ...]
"""What a video and its labels have in common."""


def find_by_name(root: Path, layout: str) -> AnnotatedVideos:
    """Find the videos below `root` that have density maps, in natural order of their ids, which are those of a dump.

    Raises DataError where there are no maps, no video for any of them, or labels whose names hold no number.
    """
    maps, fixations = _label_folders(root)
    if not maps:
        raise DataError(f"{root}: no density maps in it; expected {LAYOUT}")
    sources = _sources(root)
    pairs = [key for key in sorted(sources, key=lambda key: natural(sources[key].id)) if key in maps]
    if not pairs:
        raise DataError(f"{root}: no video for any of its {len(maps)} folders of maps; expected {LAYOUT}")
    without_video = sorted(("/".join(key) for key in maps.keys() - sources.keys()), key=natural)
    without_maps = sorted((sources[key].id for key in sources.keys() - maps.keys()), key=natural)
    found, broken = annotated(pairs, lambda key: _annotated(root, sources[key], maps[key], fixations.get(key, [])))
    return AnnotatedVideos(layout, found, (*left_out(without_video, without_maps), *broken))


def _annotated(root: Path, source: VideoSource, maps: list[str], fixations: list[str]) -> AnnotatedVideo:
    frames = FrameNames.of(source)
    if not source.is_frame_folder:
        frames = FrameNames(0 if counts_from_0(root, [*maps, *fixations]) else 1)
    return AnnotatedVideo(
        source,
        root,
        density_maps=label_files(root, maps, PICTURES, frames),
        fixations=label_files(root, fixations, FIXATIONS, frames),
    )


def _sources(root: Path) -> dict[Key, VideoSource]:
    """What is no label, by what it is paired by; a video file is preferred to its frames."""
    try:
        found = find_videos([root])
    except VideoError:
        return {}
    kept = [source for source in found if _kind_of(source.path.relative_to(root).parts[:-1]) is None]
    kept = [s for s in kept if not s.is_frame_folder or _kind_of(s.path.relative_to(root).parts) is None]
    kept.sort(key=lambda source: not source.is_frame_folder)
    return {key_of(_named_as(root, source)): source for source in kept}


def _named_as(root: Path, source: VideoSource) -> tuple[str, ...]:
    parts = source.path.relative_to(root).parts
    return parts if source.is_frame_folder else (*parts[:-1], PurePath(parts[-1]).stem)


def _label_folders(root: Path) -> tuple[Mapping[Key, list[str]], Mapping[Key, list[str]]]:
    """Folders of density maps and of fixations below `root`, by what they are paired by."""
    folders: dict[str, defaultdict[Key, list[str]]] = {"maps": defaultdict(list), "fixations": defaultdict(list)}
    for folder, names in _walk(root):
        parts = folder.relative_to(root).parts
        kind = _kind_of(parts)
        if kind and any(name.lower().endswith(FIXATIONS if kind == "fixations" else PICTURES) for name in names):
            folders[kind][key_of(parts)].append(folder.relative_to(root).as_posix())
    for by_key in folders.values():
        for found in by_key.values():
            found.sort(key=lambda name: -len(PurePath(name).parts))  # fixation/maps before fixation, which is preferred
    return folders["maps"], folders["fixations"]


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for name, subfolders, files in os.walk(root):
        subfolders[:] = sorted(each for each in subfolders if not each.startswith((".", "@", "__MACOSX")))
        yield Path(name), files


def _kind_of(parts: tuple[str, ...]) -> str | None:
    names = {part.lower() for part in parts}
    if names & FIXATION_FOLDERS:
        return "fixations"
    return "maps" if names & MAP_FOLDERS else None


def key_of(parts: tuple[str, ...]) -> Key:
    """The names of a path that say something, in any spelling of their numbers: 001 and 0001 are one."""
    said = (part.lower() for part in parts)
    names = [part for part in said if part not in MAP_FOLDERS | FIXATION_FOLDERS | SAYING_NOTHING]
    return tuple(str(int(name)) if name.isdecimal() else name for name in names)
