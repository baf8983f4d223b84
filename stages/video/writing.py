"""Writing a video, for sample data and previews: equal frames give equal bytes, and a file is whole or not there."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from tinyhd_pipe.store.errors import VideoError

# Good to look at and quick to make; a key frame every 12 frames, as in DHF1K, so that clips are cheap to
# read.
_ENCODERS = {
    ".avi": ("mpeg4", {"qmin": "2", "qmax": "3"}),
    # Without the second option x264 takes shortcuts that differ with the processor, and even with where its buffers
    # happen to lie: one sample clip of forty came out in two ways, and everything learned from it with it.
    ".mp4": ("libx264", {"crf": "18", "x264-params": "cpu-independent=1"}),
}
_KEY_FRAME_EVERY = 12
_BT601_TAG = 6  # MatrixCoefficients of ITU-T H.273


def write_video(path: str | Path, frames: Iterable[npt.NDArray[np.uint8]], *, fps: float = 30.0) -> int:
    """Write frames as a video, MPEG-4 in `.avi` or H.264 in `.mp4` by the suffix of `path`; lossy, BT.601.

    Equal frames give equal bytes with one build of FFmpeg: one thread, no date in the file. The file is there
    in full or not at all. Frames keep their size: where height or width is odd, `.mp4` stores colour at the
    full resolution, which browsers do not play.

    Args:
        path: the file to write, or to write over.
        frames: at least one, each (y, x, 3) uint8 RGB, all of one size.
        fps: frames a second.

    Returns:
        How many frames were written.

    Raises:
        VideoError: another suffix, no frame at all, or frames of different sizes.
    """
    path = Path(path)
    if path.suffix.lower() not in _ENCODERS:
        raise VideoError(f"{path}: cannot write a video with this suffix; use {' or '.join(_ENCODERS)}")
    unfinished = path.with_name(f".{path.stem}.partial{path.suffix.lower()}")
    try:
        written = _encode(unfinished, frames, fps)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return written


def _encode(path: Path, frames: Iterable[npt.NDArray[np.uint8]], fps: float) -> int:
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise VideoError(f"{path}: there is no frame to write; expected at least one")
    codec, options = _ENCODERS[path.suffix]
    to_yuv = VideoReformatter()
    with av.open(str(path.absolute()), "w", options={"fflags": "+bitexact"}) as container:
        rate = Fraction(fps).limit_denominator(1001)
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        context = stream.codec_context
        context.height, context.width = first.shape[:2]
        is_odd = context.height % 2 or context.width % 2
        context.pix_fmt = "yuv444p" if is_odd and codec == "libx264" else "yuv420p"
        context.gop_size = _KEY_FRAME_EVERY
        context.thread_count = 1  # how work is split among threads shows in the bytes
        context.colorspace, context.color_range = _BT601_TAG, ColorRange.MPEG
        count = 0
        for picture in chain([first], frames):
            if picture.shape != first.shape:
                raise VideoError(f"{path}: frame {count} is {picture.shape}; expected {first.shape} as before")
            frame = to_yuv.reformat(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"),
                format=context.pix_fmt,
                dst_colorspace=Colorspace.ITU601,
                dst_color_range=ColorRange.MPEG,
                threads=1,
            )
            frame.pts, frame.time_base = count, 1 / rate
            container.mux(stream.encode(frame))
            count += 1
        container.mux(stream.encode(None))
    return count
