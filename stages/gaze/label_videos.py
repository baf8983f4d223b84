"""Labels of many frames in one file: density maps as a grey video, fixations as a list of points for each frame.

Such a label is named as if the file were a folder of them, `NAME.mp4/0001` and `fixations.json/0001@1080x1920` for
frame 0, so that every data set is names of labels by frame. The decision that is not obvious: videos
of maps are read forwards, each thread keeping the ones that it read last; asked for in order, as an evaluation asks, a
map costs its decoding, and a map that lies back costs decoding from the start. Who trains on many of them writes them
out as pictures first (`SaliencyTrain/NAME/001.png`), which the same layout takes. Cost: of 1080x1920 some 20 ms a map.
"""

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from tinyhd_pipe.stages.video.decoding import RgbConverter, count_packets, decoded_frames, opened
from tinyhd_pipe.stages.video.sources import VIDEO_SUFFIXES, VideoSource
from tinyhd_pipe.store.errors import DataError, VideoError

KEPT = 2
"""Videos of maps that a thread keeps open."""
KEPT_POINTS = 64
"""Files of points that are kept: half a megabyte each."""
MANY = (".json", ".txt", *VIDEO_SUFFIXES)
"""Endings of files that hold the labels of many frames."""
_IN_FILE = re.compile(r"(\d{4,})(?:@(\d+)x(\d+))?")
_threads = threading.local()
Size = tuple[int, int]
"""Height and width."""


@dataclass(frozen=True)
class EachFrame(Mapping[int, str]):
    """Frame to its label in a file that has one for each of `frames` frames from the first."""

    file: str
    frames: int
    size: Size | None = None
    """Of the maps that points lie in."""

    def __getitem__(self, frame: int) -> str:
        if not 0 <= frame < self.frames:
            raise KeyError(frame)
        return f"{self.file}/{frame + 1:04d}" + (f"@{self.size[0]}x{self.size[1]}" if self.size else "")

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.frames))

    def __len__(self) -> int:
        return self.frames


class InFile(NamedTuple):
    """A label that lies in a file."""

    file: Path
    frame: int
    size: Size | None
    """Of the maps that points lie in."""


def in_file(label: Path) -> InFile | None:
    """Which file a label lies in, and where; None for a label that is a file of its own."""
    found = _IN_FILE.fullmatch(label.name)
    if found is None or label.parent.suffix.lower() not in MANY:
        return None
    size = (int(found[2]), int(found[3])) if found[2] else None
    return InFile(label.parent, int(found[1]) - 1, size)


def file_of(label: Path) -> Path:
    """The file that a label is, or lies in."""
    found = in_file(label)
    return found.file if found else label


class VideoOfMaps(NamedTuple):
    """What a video of maps says of itself."""

    frames: int
    size: Size


@lru_cache(maxsize=4096)
def video_of_maps(path: Path) -> VideoOfMaps:
    """By its header, whose count is right in an mp4, else by its packets. Raises DataError for what is no video."""
    source = VideoSource(path.name, path)
    try:
        with opened(source) as (_, stream):
            return VideoOfMaps(stream.frames or count_packets(source), (stream.height, stream.width))
    except VideoError as error:
        raise DataError(str(error)) from error


class _Reader:
    """A video of maps that is read forwards."""

    def __init__(self, path: Path) -> None:
        self.frame = -1
        """The frame that was read last."""
        self._maps = _brightness(VideoSource(path.name, path))
        self._last: NDArray[np.float32] | None = None

    def at(self, frame: int) -> NDArray[np.float32] | None:
        """A frame that does not lie back; None where the video ends before it. Raises VideoError for no video."""
        while self.frame < frame:
            following = next(self._maps, None)
            if following is None:
                return None
            self._last, self.frame = following, self.frame + 1
        return self._last


