"""Where the videos are: found below the paths that a user gives, named, and identified by their content.

The decision that is not obvious: a folder of pictures is a video only if it holds no folder itself. In the
data sets as they are downloaded that tells a clip's frames from the one stray picture beside its ground
truth; folders of ground truth are known by their names, and so are those that systems leave behind.

Cost: one walk over the folders. Of a `.ts` or `.mts`, which may be TypeScript, a kilobyte is read; no other
file is opened but by `digest`, which reads all of it.
"""

import codecs
import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from tinyhd_pipe.stages.video.names import escaped
from tinyhd_pipe.stages.video.numbers import NumberedNames, numbered_names
from tinyhd_pipe.stages.video.remote import Remote, is_elsewhere, listing, public, urls_at
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering

VIDEO_SUFFIXES = (
    *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".h264", ".h265"),
    *(".hevc", ".ivf", ".m1v", ".m2t", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg", ".mkv", ".mov", ".mp4", ".mp4v"),
    *(".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogm", ".ogv", ".qt", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
_EXPECTED = (
    "expected files named .mp4, .avi, .mkv, .mov, .webm or with one of "
    f"{len(VIDEO_SUFFIXES) - 5} other endings of videos"
)
IMAGE_SUFFIXES = (
    *(".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm", ".tga"),
    *(".webp", ".avif", ".jp2", ".jpg", ".jpeg", ".jpe", ".jfif"),
)
"""Lossless ones first: of two pictures of one name the earlier kind is taken."""
MAY_BE_TYPESCRIPT = (".ts", ".mts")
GROUND_TRUTH_FOLDERS = frozenset(
    {"maps", "fixation", *(f"{kind}{half}" for kind in ("Saliency", "Fixations") for half in ("Train", "Test"))}
)
"""Folders of DHF1K, UCF Sports and Hollywood-2, and of the AIM and NTIRE challenges, in which pictures and videos are
annotation and no frames."""
LEFT_BEHIND_FOLDERS = frozenset(
    {
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot"),  # Synology, QNAP
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),  # Windows
        *("__macosx", "network trash folder", "temporary items"),  # macOS
        *("lost+found", "__pycache__"),
    }
)
"""Folders, in small letters, in which appliances and systems keep thumbnails, rubbish and lost pieces; those whose
name begins with a dot are not listed. No rule for a first `@` or `#`: collections of clips are sorted by handles."""
LEFT_BEHIND_FILES = frozenset({"thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"})


@dataclass(frozen=True, order=True)
class VideoSource:
    """One video as the user has it."""

    id: str
    """Its name in the store: the path below the folder that was given, with `/` and suffix, escaped (names.py)."""
    path: Path
    """Where it lies; of one that is fetched no path of this machine, but a name (see `at_hand`)."""
    is_frame_folder: bool = False
    """True where the video is a folder of pictures, one for each frame."""
    remote: Remote | None = None
    """Where it is fetched from; None where it is a file or folder of this machine."""

    @property
    def where(self) -> str:
        """Path or URL, as messages name it."""
        return self.remote.where if self.remote else str(self.path)


@dataclass(frozen=True)
class LeftOut:
    """Files below a folder that belong to no video that was found there."""

    folder: Path | str
    """A URL is text."""
    endings: Mapping[str, int]
    """Ending in small letters, with its dot, to how many files have it, the most first; "" for those without one."""

    def __str__(self) -> str:
        count = sum(self.endings.values())
        kinds = ", ".join(f"{number} {ending or 'without ending'}" for ending, number in self.endings.items())
        return f"{self.folder}: {count} file{'s were' if count > 1 else ' was'} not taken: {kinds}"


@dataclass(frozen=True)
class Found:
    """What a search found, and what it passed over."""

    videos: tuple[VideoSource, ...]
    """Sorted by id."""
    left_out: tuple[LeftOut, ...]
    """One for each folder given below which files were not taken. What systems leave behind, ground truth and names
    that begin with a dot do not count."""


def find_videos(paths: Sequence[str | Path]) -> list[VideoSource]:
    """The videos at `paths`, sorted by id; `search_videos` tells what was passed over, too.

    A path is a video file (taken whatever its suffix) or a folder, which is searched through and through for
    files with a video suffix and for folders of pictures. A folder that holds pictures, no video and no
    folder is one video. Names that begin with a dot and folders that systems leave behind (`@eaDir`,
    `lost+found`) are passed over, and below the given folder so are those of ground truth. A `.ts` that holds
    text is no video.

    A URL is a file, a folder or, with `*`, a pattern, and a tar (local or behind a URL) is taken as a folder of its
    members; folders of pictures are not looked for there. Such videos are fetched when they are decoded.

    An id is the path below the given folder, or the name of what was given itself. Where different videos
    would have the same id, each gets the name of the folder that was given in front: `natural/0068.AVI`.

    Raises:
        VideoError: a path that does not exist or has no video; ids that are the same even so.
    """
    return list(search_videos(paths).videos)


def search_videos(paths: Sequence[str | Path]) -> Found:
    """The videos at `paths` by the rules of `find_videos`, and the files below them that belong to none.

    Raises:
        VideoError: as `find_videos`.
    """
    found: defaultdict[str, list[tuple[str, VideoSource]]] = defaultdict(list)
    left_out = []
    for root in (place for path in paths for place in urls_at(str(path).removeprefix("file://"))):
        folder, videos, passed_over = _videos_elsewhere(root) if is_elsewhere(root) else _videos_at(Path(root))
        if passed_over:
            endings = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
            left_out.append(LeftOut(public(root) if is_elsewhere(root) else Path(root), dict(endings)))
        for source in videos:
            known = found[source.id]
            if not any(_is_same_file(source, other) for _, other in known):
                known.append((escaped(folder), source))
    return Found(tuple(sorted(_named(found.values()))), tuple(left_out))


def _named(found: Iterable[list[tuple[str, VideoSource]]]) -> list[VideoSource]:
    """The videos of each id, with the name of their folder in front where there are several."""
    named: dict[str, VideoSource] = {}
    for same_id in found:
        for folder_name, source in same_id:
            id_ = f"{folder_name}/{source.id}" if len(same_id) > 1 else source.id
            if id_ in named:
                raise VideoError(f"{source.where} and {named[id_].where} would both be {id_}: rename a folder")
            named[id_] = replace(source, id=id_)
    return list(named.values())


def _is_same_file(one: VideoSource, other: VideoSource) -> bool:
    if one.remote or other.remote:
        return one.remote == other.remote
    try:
        return one.path.samefile(other.path)
    except OSError:  # a link to nowhere: whoever reads it says so
        return False


def _videos_elsewhere(url: str) -> tuple[str, list[VideoSource], Counter[str]]:
    """What `_videos_at` gives of a path, of a URL or a tar."""
    there = listing(url)
    counted = {name: remote for name, remote in there.files.items() if there.is_file or _counts(name)}
    videos = {n: remote for n, remote in counted.items() if there.is_file or _has_suffix(n, VIDEO_SUFFIXES)}
    if not videos:
        raise VideoError(f"{public(url)}: no video in it; {_EXPECTED}")
    found = [VideoSource(escaped(name), Path(remote.where), remote=remote) for name, remote in videos.items()]
    return there.folder, found, Counter(PurePosixPath(n).suffix.lower() for n in counted.keys() - videos.keys())


def _counts(name: str) -> bool:
    """Whether a file below a URL is neither annotation nor what systems leave behind."""
    *folders, last = name.split("/")
    return not _is_left_behind(last, LEFT_BEHIND_FILES) and not any(
        _is_left_behind(folder, LEFT_BEHIND_FOLDERS) or folder in GROUND_TRUTH_FOLDERS for folder in folders
    )


def _videos_at(root: Path) -> tuple[str, list[VideoSource], Counter[str]]:
    """The name of the folder of a path, the videos there, and how many files belong to none, by their endings."""
    if root.is_file():
        return root.resolve().parent.name, [VideoSource(escaped(root.name), root)], Counter()
    if not root.is_dir():
        raise VideoError(f"{root}: no such file or folder; expected a video, or a folder of videos or frames")
    found: list[VideoSource] = []
    left_out: Counter[str] = Counter()
    for folder, files, has_folders in _walk(root):
        videos = [name for name in files if _has_suffix(name, VIDEO_SUFFIXES) and not _is_typescript(folder / name)]
        found += [VideoSource(escaped((folder / n).relative_to(root).as_posix()), folder / n) for n in videos]
        frames = [] if videos or has_folders else _frames_among(files)
        if frames:
            name = folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
            found.append(VideoSource(escaped(name), folder, is_frame_folder=True))
        left_out.update(Path(name).suffix.lower() for name in set(files).difference(videos, frames))
    if not found:
        raise VideoError(f"{root}: no video in it; {_EXPECTED}, or folders of pictures")
    return root.resolve().name, found, left_out


def _walk(root: Path) -> Iterator[tuple[Path, list[str], bool]]:
    """Every folder that may hold videos, the names of its files, and whether it holds folders; links are followed."""
    seen = set()
    for name, subfolders, files in os.walk(root, followlinks=True):
        folder = Path(name)
        if (real := folder.resolve()) in seen:  # a link that leads back up
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(n for n in subfolders if not _is_left_behind(n, LEFT_BEHIND_FOLDERS))
        yield folder, [n for n in files if not _is_left_behind(n, LEFT_BEHIND_FILES)], bool(subfolders)
        subfolders[:] = [n for n in subfolders if n not in GROUND_TRUTH_FOLDERS]


def _is_left_behind(name: str, known: frozenset[str]) -> bool:
    return name.startswith(".") or name.lower() in known


def _has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    return name.lower().endswith(suffixes)


def _is_typescript(path: Path) -> bool:
    """Whether a file that is named as an MPEG transport stream holds text; its packets never decode as such."""
    if not _has_suffix(path.name, MAY_BE_TYPESCRIPT) or is_lfs_pointer(path):
        return False
    text = codecs.getincrementaldecoder("utf-8")()
    try:
        head = text.decode(_head(path))
    except UnicodeDecodeError:
        return False
    return bool(head) and "\0" not in head


def is_lfs_pointer(path: Path) -> bool:
    """Whether a file is what Git leaves in place of a large one that was not fetched."""
    return _head(path).startswith(b"version https://git-lfs.github.com/spec/")


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError:  # whoever decodes it says so
        return b""


def frame_files(source: VideoSource) -> list[Path]:
    """The pictures of a frame folder in their order, `frame_2.png` before `frame_10.png`; raises as `frame_names`."""
    return [source.path / name for name in frame_names(source.path).names]


def numbering_of(source: VideoSource) -> Numbering:
    """The absolute numbers of a video's frames: of a file as they come, of a folder those in the names of its pictures.

    Raises as `frame_names`.
    """
    return frame_names(source.path).numbering if source.is_frame_folder else AS_THEY_COME


def frame_names(folder: Path) -> NumberedNames:
    """The names of the pictures of a frame folder, in their order and with their numbers (numbers.py).

    Pictures that differ by their endings alone (`0001.jpg`, `0001.png`) are one frame: the lossless one is taken.

    Raises:
        VideoError: the folder is gone, or two of its pictures have one number.
    """
    try:
        return numbered_names(_one_of_each(entry.name for entry in folder.iterdir()))
    except OSError as error:
        raise VideoError(f"{folder}: {error.strerror}; expected a folder of pictures") from error
    except ValueError as error:
        raise VideoError(f"{folder}: {error}") from error


def _frames_among(names: Sequence[str]) -> list[str]:
    """Those of these names in a folder that are frames."""
    pictures = _one_of_each(names)
    try:
        return list(numbered_names(pictures).names)
    except ValueError:  # two of one number: whoever reads the folder says so
        return pictures


def _one_of_each(names: Iterable[str]) -> list[str]:
    """The pictures among these names; of two that differ by their endings alone the lossless one."""
    pictures = [name for name in names if _has_suffix(name, IMAGE_SUFFIXES) and not name.startswith(".")]
    taken: dict[str, str] = {}
    for name in sorted(pictures, key=lambda name: (IMAGE_SUFFIXES.index(Path(name).suffix.lower()), name)):
        taken.setdefault(Path(name).stem, name)
    return list(taken.values())


@contextmanager
def at_hand(source: VideoSource) -> Iterator[Path]:
    """The video as a file or folder of this machine, which stays as long as the context lasts.

    Raises VideoError where it must be fetched and cannot be (kept_videos.py).
    """
    if source.remote is None:
        yield source.path
        return
    from tinyhd_pipe.stages.video.kept_videos import held

    with held(source.remote) as path:
        yield path


def digest(source: VideoSource) -> str:
    """SHA-256 of a video's content in hex; of a frame folder, over names, lengths and bytes in frame order.

    Numbers of frames that are not their places are part of it: stores from before they counted are of other videos.

    Raises:
        VideoError: a file that cannot be read.
    """
    try:
        if not source.is_frame_folder:
            with at_hand(source) as path, path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        for path in frame_files(source):
            data = path.read_bytes()
            total.update(os.fsencode(path.name) + f"\0{len(data)}\0".encode() + data)
        if runs := numbering_of(source).runs:
            total.update(f"numbered {runs}".encode())
        return total.hexdigest()
    except OSError as error:
        raise VideoError(f"{source.where}: {error.strerror}; expected a video that can be read") from error
