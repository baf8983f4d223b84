"""What a network sees of a whole video: its frames, each scaled once, and the windows that are cut from them.

A teacher or a single-output student sees one window for each map, a 16-output student one window for 16 maps (the
published strides). Windows reach back from their last frame; the head of a video is padded as the network was taught:
HD2S sees it reversed in time, TinyHD sees frame 0 repeated.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.networks.network import Network, Scaling
from tinyhd_pipe.stages.video.clips import WINDOW, sliding_windows, student_window, teacher_window
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering


@dataclass(frozen=True)
class ScaledFrame:
    """A frame as a network wants it; not as decoded, since dozens wait at once, and of a 4K film each has 25 MB."""

    place: int
    """Among the frames that are there, counted from 0: windows and `every` go by it."""
    number: int
    """Absolute frame number: maps and labels go by it (store/numbering.py)."""
    pixels: Tensor
    """float32 (3, y, x) at the network's size; channels last in memory, beside its neighbours' (`_Reel`)."""
    decoded: bool
    """False for a frame that is there and did not decode: it shows the nearest one before it (or after it)."""


def scaled_frames(
    scaling: Scaling, pictures: Iterable[NDArray[np.uint8] | None], numbering: Numbering = AS_THEY_COME
) -> Iterator[ScaledFrame]:
    """Scale every frame once. A frame that does not decode shows its neighbour, so that the windows around it keep
    their length; one that is not there has no place in any window."""
    reel = _Reel()
    shown: ScaledFrame | None = None
    waiting: list[tuple[int, int]] = []  # before the first that decodes
    for place, picture in enumerate(pictures):
        number = int(numbering.numbers(place))
        if picture is not None:
            shown = ScaledFrame(place, number, reel.add(scaling, picture), decoded=True)
            yield from (replace(shown, place=at, number=its, decoded=False) for at, its in waiting)
            waiting = []
            yield shown
        elif shown is not None:
            yield replace(shown, place=place, number=number, decoded=False)
        else:
            waiting.append((place, number))


class _Reel:
    """Frames that follow one another in memory, so that most windows are a view of them: each frame is seen by 16, and
    copying it as often takes a twentieth of a small student's time. What was added is never written again."""

    LENGTH = 64
    """Frames; of 192x256, 38 MB."""

    def __init__(self) -> None:
        self._frames = torch.empty(0)
        self._count = 0

    def add(self, scaling: Scaling, picture: NDArray[np.uint8]) -> Tensor:
        """A frame (3, y, x), scaled and channels last in memory, behind those before."""
        if self._count == len(self._frames):
            self._frames, self._count = torch.empty(self.LENGTH, *scaling.size, 3), 0
        place = self._frames[self._count]
        self._count += 1
        scaling.prepare_into(place, picture)
        return place.permute(2, 0, 1)


def clips_of(windows: Sequence[Sequence[ScaledFrame]]) -> Tensor:
    """The frames of windows as a network's input, float32 (window, 3, frame, y, x), channels last in memory.

    To be read only: one window may be a view of the frames themselves.
    """
    first = windows[0][0].pixels
    if len(windows) == 1 and _lie_side_by_side([frame.pixels for frame in windows[0]]):
        count, size = len(windows[0]), first.numel()
        strides = (count * size, first.stride(0), size, *first.stride()[1:])
        return first.as_strided((1, len(first), count, *first.shape[1:]), strides)
    pixels = torch.stack([frame.pixels.permute(1, 2, 0) for window in windows for frame in window])
    return pixels.view(len(windows), -1, *pixels.shape[1:]).permute(0, 4, 1, 2, 3)


def _lie_side_by_side(pixels: Sequence[Tensor]) -> bool:
    """Whether frames (3, y, x), channels last, follow one another in memory."""
    first = pixels[0]
    memory, start = first.untyped_storage().data_ptr(), first.storage_offset()
    return first.permute(1, 2, 0).is_contiguous() and all(
        one.untyped_storage().data_ptr() == memory and one.storage_offset() == start + place * first.numel()
        for place, one in enumerate(pixels)
    )


def windows(
    network: Network, frames: Iterator[ScaledFrame], *, every: int, as_taught: bool = False
) -> Iterator[tuple[list[ScaledFrame], list[ScaledFrame]]]:
    """The windows that a network sees of a video, and the frames that each of them answers for.

        one output, HD2S:    15 ... 1 0  | 16 ... 2 1   | ... | 0 1 ... 15 | 1 2 ... 16    the last frame of each
        one output, TinyHD:  0 0 ... 0 0 | 0 0 ... 0 1  | ... | 0 1 ... 15 | 1 2 ... 16    the last frame of each
        16 outputs:          0 0 ... 0 0 | 1 2 ... 16   | ... | n-16 ... n-1               all, each frame once
        16 outputs, a dump:  0 1 ... 15  | 16 ... 31    | ... | n-16 ... n-1               all, each frame once

    `as_taught` shows a TinyHD the head as it was taught and published: frame 0 repeats before the start. In a dump,
    which is without, one output sees the head as HD2S does, reversed in time, and 16 begin with frames that are there.
    """
    repeats_first = as_taught and network.kind != "hd2s"
    if network.outputs == 1 and not repeats_first:
        yield from ((window, window[-1:]) for _, window in sliding_windows(frames, every=every))
    else:
        yield from _windows_behind(frames, every=every, outputs=network.outputs, repeats_first=repeats_first)


def teacher_windows_at(network: Network, wanted: Sequence[int], frames: int) -> list[tuple[list[int], list[int]]]:
    """Those windows of `windows` that answer for some frames of a video of `frames` frames, by place.

    Arguments:
        network: a teacher, which sees the head reversed in time where it has one output.
        wanted: places that rise.

    Returns (frames seen, frames answered for) of each window; 16 outputs answer for unwanted neighbours, too.
    """
    if network.outputs == 1:
        return [(teacher_window(frame, frames).tolist(), [frame]) for frame in wanted]
    groups = []
    for first in dict.fromkeys(frame // WINDOW * WINDOW for frame in wanted):
        last = min(first + WINDOW, frames) - 1
        groups.append((student_window(last).tolist(), list(range(first, last + 1))))
    return groups


def _windows_behind(
    frames: Iterator[ScaledFrame], *, every: int, outputs: int, repeats_first: bool
) -> Iterator[tuple[list[ScaledFrame], list[ScaledFrame]]]:
    """Windows that only look back; frame 0 repeats before the start, and where it `repeats_first` it is answered so."""
    held: deque[ScaledFrame] = deque(maxlen=WINDOW)
    waiting: list[ScaledFrame] = []
    for frame in frames:
        held.extend([frame] * (1 if held else WINDOW))
        waiting.append(frame)
        if len(waiting) == outputs or (repeats_first and frame.place == 0):
            if outputs > 1 or frame.place % every == 0:
                yield list(held), waiting
            waiting = []
    if waiting:
        yield list(held), waiting
