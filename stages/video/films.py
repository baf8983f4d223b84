"""A video made of another one: other pictures at the same times, with the original's sound.

The decision that is not obvious: nothing is said of a frame rate. Every picture is shown at the time at which the
original's is, by its own timestamps, so that films of variable rate keep in step with their sound; where timestamps
are missing or do not rise, a frame follows the one before it at the rate that the header says. Sound is copied packet
by packet, and only what MP4 cannot hold is encoded again, as AAC.

Cost: encoding, some 5 ms for a frame of 640x360; a few packets are held.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.audio.resampler import AudioResampler
from av.container import InputContainer, OutputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from tinyhd_pipe.stages.video.decoding import opened
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.stages.video.streams import Stream

if TYPE_CHECKING:
    from av.packet import Packet as AnyPacket

    Packet = AnyPacket[av.AudioStream]

TICKS = 90_000
"""Of the clock of pictures in a second; divides by all usual rates."""
_BT601_TAG = 6  # MatrixCoefficients of ITU-T H.273
AddPicture = Callable[[NDArray[np.uint8], Fraction | None], None]
"""Takes a picture, uint8 (y, x, 3) RGB of even sides or (y, x) grey, and when the original's is shown, in seconds."""


@dataclass(frozen=True)
class Kind:
    """How pictures are encoded."""

    codec: str
    pix_fmt: str
    options: tuple[tuple[str, str], ...] = ()
    sound: bool = False


WATCHABLE = Kind("libx264", "yuv420p", (("crf", "20"), ("preset", "veryfast")), sound=True)
"""MP4 that every player and browser shows."""
LOSSLESS_GREY = Kind("ffv1", "gray")
"""Matroska, every pixel as it was given."""


