"""Decoding: a video becomes upright RGB frames, numbered from 0 as they come, or by the names of their files.

The decision that is not obvious: one decoder thread, always, and the first packet that does not decode ends
the video. With frame threading a broken packet is reported frames too late (a file of 30 good frames gave 31
with two threads and 33 with four), and what follows a break is built on missing references. With this rule
the number of frames and every pixel depend on the file alone, and a frame's number is its place in the film (in a
folder of pictures the number in its name, numbers.py). Neither timestamps nor the header's frame count are believed.

Cost: a 640x360 MPEG-4 frame takes half a millisecond to decode and convert; one frame is held at a time.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.buffer import Buffer
from av.container import InputContainer
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from tinyhd_pipe.stages.video.cut_off import cut_off
from tinyhd_pipe.stages.video.frame_folders import Picture as Picture
from tinyhd_pipe.stages.video.frame_folders import broken_pictures, folder_size, read_image
from tinyhd_pipe.stages.video.sources import VideoSource, at_hand, frame_files, frame_names, is_lfs_pointer
from tinyhd_pipe.store.errors import TinyHDError, VideoError
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering

# MatrixCoefficients of ITU-T H.273 as frames are tagged with them; the others, and none, are read as BT.601.
_BT2020 = Colorspace.BT2020
_MATRICES = {1: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M, 9: _BT2020, 10: _BT2020}

_NO_FILM = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_ADVICE = "expected a video that FFmpeg decodes: convert it again or leave it out"


@dataclass(frozen=True)
class VideoFacts:
    """What a video says about itself before it is decoded."""

    frames: int
    """An estimate from the header, at least 1, for plans and progress only: some are wrong by 100 times."""
    fps: float | None
    """Frames a second; None where it is not said (a folder of pictures never says it)."""
    height: int
    """Pixels of the upright picture."""
    width: int


def probe(source: VideoSource) -> VideoFacts:
    """What the video says about itself, and the size of its first frame, which alone tells how it is turned.

    Raises:
        VideoError: not a video, or its first frame does not decode.
    """
    if source.is_frame_folder:
        return VideoFacts(len(frame_files(source)), None, *folder_size(source))
    with opened(source) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        seconds = (stream.duration or 0) * (stream.time_base or Fraction(0))
        seconds = seconds or Fraction(container.duration or 0, av.time_base)
        frames = stream.frames or round(seconds * (rate or 0)) or 1
    first = next(decode(source))
    assert first is not None, "only frames of a folder fail one by one"
    return VideoFacts(frames, float(rate) if rate else None, first.shape[0], first.shape[1])


def count_packets(source: VideoSource) -> int:
    """How many packets of pictures the video holds: nearly always its frames, to a few that are broken or hidden.

    Nothing is decoded, so it costs one read of the file (5 ms for 800 frames at 640x360); for plans and progress.

    Raises:
        VideoError: not a video.
    """
    if source.is_frame_folder:
        return len(frame_files(source))
    count = 0
    with opened(source) as (container, stream), suppress(av.FFmpegError):
        for packet in container.demux(stream):
            count += packet.size > 0
    return count


class Decoding(Iterator[Picture | None]):
    """The frames of one video in order, each once; afterwards, what went wrong on the way.

    Items are (y, x, 3) uint8 pictures, RGB, upright, all of one size; or None for a frame that is there and
    does not decode (a broken picture in a frame folder), which keeps its place.
    """

    def __init__(self, source: VideoSource) -> None:
        self.frames = 0
        """Frames given so far, those that failed included."""
        self.problem: str | None = None
        """One line on what did not decode, None if all did; final when the iteration has ended."""
        self.shown: Fraction | None = None
        """When the frame that was given last is shown, in seconds by the file's clock; None where it does not say."""
        self.key_packets: list[KeyPacket] = []
        """The packets so far from which decoding can start, in decode order."""
        self.key_frames: list[int] = []
        """Frames so far that the decoder calls key frames; as a rule the n-th is in the n-th key packet."""
        self.numbering: Numbering = AS_THEY_COME
        """The absolute numbers of the frames; known once the first one was given."""
        self._pictures = self._of_folder(source) if source.is_frame_folder else self._of_file(source)

    def __next__(self) -> Picture | None:
        picture = next(self._pictures)
        self.frames += 1
        return picture

    def _of_file(self, source: VideoSource) -> Iterator[Picture | None]:
        to_rgb = RgbConverter()
        size = None
        end = 0.0
        with opened(source) as (container, stream):
            try:
                for frame in decoded_frames(container, stream, self.key_packets):
                    end = max(end, _end_of(frame))
                    picture = to_rgb(frame)
                    size = size or picture.shape
                    if picture.shape != size:
                        self.problem = f"ends after {self.frames} frames, the next one is of another size"
                        return
                    self.shown = None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
                    if frame.key_frame:
                        self.key_frames.append(self.frames)
                    yield picture
                self.problem = cut_off(end, Path(container.name), container, stream)
            except Exception as error:  # whatever FFmpeg or PyAV raises is about this video alone
                reason = f"the next one does not decode ({reason_of(error)})"
                self.problem = f"ends after {self.frames} frames, {reason}"
        if not self.frames:
            raise VideoError(f"{source.where}: {self.problem or 'it holds no frame'}; {_ADVICE}")

    def _of_folder(self, source: VideoSource) -> Iterator[Picture | None]:
        size = folder_size(source)
        found = frame_names(source.path)
        self.numbering = found.numbering
        failed = []
        for path in (source.path / name for name in found.names):
            picture = read_image(path, size)
            if picture is None:
                failed.append(path)
            yield picture
        if failed:
            self.problem = broken_pictures(failed, self.frames)


