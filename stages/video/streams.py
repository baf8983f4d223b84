"""Videos that come as they are made: a pipe, a camera, an address. Frames are numbered as they arrive.

    -                                 what is piped in: MPEG-TS, Matroska, y4m, whatever FFmpeg reads without seeking
    rtsp://…  http://…  udp://…       an address
    /dev/video0, v4l2:/dev/video0     a camera; FORMAT:NAME of FFmpeg's other devices, as avfoundation:0

The decision that is not obvious: nothing is decoded ahead of what is asked for, and in the calling thread, so that a
frame is worked on as soon as it has come and Ctrl-C is heard while none comes. An address or camera that sends nothing
for 10 seconds is over; a pipe is waited for. Sound is not read. Cost: a frame is held, and until their maps have come
the pictures that are drawn on.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any, BinaryIO, cast

import av
from av.container import InputContainer

from tinyhd_pipe.stages.video.decoding import Picture, RgbConverter, VideoFacts, film_of, reason_of
from tinyhd_pipe.stages.video.remote import public
from tinyhd_pipe.store.errors import SettingError, VideoError

_SILENCE = 10.0
"""Seconds without a packet after which an address or a camera has ended."""
_LOOKED_AT = {"analyzeduration": "1000000", "probesize": "1000000"}
"""Microseconds and bytes that FFmpeg reads to know what it has; of a live one its five seconds would all be delay."""
_DEVICE = re.compile(r"(?P<format>v4l2|avfoundation|dshow|gdigrab|x11grab|lavfi|fbdev|alsa):(?P<name>.+)")
_FILES = re.compile(r"(s3a?|gs|gcs|abfss?|az|adl|hdfs|webhdfs|oci|memory)://|[a-z0-9+]+://[^?]*\.tar(\?|$)")
"""URLs of object stores, and tars: they hold files, which are fetched (remote.py), and FFmpeg knows neither."""
_ADVICE = "expected a pipe, a camera or an address from which FFmpeg reads a video as it comes"


@dataclass(frozen=True)
class Stream:
    """One video as it comes."""

    id: str
    """Its name in what is made of it: `stdin`, or what is `said` with `-` for all but letters and digits."""
    address: str
    """`-`, a device or a URL."""
    format: str | None = None
    """FFmpeg's name of the device; None where the content tells."""
    pipe: int = 0
    """The file descriptor that `-` is read from."""

    @property
    def said(self) -> str:
        """The address as anyone may read it: without the passwords before an `@` or behind a `?`."""
        return public(self.address)


def stream_of(text: str) -> Stream | None:
    """The stream that is meant by a word of the command line; None where it is a path. Nothing is opened."""
    if text == "-":
        return Stream("stdin", text)
    name = re.sub(r"[^A-Za-z0-9]+", "-", public(text)).strip("-")[:100]
    if re.match(r"[a-z][a-z0-9+]+://", text) and not _FILES.match(text):
        return Stream(name, text)
    if device := _DEVICE.fullmatch(text):
        return Stream(name, device["name"], device["format"])
    return Stream(name, text, "v4l2") if re.fullmatch(r"/dev/video\d+", text) else None


class LiveDecoding(Iterator[Picture]):
    """The frames of a stream, (y, x, 3) uint8 RGB, upright, all of one size; each is given once it is whole."""

    def __init__(self, stream: Stream) -> None:
        """Waits for the first frame. Raises VideoError where none comes, SettingError where nothing is piped in."""
        self.problem: str | None = None
        """One line on how it ended, None if it ended as it should; final when the iteration has ended."""
        self.shown: Fraction | None = None
        """When the frame that was given last is shown, in seconds by the stream's clock."""
        self._pipe = _Pipe(stream.pipe)
        self._container = _open(stream, self._pipe)
        self._stream = film_of(stream.said, self._container)
        frames = self._decoded()
        first = next(frames, None)
        if first is None:
            self.close()
            raise VideoError(f"{stream.said}: {self.problem or 'ended without a frame'}; {_ADVICE}")
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.facts = VideoFacts(1, float(rate) if rate else None, first[0].shape[0], first[0].shape[1])
        self._frames = chain([first], frames)

    def __next__(self) -> Picture:
        picture, self.shown = next(self._frames)
        return picture

    def close(self) -> None:
        self._container.close()

    def _decoded(self) -> Iterator[tuple[Picture, Fraction | None]]:
        to_rgb, size, count = RgbConverter(), None, 0
        try:
            for packet in self._container.demux(self._stream):
                self._pass_on_interrupt()
                for frame in packet.decode():
                    picture = to_rgb(frame)
                    size = size or picture.shape
                    if picture.shape != size:
                        self.problem = f"ends after {count} frames, the next one is of another size"
                        return
                    count += 1
                    yield picture, None if frame.pts is None or not frame.time_base else frame.pts * frame.time_base
        except Exception as error:  # whatever FFmpeg or PyAV raises is about this stream alone
            self._pass_on_interrupt()
            self.problem = f"ends after {count} frames ({reason_of(error)})"
        self._pass_on_interrupt()

    def _pass_on_interrupt(self) -> None:
        if self._pipe.interrupted:
            raise self._pipe.interrupted


class _Pipe:
    """What is piped in, read as it comes: PyAV asks files that can be sought in to do so, which a pipe cannot."""

    def __init__(self, descriptor: int) -> None:
        self.interrupted: KeyboardInterrupt | None = None
        """Ctrl-C while nothing came: raised in here, FFmpeg would take it for silence and go on reading."""
        self._descriptor = descriptor

    def read(self, count: int) -> bytes:
        try:
            return b"" if self.interrupted else os.read(self._descriptor, count)
        except KeyboardInterrupt as interrupt:
            self.interrupted = interrupt
            return b""


def _open(stream: Stream, pipe: _Pipe) -> InputContainer:
    how: dict[str, Any] = {"options": dict(_LOOKED_AT), "metadata_errors": "replace"}
    try:
        if stream.address == "-":
            if os.isatty(stream.pipe):
                raise SettingError(
                    "-: nothing is piped in; expected a video, as in: cat film.ts | tinyhd-pipe predict -"
                )
            piped: InputContainer = av.open(cast(BinaryIO, pipe), mode="r", **how)
            return piped
        container: InputContainer = av.open(stream.address, format=stream.format, timeout=_SILENCE, **how)
        return container
    except (av.FFmpegError, OSError, ValueError) as error:
        if pipe.interrupted:
            raise pipe.interrupted from None
        raise VideoError(f"{stream.said}: {reason_of(error)}; {_ADVICE}") from error
