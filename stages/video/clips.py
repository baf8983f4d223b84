"""Clip arithmetic: which frames feed which map, in absolute frame numbers counted from 0.

The decision that is not obvious: a map belongs to the LAST frame of the clip that made it. At the head of a
video, where no 16 frames lie behind, the teacher sees the frames ahead, reversed in time, so that the frame
itself still comes last:

    frames 60:   0 . . . 4 . . . . . . . . . . 15. . . 19. . . . . . . . . .30. . . . . . 59
    teacher, map 4           4 <----------------------- 19        fed as 19, 18, ..., 5, 4
    teacher, map 30                                 15 ----------------------> 30
    student, map 4   0 0 0 0 0 0 0 0 0 0 0 0 1 2 3 4              frame 0 repeats

Everything here is whole numbers: no pixels, no timestamps. Cost: none worth a figure; `sliding_windows` holds
at most 2 * window - 2 frames (30 for 16) whatever the length of the stream.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tinyhd_pipe.store.errors import DataError

WINDOW = 16
"""Frames that both networks see at once."""

Frames = npt.NDArray[np.int64]
Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Clip:
    """What one training sample reads, and which maps it is compared with."""

    frames: Frames
    """(window,) absolute frames fed to the student, in order of time; frame 0 repeats before the start."""
    targets: Frames
    """(n,) absolute frames whose teacher maps are the targets: n = 1, or 1 + 15 // every for 16 outputs."""
    outputs: Frames
    """(n,) which of the student's outputs meets which target: `[0]`, or slots of 0..15 for 16 outputs."""


def teacher_window(frame: int, frames: int, window: int = WINDOW) -> Frames:
    """The frames that feed the teacher's maps of `frame`, in the order in which the network sees them.

        frame >= window - 1:   frame-15 ... frame-1, frame            (frame 20:  5 ... 19, 20)
        the head:              frame+15 ... frame+1, frame            (frame 2:  17 ... 3, 2)
        head of a short video: clamped, the last frame repeats        (frame 2 of 5:  4 ... 4, 4, 3, 2)

    Args:
        frame: the frame whose maps are wanted, 0 <= frame < frames.
        frames: length of the video.
        window: frames in a window.

    Returns:
        (window,) int64; the last entry is always `frame`.

    Raises:
        ValueError: `frame` lies outside the video.
    """
    if not 0 <= frame < frames:
        raise ValueError(f"frame {frame} lies outside a video of {frames} frames: use 0 to {frames - 1}")
    behind = np.arange(window - 1, -1, -1, dtype=np.int64)
    if frame >= window - 1:
        return frame - behind
    return np.minimum(frame + behind, frames - 1)


def student_window(frame: int, window: int = WINDOW) -> Frames:
    """The frames that feed a student whose last output is `frame`: (window,) int64, the head repeats frame 0.

        frame 20:   5 6 ... 19 20          frame 2:   0 0 ... 0 1 2

    Raises:
        ValueError: `frame` is negative.
    """
    if frame < 0:
        raise ValueError(f"frame {frame} is negative: frames count from 0")
    return np.maximum(np.arange(frame - window + 1, frame + 1, dtype=np.int64), 0)


def sliding_windows(
    frames: Iterable[Item], *, every: int = 1, window: int = WINDOW
) -> Iterator[tuple[int, list[Item]]]:
    """Teacher windows of a stream whose length nobody knows yet; the content is that of `teacher_window`.

        stream    0 . . . . . . . . . . . . . . 15. . . . . . . . . . . . . 29 ...
        frame 0   0 <-------------------------- 15          given as soon as frame 15 is here
        frame 14                             14 <-------------------------- 29
        frame 15  0 --------------------------> 15          so frames 0 to 29 are held once, the most ever

    Args:
        frames: the frames of one video from its first, each taken exactly once and never before it is needed.
        every: maps are wanted for frames 0, every, 2 * every, ...
        window: frames in a window.

    Yields:
        (frame, [window items in the order in which the network sees them]), by rising frame; nothing for an
        empty stream.

    Raises:
        ValueError: `every` or `window` is less than 1.
    """
    if every < 1 or window < 1:
        raise ValueError(f"every={every}, window={window}: both must be at least 1")
    source = iter(frames)
    held: deque[Item] = deque()
    first = 0  # absolute number of held[0]
    for frame in count(0, every):
        ahead = frame + window - 1 if frame < window - 1 else frame
        lowest = max(frame - window + 1, 0)  # no later window looks back further
        while first + len(held) <= ahead:
            try:
                held.append(next(source))
            except StopIteration:
                break
            while held and first < lowest:
                held.popleft()
                first += 1
        seen = first + len(held)
        if frame >= seen:  # the stream has ended before this frame
            return
        yield frame, [held[index - first] for index in teacher_window(frame, seen, window).tolist()]


def training_clip(
    frames: int,
    *,
    outputs: int,
    rng: np.random.Generator,
    every: int = 1,
    target_lag: int = 0,
    usable: npt.NDArray[np.bool_] | None = None,
    window: int = WINDOW,
) -> Clip:
    """A random clip for training whose targets are maps that were dumped.

        frames        s . . . . . . . . . . . . . . e        window of 16 inside the video
        one output                                  T        target e
        16 outputs    T T T T T T T T T T T T T T T T        every = 1: all 16 frames
        16 outputs    T . . . . T . . . . T . . . . T        every = 5: those that were dumped, e among them

    Clips lie wholly inside the video where it is long enough. In a shorter one frame 0 repeats before the
    start, as at inference, down to a video of one frame; one output then takes any dumped frame, 16 outputs the clip
    with the least padding (a repeat of frame 0 has frame 0's map as its target).

    Args:
        frames: length of the video, at least 1.
        outputs: 1, or `window` for a network with one map for each frame.
        rng: the only source of randomness; exactly one number is drawn.
        every: the dump's step: maps exist for frames 0, every, 2 * every, ...
        target_lag: frames by which targets lag behind the frame they are compared with; 0 aligns them, 1 is
            what the published 16-output training does.
        usable: (frames,) bool, False where a map is missing for another reason (a frame that did not decode).
        window: frames in a clip.

    Raises:
        ValueError: an argument out of range.
        DataError: no clip of this video has all its target maps.
    """
    if frames < 1 or every < 1 or target_lag < 0 or outputs not in (1, window):
        raise ValueError(
            f"frames={frames}, every={every}, target_lag={target_lag}, outputs={outputs}: "
            f"expected frames and every >= 1, target_lag >= 0 and outputs 1 or {window}"
        )
    back = np.zeros(1, np.int64) if outputs == 1 else np.arange(window - 1, -1, -1, dtype=np.int64)[-1::-every][::-1]
    ends = np.arange(frames, dtype=np.int64)
    ends = ends[np.maximum(ends - target_lag, 0) % every == 0]
    if usable is not None:
        ends = ends[usable[np.maximum(ends[:, None] - target_lag - back, 0)].all(axis=1)]
    if ends.size == 0:
        raise DataError(f"no clip of this video of {frames} frames has all its target maps: leave the video out")
    inside = ends[ends >= max(window - 1, target_lag + int(back[0]))]
    if inside.size == 0:
        inside = ends if outputs == 1 else ends[-1:]
    end = int(inside[rng.integers(inside.size)])
    return Clip(
        frames=student_window(end, window),
        targets=np.maximum(end - target_lag - back, 0),
        outputs=outputs - 1 - back,
    )