def decode(source: VideoSource) -> Decoding:
    """Decode a video from its first frame to its last.

    Colours are converted by the frame's own tags: the matrix that is named (BT.601 where none is), full range
    where it is tagged or implied by the pixel format, limited range otherwise. The picture is turned and
    mirrored as its display matrix says. Every decoded frame counts, whatever its timestamp.

    Returns:
        An iterator of (y, x, 3) uint8 pictures, None for a frame that failed. Its `problem` tells at the end
        what did not decode; all that decoded before is given.

    Raises:
        VideoError: while iterating, when not a single frame decodes.
    """
    return Decoding(source)


@contextmanager
def opened(source: VideoSource) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """A video file's container and the video stream that is the film, set to one decoder thread.

    Raises:
        VideoError: no such file, an empty one, not a video, sound only, or a codec that this FFmpeg lacks; and
            whatever else a library raises inside the context, because it is about this video and must not end the
            work on others. Only `av.FFmpegError` passes, for callers that keep what came before it.
    """
    try:
        with at_hand(source) as path, _container(path, source.where) as container:
            yield container, film_of(source.where, container)
    except (TinyHDError, av.FFmpegError):
        raise
    except Exception as error:
        raise VideoError(f"{source.where}: {reason_of(error)}; {_ADVICE}") from error


def _container(path: Path, where: str) -> InputContainer:
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"{where}: the file is empty; {_ADVICE}")
        if is_lfs_pointer(path):
            raise VideoError(f"{where}: a Git LFS pointer, not the video itself; run git lfs pull")
        # An absolute path, so that no name (a:b.mp4) is taken for a network protocol.
        return av.open(str(path.absolute()), metadata_errors="replace")
    except OSError as error:
        raise VideoError(f"{where}: {error.strerror}; {_ADVICE}") from error
    except av.FFmpegError as error:
        raise VideoError(f"{where}: not a video ({error.strerror}); {_ADVICE}") from error


