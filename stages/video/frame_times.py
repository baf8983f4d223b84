"""When each frame of a video is shown: what a gaze table's times are held against.

The decision that is not obvious: times come from the packets where they say any, so that a video of variable rate is
looked up by what was on the screen; by frames a second where they do not (AVI often does not) or are out of order
beyond repair. Frames stay what they are everywhere, their place in the film: times only find them. Cost: the packets
are read and nothing is decoded, 5 ms for 800 frames of 640x360.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePath

import av
import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.video.decoding import opened, probe
from tinyhd_pipe.stages.video.sources import VideoSource, frame_names
from tinyhd_pipe.store.errors import VideoError


@dataclass(frozen=True, eq=False)
class ShownFrames:
    """The frames of a video as people saw them."""

    name: str
    """The video's path."""
    starts: NDArray[np.float64]
    """(frame + 1,) seconds from the first frame at which each is first shown, and at its end the end of the last."""
    size: tuple[int, int]
    """(y, x) of the upright picture, pixels."""
    numbers: NDArray[np.int64]
    """(frame,) their absolute numbers, which rise."""
    labels: tuple[str, ...]
    """(frame,) what a file about each frame is called, without its ending: as the pictures of a folder, else its number
    from 1."""
    timed: bool = True
    """False where nothing says how fast the video is shown: `starts` are frames then."""

    @property
    def frames(self) -> int:
        return len(self.numbers)

    def at(self, seconds: NDArray[np.float64]) -> NDArray[np.int64]:
        """The places of the frames that are shown at these times; -1 before the first, `frames` after the last."""
        return np.searchsorted(self.starts, seconds, side="right") - 1


def shown_frames(source: VideoSource, *, fps: float | None = None) -> ShownFrames:
    """When the frames of a video are shown, and how large they are.

    Arguments:
        fps: frames a second, instead of what the video says; a folder of pictures says nothing.

    Raises VideoError for what is no video.
    """
    facts = probe(source)
    size = (facts.height, facts.width)
    rate = fps or facts.fps
    times = None if source.is_frame_folder else _times_of_packets(source)
    numbers, labels = _names_of_folder(source) if times is None else _names_of_file(len(times))
    starts = np.append(numbers, numbers[-1] + 1) / (rate or 1.0)
    if times is not None and fps is None and _increases(times):
        last = np.median(np.diff(times)) if len(times) > 1 else 1 / (rate or 30.0)
        starts = np.append(times, times[-1] + last)
    return ShownFrames(source.where, starts, size, numbers, labels, timed=rate is not None)


def _names_of_file(frames: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    return np.arange(frames), tuple(f"{frame + 1:04d}" for frame in range(frames))


def _names_of_folder(source: VideoSource) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Numbers and names as maps of its pictures must have them to be found again."""
    found = frame_names(source.path)
    numbers = found.numbering.numbers(np.arange(len(found.names)))
    if not found.numbered:
        return numbers, tuple(PurePath(name).stem for name in found.names)
    return numbers, tuple(f"{number + found.base:04d}" for number in numbers.tolist())


def _increases(times: NDArray[np.float64]) -> bool:
    return bool(len(times)) and bool(np.isfinite(times).all()) and bool((np.diff(times) > 0).all())


def _times_of_packets(source: VideoSource) -> NDArray[np.float64]:
    """(frame,) seconds from the first one, in the order in which they are shown; NaN where packets do not say."""
    stamps = []
    with opened(source) as (container, stream):
        base = float(stream.time_base or Fraction(1, av.time_base))
        try:
            stamps = [packet.pts for packet in container.demux(stream) if packet.size]
        except av.FFmpegError as error:
            if not stamps:
                raise VideoError(f"{source.where}: no packet of it can be read ({error.strerror})") from error
    times = np.sort(np.array([np.nan if stamp is None else stamp * base for stamp in stamps]))
    return times - times[0] if len(times) else times
