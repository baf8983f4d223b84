"""Where the videos are: found below the paths that a user gives, named, and identified by their content.

The decision that is not obvious: a folder of pictures is a video only if it holds no folder itself. In the
data sets as they are downloaded that tells a clip's frames from the one stray picture beside its ground
truth; folders of ground truth are known by their names.

Cost: one walk over the folders; no file is opened but by `digest`, which reads all of it.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tinyhd_pipe.store.errors import VideoError

VIDEO_SUFFIXES = (
    *(".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov"),
    *(".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm", ".wmv"),
)
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")
GROUND_TRUTH_FOLDERS = frozenset({"maps", "fixation"})
"""Folders of DHF1K, UCF Sports and Hollywood-2 whose pictures are annotation, not frames."""


@dataclass(frozen=True, order=True)
class VideoSource:
    """One video as the user has it."""

    id: str
    """Its name in the store: the path below the folder that was given, with `/` and suffix."""
    path: Path
    is_frame_folder: bool = False
    """True where the video is a folder of pictures, one for each frame."""


def find_videos(paths: Sequence[str | Path]) -> list[VideoSource]:
    """The videos at `paths`, sorted by id.

    A path is a video file (taken whatever its suffix) or a folder, which is searched through and through for
    files with a video suffix and for folders of pictures. A folder that holds pictures, no video and no
    folder is one video. Names that begin with a dot are passed over, and below the given folder so are
    `maps` and `fixation`.

    An id is the path below the given folder, or the name of what was given itself. Where different videos
    would have the same id, each gets the name of the folder that was given in front: `natural/0068.AVI`.

    Raises:
        VideoError: a path that does not exist or has no video; ids that are the same even so.
    """
    found: defaultdict[str, list[tuple[str, VideoSource]]] = defaultdict(list)
    for root in map(Path, paths):
        folder = root.resolve() if root.is_dir() else root.resolve().parent
        for source in _videos_at(root):
            known = found[source.id]
            if not any(source.path.samefile(other.path) for _, other in known):
                known.append((folder.name, source))
    named: dict[str, VideoSource] = {}
    for same_id in found.values():
        for folder_name, source in same_id:
            id_ = f"{folder_name}/{source.id}" if len(same_id) > 1 else source.id
            if id_ in named:
                raise VideoError(f"{source.path} and {named[id_].path} would both be {id_}: rename a folder")
            named[id_] = replace(source, id=id_)
    return sorted(named.values())


def _videos_at(root: Path) -> list[VideoSource]:
    if root.is_file():
        return [VideoSource(root.name, root)]
    if not root.is_dir():
        raise VideoError(f"{root}: no such file or folder; expected a video, or a folder of videos or frames")
    found = []
    seen = set()
    for name, subfolders, files in os.walk(root, followlinks=True):
        folder = Path(name)
        if (real := folder.resolve()) in seen:  # a link that leads back up
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(n for n in subfolders if not n.startswith("."))
        videos = [folder / n for n in files if _has_suffix(n, VIDEO_SUFFIXES)]
        found += [VideoSource(path.relative_to(root).as_posix(), path) for path in videos]
        if not videos and not subfolders and any(_has_suffix(n, IMAGE_SUFFIXES) for n in files):
            id_ = real.name if folder == root else folder.relative_to(root).as_posix()
            found.append(VideoSource(id_, folder, is_frame_folder=True))
        subfolders[:] = [n for n in subfolders if n not in GROUND_TRUTH_FOLDERS]
    if not found:
        raise VideoError(
            f"{root}: no video in it; expected files named {' '.join(VIDEO_SUFFIXES)}, or folders of pictures"
        )
    return found


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes) and not name.startswith(".")


def frame_files(source: VideoSource) -> list[Path]:
    """The pictures of a frame folder in natural order: `frame_2.png` before `frame_10.png`.

    Raises:
        VideoError: the folder is gone.
    """
    try:
        names = [entry.name for entry in source.path.iterdir()]
    except OSError as error:
        raise VideoError(f"{source.path}: {error.strerror}; expected a folder of pictures") from error
    return [source.path / n for n in sorted(names, key=_natural) if _has_suffix(n, IMAGE_SUFFIXES)]


def _natural(name: str) -> tuple[list[str | int], str]:
    # Splitting at runs of digits puts text at even and numbers at odd places, so that like meets like.
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))], name


def digest(source: VideoSource) -> str:
    """SHA-256 of a video's content in hex; of a frame folder, over names, lengths and bytes in frame order.

    Raises:
        VideoError: a file that cannot be read.
    """
    try:
        if not source.is_frame_folder:
            with source.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        for path in frame_files(source):
            data = path.read_bytes()
            total.update(f"{path.name}\0{len(data)}\0".encode() + data)
        return total.hexdigest()
    except OSError as error:
        raise VideoError(f"{source.path}: {error.strerror}; expected a video that can be read") from error
