"""Any frames of a video, with exactly the pixels that decoding it from the start gives.

The decision that is not obvious: a seek is never trusted, it is checked. Containers seek to the wrong place,
frames refer to what lies before their key frame, packets and frames are not always one to one, timestamps
are missing or run backwards. So the index holds a checksum of every frame as decoded from the start, and
where the key packets lie, paired with key frames by decode order. What comes after a seek counts only if its
checksum is the right one; otherwise the video is decoded from its beginning.

Cost: decoding the whole video once (0.8 ms for a 640x360 MPEG-4 frame) and 5 bytes a frame in memory. After
that a clip costs the frames from the key frame before it.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer

from tinyhd_pipe.stages.video.decoding import (
    KeyPacket,
    RgbConverter,
    decode,
    decoded_frames,
    opened,
)
from tinyhd_pipe.stages.video.frame_folders import Picture, folder_size, read_image
from tinyhd_pipe.stages.video.sources import VideoSource, digest, frame_names, numbering_of
from tinyhd_pipe.store.errors import VideoError

KEPT_INDEXES = 16_384
"""Indexes that a process keeps: 25 MB at 300 frames a video."""


@dataclass(frozen=True)
class Entry:
    """A place in a video file from which decoding can start."""

    frame: int
    """The absolute frame that comes first."""
    timestamp: int
    """What to seek to, in the stream's time base."""
    position: int
    """The key packet's byte offset, by which a seek that landed elsewhere is noticed."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """What is known about a video once it has been decoded from start to end. Can be pickled."""

    checksums: npt.NDArray[np.uint32]
    """(frame,) CRC-32 of each picture as `decode` gives it; 0 for a frame that failed."""
    valid: npt.NDArray[np.bool_]
    """(frame,) False where the frame did not decode."""
    entries: tuple[Entry, ...]
    """By rising frame; none for a frame folder."""


def index_frames(source: VideoSource) -> FrameIndex:
    """Decode a whole video once and note what random access needs.

    Raises:
        VideoError: not a single frame decodes.
    """
    decoding = decode(source)
    checksums = [None if picture is None else zlib.crc32(picture.data) for picture in decoding]
    # Where packets and frames do not pair off in truth, seeks there are in vain: that costs time, not pixels.
    pairs = zip(decoding.key_frames, decoding.key_packets, strict=False)
    return FrameIndex(
        checksums=np.array([checksum or 0 for checksum in checksums], np.uint32),
        valid=np.array([checksum is not None for checksum in checksums]),
        entries=tuple(
            Entry(frame, packet.timestamp, packet.position)
            for frame, packet in pairs
            if packet.timestamp is not None and packet.position is not None
        ),
    )


def read_frames(source: VideoSource, frames: npt.NDArray[np.integer], *, index: FrameIndex | None = None) -> Picture:
    """Frames of a video by their absolute numbers, bit for bit as `decode` gives them.

    Args:
        source: the video.
        frames: (n,) numbers from 0, n > 0, in any order, repeats allowed; all n pictures are in memory at
            once.
        index: the video's index; without it a file is indexed when this process first reads it, and the index
            is kept until the file changes.

    Returns:
        (n, y, x, 3) uint8, RGB, upright.

    Raises:
        VideoError: a frame past the end, or one that does not decode; a file that changed since it was
            indexed.
    """
    wanted, places = np.unique(frames, return_inverse=True)
    numbers = wanted.tolist()
    if source.is_frame_folder:
        pictures = _of_folder(source, numbers)
    else:
        pictures = _of_file(source, numbers, index or kept_index(source))
    return np.stack([pictures[place] for place in places.tolist()])


def frame_numbers(source: VideoSource) -> npt.NDArray[np.int64]:
    """The absolute numbers of a video's frames, (frame,) rising; a file is indexed for it, if it was not.

    Those that do not decode in a folder of pictures are among them.

    Raises:
        VideoError: not a single frame decodes.
    """
    frames = len(frame_names(source.path).names if source.is_frame_folder else kept_index(source).valid)
    return numbering_of(source).numbers(np.arange(frames))


def _check_range(source: VideoSource, numbers: Sequence[int], frames: int) -> None:
    for number in (numbers[0], numbers[-1]):
        if not 0 <= number < frames:
            raise VideoError(f"{source.where}: no frame {number}; expected 0 to {frames - 1}, as many as decode")


def _of_folder(source: VideoSource, numbers: Sequence[int]) -> list[Picture]:
    found = frame_names(source.path)
    places = found.numbering.places(numbers).tolist()
    if found.numbering.runs:
        _check_there(source, numbers, places, len(found.names))
    else:
        _check_range(source, numbers, len(found.names))
    size = folder_size(source)
    pictures = []
    for place in places:
        path = source.path / found.names[place]
        picture = read_image(path, size)
        if picture is None:
            raise VideoError(f"{path}: does not decode as a picture of {size}; copy it again")
        pictures.append(picture)
    return pictures


def _check_there(source: VideoSource, numbers: Sequence[int], places: Sequence[int], frames: int) -> None:
    for number, place in zip(numbers, places, strict=True):
        if place < 0:
            first, last = numbering_of(source).numbers([0, frames - 1])
            raise VideoError(
                f"{source.where}: no frame {number}; by the names of its pictures it has {frames} frames between "
                f"{first} and {last}"
            )


def kept_index(source: VideoSource) -> FrameIndex:
    """The index of a video, made when this process first asks for it, and again where the file has changed.

    Raises:
        VideoError: not a single frame decodes.
    """
    return _kept_index(source, *_state(source))


def kept_digest(source: VideoSource) -> str:
    """The digest of a video's content, taken when this process first asks for it, and again where the file has changed.

    Raises:
        VideoError: a file that cannot be read.
    """
    return _kept_digest(source, *_state(source))


@lru_cache(maxsize=KEPT_INDEXES)
def _kept_digest(source: VideoSource, length: int, changed: int) -> str:
    return digest(source)


@lru_cache(maxsize=KEPT_INDEXES)
def _kept_index(source: VideoSource, length: int, changed: int) -> FrameIndex:
    return index_frames(source)


def _state(source: VideoSource) -> tuple[int, int]:
    """What changes when a file is replaced: its length and the time of its last change, in nanoseconds."""
    if source.remote:  # its version is part of it
        return source.remote.length, 0
    try:
        stat = source.path.stat()
    except OSError as error:
        raise VideoError(f"{source.where}: {error.strerror}; expected a video that can be read") from error
    return stat.st_size, stat.st_mtime_ns


def _of_file(source: VideoSource, numbers: Sequence[int], index: FrameIndex) -> list[Picture]:
    _check_range(source, numbers, len(index.checksums))
    before = [entry for entry in index.entries if 0 < entry.frame <= numbers[0]]
    # Transport streams land behind the packet that was asked for: then the entry before it leads there.
    for entry in (*reversed(before[-2:]), None):
        pictures = _decoded_from(source, entry, numbers, index)
        if pictures is not None:
            return pictures
    raise VideoError(f"{source.where}: changed since it was indexed; run again with the file as it now is")


def _decoded_from(
    source: VideoSource, entry: Entry | None, numbers: Sequence[int], index: FrameIndex
) -> list[Picture] | None:
    """The frames `numbers`, which rise, decoded from `entry` or the start; None if they are not the same."""
    to_rgb = RgbConverter()
    wanted = set(numbers)
    pictures: list[Picture] = []
    with opened(source) as (container, stream), suppress(av.FFmpegError):
        for number, frame in _numbered(container, stream, entry, index):
            if number in wanted:
                pictures.append(to_rgb(frame))
                if zlib.crc32(pictures[-1].data) != index.checksums[number]:
                    return None
            if number >= numbers[-1]:
                break
    return pictures if len(pictures) == len(numbers) else None


def _numbered(
    container: InputContainer, stream: av.VideoStream, entry: Entry | None, index: FrameIndex
) -> Iterator[tuple[int, av.VideoFrame]]:
    """Frames from `entry` on, each with the number that it ought to have; none if the seek led elsewhere."""
    passed: list[KeyPacket] = []
    number = 0 if entry is None else -1
    if entry is not None:
        container.seek(entry.timestamp, stream=stream)
    for frame in decoded_frames(container, stream, passed):
        if number < 0:
            if not frame.key_frame or not passed:  # left over from the group of pictures before
                continue
            landed = [known.frame for known in index.entries if known.position == passed[0].position]
            if not landed:
                return
            number = landed[0]
        yield number, frame
        number += 1
