"""Which of the maps below a folder are those of which video.

    DIR/001.AVI/, DIR/001.AVI.npz           named by the video's id, as `predict` leaves them
    DIR/001/, DIR/0001/maps/, DIR/001.mkv   by its name, or its number however it is written
    DIR/training/Diving-Side-001/maps/      by the path, without the names that say nothing (gaze/named_folders.py)
    DIR/                                    of the one video that is given, where the files of its frames lie in it

The decision that is not obvious: a folder that is named as a video holds the maps of its frames, one file each; a file
that is named as a video holds all of them. Names go from the exact to the loose, and one that fits two videos fits
none. Cost: one walk; no file is opened.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from tinyhd_pipe.stages.gaze.named_folders import FIXATION_FOLDERS, Key, key_of
from tinyhd_pipe.stages.predictions.map_reading import FRAMES, OF_A_FRAME, OF_A_VIDEO, ZARR
from tinyhd_pipe.stages.video.names import unescaped
from tinyhd_pipe.stages.video.numbers import natural
from tinyhd_pipe.stages.video.sources import VIDEO_SUFFIXES, VideoSource
from tinyhd_pipe.store.errors import DataError

EXPECTED = "maps by video and frame: DIR/001/0001.png, DIR/001.npz, DIR/001.mkv"


@dataclass(frozen=True)
class MapPlaces:
    """The maps of some videos."""

    of: Mapping[str, Path]
    """Id of a video to where its maps lie."""
    without_maps: tuple[str, ...]
    """Ids of videos that have none, in natural order."""
    without_video: tuple[str, ...]
    """Places below the folder that belong to none of the videos, in natural order."""


def find_maps(root: Path, sources: Sequence[VideoSource]) -> MapPlaces:
    """The maps below `root` of these videos.

    Raises DataError where there is no such folder, where none of the videos has maps in it, or where one has two.
    """
    if not root.exists():
        raise DataError(f"{root}: no such folder; expected {EXPECTED}")
    if root.is_file():
        if len(sources) > 1:
            raise DataError(
                f"{root}: a file is of one video, and {len(sources)} are given; give a folder, or one video"
            )
        return MapPlaces({sources[0].id: root}, (), ())
    folders = [place for place in _folders(root) if _has_maps(place)]
    of = _paired(root, folders, sources)
    files = _files(root, set(of.values()))
    for video, file in _paired(root, files, sources).items():
        if of.setdefault(video, file) != file:
            raise DataError(f"{video}: maps of it are {of[video]} and {file}; keep one of them")
    if not of and len(sources) == 1 and _has_maps(root):
        of, folders, files = {sources[0].id: root}, [], []
    if not of:
        raise DataError(f"{root}: no maps of the {len(sources)} videos given; expected {EXPECTED}")
    left = [place.relative_to(root).as_posix() for place in (*folders, *files) if place not in set(of.values())]
    without = [source.id for source in sources if source.id not in of]
    return MapPlaces(of, tuple(sorted(without, key=natural)), tuple(sorted(left, key=natural)))


def _folders(root: Path) -> Iterator[Path]:
    """Folders below a folder, but those of fixations and what systems leave behind."""
    for name, folders, _ in os.walk(root):
        folders[:] = sorted(
            f for f in folders if not f.startswith((".", "@", "__MACOSX")) and f not in FIXATION_FOLDERS
        )
        yield from (Path(name, folder) for folder in folders)
        folders[:] = [folder for folder in folders if not folder.endswith(ZARR)]


def _files(root: Path, taken: Collection[Path]) -> list[Path]:
    """Files that may hold all maps of a video: not those that hold a frame's, in a folder that is taken."""
    return [
        file
        for folder in (root, *_folders(root))
        if folder not in taken and not folder.name.endswith(ZARR)
        for file in sorted(folder.iterdir())
        if file.name.lower().endswith(OF_A_VIDEO) and not file.name.startswith(".")
        if not file.name.endswith(FRAMES) and file.is_file()
    ]


def _has_maps(place: Path) -> bool:
    if place.is_file() or place.name.endswith(ZARR):
        return True
    with os.scandir(place) as entries:
        return any(entry.name.lower().endswith(OF_A_FRAME) for entry in entries)


def _paired(root: Path, places: Sequence[Path], sources: Sequence[VideoSource]) -> dict[str, Path]:
    """Id of a video to the one of these places that is named as it is."""
    names = {place: place.relative_to(root) for place in places}
    exact = {_without_ending(name).as_posix(): place for place, name in names.items()}
    exact |= {name.as_posix(): place for place, name in names.items()}
    loose: defaultdict[Key, list[Path]] = defaultdict(list)
    for place, name in names.items():
        for key in _keys(name):
            loose[key].append(place)
    meant = Counter(key for source in sources for key in _keys(PurePath(unescaped(source.id))))
    paired = {}
    for source in sources:
        found = exact.get(unescaped(source.id)) or _of_video(source, loose, meant)
        if found is not None:
            paired[source.id] = found
    return paired


def _without_ending(name: PurePath) -> PurePath:
    return name.with_suffix("") if name.suffix.lower() in (*OF_A_VIDEO, ZARR) else name


def _keys(name: PurePath) -> list[Key]:
    """What a path is known by, the most exact first: all of it, or its last name that says something."""
    parts = (*name.parts[:-1], _stem(name.name))
    whole = key_of(parts) or key_of((*parts, "0"))
    return list(dict.fromkeys((whole, whole[-1:])))


def _stem(name: str) -> str:
    """Without the endings of files of maps and of videos: `001` of `001.AVI.npz`."""
    for endings in ((*OF_A_VIDEO, ZARR), VIDEO_SUFFIXES):
        if name.lower().endswith(endings):
            name = name.rpartition(".")[0]
    return name


def _of_video(source: VideoSource, places: Mapping[Key, list[Path]], meant: Mapping[Key, int]) -> Path | None:
    """The place that has a name of the video which no other video has."""
    for key in _keys(PurePath(unescaped(source.id))):
        candidates = places.get(key, [])
        # DHF1K has a stray picture in the folder around each `maps`.
        found = [one for one in candidates if not any(one in other.parents for other in candidates)]
        if meant[key] > 1 or not found:
            continue
        if len(found) > 1:
            raise DataError(f"{source.id}: maps of it are {found[0]} and {found[1]}; keep one of them")
        return found[0]
    return None
