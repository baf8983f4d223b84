"""Small videos of every awkward kind, made on the spot; every picture shows its own number."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.index import FrameIndex, index_frames
from tinyhd_pipe.stages.video.sources import VideoSource

Picture = npt.NDArray[np.uint8]
BITS = 10
COUNT = 40
"""Frames of every video of `KINDS`."""
KINDS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "h264_b_frames.mp4": {"options": {"g": "10", "bf": "3"}},
    "h264_open_groups.mkv": {"options": {"bf": "2", "x264-params": "open-gop=1:keyint=8:scenecut=0"}},
    "h264_no_key_frames.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "h264_no_timestamps.avi": {"options": {"g": "12", "bf": "2"}},
    "h264.ts": {"options": {"g": "12", "bf": "2"}},
    "h264_10_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264_variable_rate.mp4": {"timestamps": [place**2 for place in range(COUNT)]},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg2_no_offsets.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mjpeg_full_range.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp8_hidden_frames.webm": {
        "codec": "libvpx",
        "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8", "deadline": "realtime"}},
    "animated.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "lossless.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
}


@dataclass(frozen=True)
class Made:
    """A video, its pictures as decoded from the start, and its index."""

    source: VideoSource
    pictures: list[Picture]
    index: FrameIndex


def numbered(number: int, height: int = 48, width: int = 80) -> Picture:
    """A picture that shows `number` as ten black or white fields in its upper half, over a colour ramp."""
    ramp = np.linspace(40, 200, width).astype(np.uint8)
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = np.stack([ramp, np.roll(ramp, number), ramp[::-1]], axis=-1)
    for bit, columns in enumerate(np.array_split(np.arange(width), BITS)):
        picture[: height // 2, columns] = 255 * (number >> bit & 1)
    return picture


def number_of(picture: Picture) -> int:
    """The number that a picture shows, however lossy the codec in between was."""
    fields = np.array_split(picture[: picture.shape[0] // 2], BITS, axis=1)
    return sum(int(field.mean() > 127) << bit for bit, field in enumerate(fields))


def pictures_of(source: VideoSource) -> list[Picture]:
    """All frames of a video of which none fails."""
    pictures = list(decode(source))
    return [picture for picture in pictures if picture is not None]


def source_of(path: Path) -> VideoSource:
    return VideoSource(path.name, path, is_frame_folder=path.is_dir())


def write(
    path: Path,
    pictures: Sequence[Picture],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    timestamps: Sequence[int] | None = None,
    matrix: Sequence[int] | None = None,
    muxer: dict[str, str] | None = None,
    tags: tuple[int, int] | None = None,
) -> Path:
    """Encode pictures at 25 frames a second by the suffix of `path`.

    Args:
        path: the file to write.
        pictures: (y, x, 3) uint8 RGB, or ready frames' planes where `pix_fmt` says so.
        codec: FFmpeg's name of an encoder.
        pix_fmt: what the encoder stores.
        options: of the encoder: "g" (frames from key to key), "bf" (B-frames), "x264-params", ...
        timestamps: one for each picture in 25ths of a second; regular ones by default.
        matrix: display matrix, nine numbers, for containers that have one.
        muxer: options of the container.
        tags: (matrix coefficients, colour range) written into the stream, both H.273 numbers.
    """
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = cast(av.VideoStream, container.add_stream(codec, rate=25, options=options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 25)
        if tags:
            stream.codec_context.colorspace, stream.codec_context.color_range = tags
        if matrix:
            stream.set_display_matrix(list(matrix))
        for place, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if tags:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=tags[0], dst_color_range=tags[1])
            frame.pts = timestamps[place] if timestamps else place
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path: Path) -> Path:
    """A file with a second of silence and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def break_packet(path: Path, place: int) -> Path:
    """Overwrite one packet, the `place`-th in decode order, with bytes that no decoder takes."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        payload = bytes(packets[place])
    data = path.read_bytes()
    assert data.count(payload) == 1
    path.write_bytes(data.replace(payload, b"\xff" * len(payload)))
    return path


def write_kinds(folder: Path) -> dict[str, Made]:
    """One video of every kind in `KINDS`, each showing 0 to COUNT - 1."""
    pictures = [numbered(number) for number in range(COUNT)]
    sources = {name: source_of(write(folder / name, pictures, **how)) for name, how in KINDS.items()}
    return {name: Made(source, pictures_of(source), index_frames(source)) for name, source in sources.items()}


def save(path: Path, picture: Picture, **options: Any) -> Path:
    """A picture as a file of its own, in a folder that is made for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)
    return path


def frame_folder(folder: Path, names: list[str]) -> VideoSource:
    """A video as a folder of pictures; the n-th name shows n."""
    for place, name in enumerate(names):
        save(folder / name, numbered(place))
    return VideoSource(folder.name, folder, is_frame_folder=True)


def touch(folder: Path, *names: str) -> None:
    """Empty files with these names below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