def _brightness(source: VideoSource) -> Iterator[NDArray[np.float32]]:
    """Each frame as float32 (y, x) in [0, 1], in all of its bits where it has brightness in a plane of its own."""
    to_rgb = RgbConverter()
    with opened(source) as (container, stream), suppress(av.FFmpegError):
        for frame in decoded_frames(container, stream, []):
            grey = _first_plane(frame)
            yield to_rgb(frame)[..., 0].astype(np.float32) / np.float32(255) if grey is None else grey


def _first_plane(frame: av.VideoFrame) -> NDArray[np.float32] | None:
    """Brightness as coded, brought to [0, 1]; limited range is 16 to 235 of 8 bits, 64 to 940 of 10 (ITU-T H.273)."""
    kind = frame.format
    name = kind.name.removesuffix("le")
    if not re.fullmatch(r"yuvj?4\d\dp\d*|gray\d*", name):
        return None
    bits = kind.components[0].bits
    plane = frame.planes[0]
    codes = np.frombuffer(memoryview(plane), np.uint8 if bits <= 8 else "<u2")
    codes = codes.reshape(plane.height, -1)[:, : plane.width]
    is_full = frame.color_range == ColorRange.JPEG or name.startswith(("yuvj", "gray"))
    low, high = (0, 2**bits - 1) if is_full else (16 * 2 ** (bits - 8), 235 * 2 ** (bits - 8))
    return np.asarray(((codes.astype(np.float32) - low) / (high - low)).clip(0, 1))


def read_frame(path: Path, frame: int) -> NDArray[np.float32]:
    """A frame of a video of maps, float32 (y, x) in [0, 1]. Raises DataError where there is none."""
    kept: OrderedDict[Path, _Reader] = _threads.__dict__.setdefault("kept", OrderedDict())
    reader = kept.pop(path, None)
    if reader is None or frame < reader.frame:
        reader = _Reader(path)
    try:
        density = reader.at(frame)
    except VideoError as error:
        raise DataError(str(error)) from error
    if density is None:
        raise DataError(f"{path}: ends after {reader.frame + 1} maps, and one is asked of frame {frame}; get it again")
    kept[path] = reader
    if len(kept) > KEPT:
        kept.popitem(last=False)
    return density


def read_points(path: Path, frame: int, size: Size) -> NDArray[np.bool_]:
    """Where people looked at a frame, bool of that size (y, x).

    Points are (y, x) from 0, as the challenge's evaluator takes them. Those outside of the map are left out; raises
    DataError for a file that is no list of points or ends before that frame, and where most of a frame's points lie
    outside.
    """
    frames = _points_of(path)
    if frame >= len(frames):
        raise DataError(
            f"{path}: has points of {len(frames)} frames, and those of frame {frame} are asked; get it again"
        )
    points = frames[frame]
    inside = ((points >= 0) & (points < size)).all(axis=1)
    if inside.sum() * 2 < len(points):
        wrong = points[~inside][0].tolist()
        raise DataError(
            f"{path}: frame {frame}: {wrong} and most of {len(points)} points lie outside of the {size[0]}x{size[1]} "
            "map; expected [y, x] in its pixels"
        )
    looked_at = np.zeros(size, bool)
    looked_at[tuple(points[inside].T)] = True
    return looked_at


@lru_cache(maxsize=KEPT_POINTS)
def _points_of(path: Path) -> tuple[NDArray[np.int64], ...]:
    """(point, 2) of every frame."""
    try:
        text = path.read_text()
        frames = json.loads(text) if path.suffix.lower() == ".json" else _of_lines(text)
        return tuple(np.asarray(points, np.float64).reshape(-1, 2).astype(np.int64) for points in frames)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0][:80]
        raise DataError(f"{path}: no list of points [y, x] for each frame ({reason}); download it again") from error


def _of_lines(text: str) -> list[list[float]]:
    """Text with a line for each frame, numbers y x y x ... with blanks, commas or brackets between them."""
    return [[float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", line)] for line in text.splitlines()]