def film_of(name: object, container: InputContainer) -> av.VideoStream:
    """The video stream that people watch: of several, the largest picture; the first of those that are equal.

    Not FFmpeg's "best" one, which depends on guesses that it makes from a few packets. Covers, thumbnails and streams
    of a single picture are no films beside one that moves. Raises VideoError, which begins with `name`, for none.
    """
    streams = [s for s in container.streams.video if not s.disposition & _NO_FILM]
    if not streams:
        raise VideoError(f"{name}: no moving picture in it; {_ADVICE}")
    film = max(streams, key=lambda stream: (stream.frames != 1, _pixels(stream)))
    if cast(object, film.codec_context) is None:
        raise VideoError(f"{name}: this FFmpeg has no decoder for its codec; {_ADVICE}")
    film.codec_context.thread_count = 1
    return film


def _pixels(stream: av.VideoStream) -> int:
    """0 where there is no decoder that would know."""
    context = cast(av.VideoCodecContext | None, stream.codec_context)
    return context.width * context.height if context else 0


def reason_of(error: Exception) -> str:
    """What a library's exception says, in one line."""
    said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    return " ".join(str(said).split())


@dataclass(frozen=True)
class KeyPacket:
    """A packet from which decoding can start."""

    timestamp: int | None
    """What to seek to, in the stream's time base."""
    position: int | None
    """Byte offset in the file."""


def decoded_frames(
    container: InputContainer, stream: av.VideoStream, key_packets: list[KeyPacket]
) -> Iterator[av.VideoFrame]:
    """Frames from where the container stands, in display order, to its end or its first broken packet.

    Key packets are appended to `key_packets` as they go by.

    Raises:
        av.FFmpegError: a packet does not decode; raised after all frames that the packets before it give.
    """
    try:
        for packet in container.demux(stream):
            if packet.is_keyframe and packet.size:
                key_packets.append(KeyPacket(packet.dts if packet.pts is None else packet.pts, packet.pos))
            yield from packet.decode()
    except av.FFmpegError:
        with suppress(av.FFmpegError):
            yield from stream.codec_context.decode(None)
        raise


def _end_of(frame: av.VideoFrame) -> float:
    """When a frame's display ends, in seconds; 0 where it has no timestamp."""
    if frame.pts is None or frame.time_base is None:
        return 0.0
    return float((frame.pts + frame.duration) * frame.time_base)


class RgbConverter:
    """Turns decoded frames into upright RGB; one for a whole video, as each new swscale context may leak."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Picture:
        """(y, x, 3) uint8; but for the display matrix the bits of `frame.to_ndarray(format="rgb24")`."""
        converted = self._reformatter.reformat(
            frame,
            format="rgb24",
            src_colorspace=_MATRICES.get(frame.colorspace, Colorspace.ITU601),
            dst_colorspace=Colorspace.ITU601,  # without effect on RGB; given so that no default is asked
            # Formats with a range of their own (RGB, grey, yuvj) keep it, whatever is said here.
            src_color_range=ColorRange.JPEG if frame.color_range == ColorRange.JPEG else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return np.ascontiguousarray(_turned(cast(Picture, converted.to_ndarray()), frame))


def _turned(picture: Picture, frame: av.VideoFrame) -> Picture:
    """The picture as the frame's display matrix wants it seen.

    PyAV lists a frame's side data as a whole, and raises where it has no name for one kind (EXIF, in the pictures of
    cameras). Then the angle is still to be had, which tells all but a mirroring.
    """
    try:
        matrix = cast(Buffer | None, frame.side_data.get("DISPLAYMATRIX"))
    except ValueError:
        return np.rot90(picture, round(frame.rotation / 90))
    return picture if matrix is None else upright(picture, np.frombuffer(bytes(matrix), np.int32))


def upright(picture: Picture, matrix: npt.NDArray[np.int32]) -> Picture:
    """Turn and mirror a picture by its display matrix, to the nearest quarter turn.

    The matrix (ISO/IEC 14496-12, 6.2.2: a b u c d v x y w) sends the pixel in column x of row y to the column
    x' = a x + c y and the row y' = b x + d y, up to a shift.
    """
    a, b, c, d = (int(matrix[place]) for place in (0, 1, 3, 4))
    if abs(b) + abs(c) > abs(a) + abs(d):  # x' comes from y: the axes change places
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