@contextmanager
def film_like(source: VideoSource | Stream, path: Path, kind: Kind, fps: float) -> Iterator[AddPicture]:
    """Writes a film to `path`, which is there when it is whole.

    Ctrl-C leaves what there is so far beside it, as NAME.partial.SUFFIX, which plays.

    Arguments:
        fps: frames a second, where timestamps are missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    keep = False
    try:
        with av.open(str(partial.absolute()), "w") as container:
            film = _Film(container, kind, Fraction(fps).limit_denominator(1001))
            try:
                with _sound_of(source, container, wanted=kind.sound) as (film.sound_until, start):
                    film.start = start
                    yield film.add
                    film.end(all_sound=True)
            except KeyboardInterrupt:
                keep = film.count > 0
                film.end(all_sound=False)
                raise
        partial.replace(path)
    finally:
        if not keep:
            partial.unlink(missing_ok=True)


class _Film:
    """A stream of pictures in a container, and where it stands."""

    def __init__(self, container: OutputContainer, kind: Kind, rate: Fraction) -> None:
        self.count = 0
        self.start: Fraction | None = None
        """Time in the original at which the film begins; None: with its first picture."""
        self.sound_until: Callable[[Fraction | None], None] = lambda time: None
        self._container, self._kind, self._rate = container, kind, rate
        self._stream = cast(av.VideoStream, container.add_stream(kind.codec, rate=rate, options=dict(kind.options)))
        self._tick = -1
        self._to_yuv = VideoReformatter()

    def add(self, picture: NDArray[np.uint8], shown: Fraction | None) -> None:
        if not self.count:
            self._begin(picture)
        tick = self._tick_of(shown)
        frame = self._frame(picture)
        frame.pts, frame.time_base, frame.duration = tick, Fraction(1, TICKS), round(TICKS / self._rate)
        self._container.mux(self._stream.encode(frame))
        self._tick = tick
        self.count += 1
        self.sound_until(Fraction(tick, TICKS))

    def end(self, *, all_sound: bool) -> None:
        if self.count:
            self._container.mux(self._stream.encode(None))
            self.sound_until(None if all_sound else Fraction(self._tick, TICKS))

    def _begin(self, picture: NDArray[np.uint8]) -> None:
        context = self._stream.codec_context
        context.height, context.width = picture.shape[:2]
        context.pix_fmt = self._kind.pix_fmt
        context.time_base = Fraction(1, TICKS)
        if self._kind.pix_fmt != "gray":
            context.colorspace, context.color_range = _BT601_TAG, ColorRange.MPEG

    def _tick_of(self, shown: Fraction | None) -> int:
        if self.start is None:
            self.start = shown or Fraction(0)
        if shown is not None and (tick := round((shown - self.start) * TICKS)) > self._tick:
            return tick
        return self._tick + round(TICKS / self._rate) if self.count else 0

    def _frame(self, picture: NDArray[np.uint8]) -> av.VideoFrame:
        if picture.ndim == 2:
            return av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="gray")
        return self._to_yuv.reformat(
            av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
            format=self._kind.pix_fmt,
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )


@contextmanager
def _sound_of(
    source: VideoSource | Stream, out: OutputContainer, *, wanted: bool
) -> Iterator[tuple[Callable[[Fraction | None], None], Fraction | None]]:
    """What copies the original's sound up to a time (None: to its end), and when the original begins (None: with its
    first picture)."""
    if isinstance(source, Stream) or source.is_frame_folder:
        yield (lambda time: None), None
        return
    with opened(source) as (container, film):
        start = Fraction(container.start_time or 0, av.time_base)
        sound = container.streams.best("audio", related=film) if wanted else None
        if not isinstance(sound, av.AudioStream) or cast(object, sound.codec_context) is None:
            yield (lambda time: None), start
            return
        packets = _packets(container, sound, out, start)
        waiting: list[tuple[Fraction, Packet]] = []

        def until(time: Fraction | None) -> None:
            while True:
                if not waiting and (coming := next(packets, None)) is not None:
                    waiting.append(coming)
                if not waiting or (time is not None and waiting[0][0] > time):
                    return
                out.mux(waiting.pop()[1])

        yield until, start


def _packets(
    container: InputContainer, sound: av.AudioStream, out: OutputContainer, start: Fraction
) -> Iterator[tuple[Fraction, "Packet"]]:
    """(when it is heard, packet of the new file): as they are where MP4 takes them, else encoded again.

    The new stream is made when this is called, before the first picture is written.
    """
    if sound.codec_context.codec.canonical_name in out.supported_codecs:
        return _copied(container, sound, out.add_stream_from_template(sound), start)
    encoder = out.add_stream("aac", rate=sound.codec_context.rate)
    return _encoded(container, sound, encoder, start)


def _copied(
    container: InputContainer, sound: av.AudioStream, copy: av.AudioStream, start: Fraction
) -> Iterator[tuple[Fraction, "Packet"]]:
    base = sound.time_base or Fraction(1, av.time_base)
    with suppress(av.FFmpegError):  # what is broken ends the sound, not the film
        for packet in container.demux(sound):
            if packet.dts is None or packet.pts is None:
                continue
            packet.pts -= round(start / base)
            packet.dts -= round(start / base)
            packet.stream = copy
            yield packet.pts * base, packet


def _encoded(
    container: InputContainer, sound: av.AudioStream, encoder: av.AudioStream, start: Fraction
) -> Iterator[tuple[Fraction, "Packet"]]:
    context = encoder.codec_context
    resampler = AudioResampler(format="fltp", layout=sound.codec_context.layout, rate=sound.codec_context.rate)
    with suppress(av.FFmpegError):
        for frame in container.decode(sound):
            if frame.pts is not None and frame.time_base:
                frame.pts -= round(start / frame.time_base)
            for resampled in resampler.resample(frame):
                for packet in context.encode(resampled):
                    packet.stream = encoder
                    yield _time_of(packet), packet
    for packet in context.encode(None):
        packet.stream = encoder
        yield _time_of(packet), packet


def _time_of(packet: "Packet") -> Fraction:
    return (packet.pts or 0) * (packet.time_base or Fraction(1, av.time_base))
