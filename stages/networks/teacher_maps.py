"""The teacher over one video: logits of every wanted frame, each frame decoded once and scaled once; or of a few.

Windows are cut from the scaled frames in one thread and answered side by side in others (overlap.py), so a map has the
same bits on any number of cores. Neighbouring windows are given as one run of frames where that pays: HD2S shares a
part of their work on a CPU (window_runs.py), and a GPU gets each frame once. Cost: one window for each frame of a
one-output teacher, one for 16 frames of a 16-output one.
"""

from collections.abc import Callable, Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.networks.inference import ScaledFrame, clips_of, scaled_frames, teacher_windows_at, windows
from tinyhd_pipe.stages.networks.levels import MIRRORED, STORED
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.overlap import ahead, cores, in_parallel
from tinyhd_pipe.stages.video.decoding import Picture
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering

BATCHES_AHEAD = 4
"""Batches of windows that are decoded, scaled and cut before the teacher asks for them."""


Window = tuple[list[ScaledFrame], list[ScaledFrame]]
"""What the teacher sees, and those frames of it that it answers for (inference.windows)."""


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """What the teacher sees in one forward pass, and which of its answers are wanted."""

    clip: Tensor
    """float32 (batch, 3, 16, y, x), or (1, 3, 15 + batch, y, x) for a run of windows one frame apart."""
    answered: Sequence[int]
    """How many of its last frames each window answers for."""
    wanted: Sequence[int]
    """Places among all answered frames, by rising frame."""
    frames: Sequence[ScaledFrame]
    """The wanted ones."""


def teacher_maps(
    teacher: Network, pictures: Iterator[Picture | None], *, every: int = 1, levels: Collection[str] = STORED
) -> Iterator[tuple[Sequence[ScaledFrame], dict[str, Tensor]]]:
    """The teacher's logits of every `every`-th frame of one video, the first among them; `levels` as in `batch_logits`.

    Yields (frames, level -> float32 (frame, y, x) on the level's native grid), of `teacher.batch` windows at a time.
    Batches never span videos, so a video's maps depend on that video alone.
    """
    batches = ahead(window_batches(teacher, pictures, every=every), BATCHES_AHEAD)
    yield from in_parallel(partial(_with_frames, teacher, levels), batches, threads_for(teacher))


def window_batches(
    teacher: Network,
    pictures: Iterator[Picture | None],
    *,
    every: int = 1,
    numbering: Numbering = AS_THEY_COME,
    wanted: Container[int] | None = None,
    as_taught: bool = False,
) -> Iterator[WindowBatch]:
    """The batches of windows that `teacher_maps` answers, by rising frame.

    Arguments:
        every: every `every`-th frame is wanted, the first among them.
        numbering: numbers the frames.
        wanted: absolute numbers, where not all of those are wanted. A window that answers for none is not made.
        as_taught: as in `windows`.
    """

    def is_wanted(frame: ScaledFrame) -> bool:
        return frame.place % every == 0 and (wanted is None or frame.number in wanted)

    frames = scaled_frames(teacher.scaling, pictures, numbering)
    coming = windows(teacher, frames, every=every, as_taught=as_taught)
    if isinstance(wanted, Collection):  # nothing is decoded behind the last one
        last = max(wanted, default=-1)
        coming = takewhile(lambda window: window[1][0].number <= last, coming)
    yield from _batched(teacher, (window for window in coming if any(map(is_wanted, window[1]))), is_wanted)


def logits_at(
    teacher: Network,
    wanted: NDArray[np.int64],
    *,
    frames: int,
    read: Callable[[NDArray[np.int64]], NDArray[np.uint8]],
    levels: Collection[str] = STORED,
) -> dict[str, Tensor]:
    """The teacher's logits of a few frames of a video, from the same windows as `teacher_maps` cuts.

    Arguments:
        wanted: (n,) places of frames among those of the video, in any order, repeats allowed.
        frames: length of the video.
        read: the frames in these places, which rise, as uint8 (frame, y, x, 3).
        levels: as in `batch_logits`.

    Returns level -> float32 (n, y, x) on the level's native grid, computed in the calling thread. Costs a window for
    each frame of a one-output teacher, and those of all 16 frames around it of a 16-output one.
    """
    rising, where = np.unique(wanted, return_inverse=True)
    seen = teacher_windows_at(teacher, rising.tolist(), frames)
    places = np.unique(np.concatenate([window for window, _ in seen]))
    pixels = teacher.scaling.prepare(read(places)).unbind(1)
    scaled = {
        place: ScaledFrame(place, place, one, decoded=True) for place, one in zip(places.tolist(), pixels, strict=True)
    }
    coming = (([scaled[p] for p in window], [scaled[p] for p in answered]) for window, answered in seen)
    asked = set(rising.tolist())
    batches = _batched(teacher, coming, lambda frame: frame.place in asked)
    answers = [batch_logits(teacher, batch, levels) for batch in batches]
    return {level: torch.cat([answer[level] for answer in answers])[where] for level in answers[0]}


def _batched(
    teacher: Network, coming: Iterator[Window], is_wanted: Callable[[ScaledFrame], bool]
) -> Iterator[WindowBatch]:
    for several, is_run in _batches(coming, teacher.batch, in_runs=teacher.takes_runs):
        clip = clips_of([_frames_of_run(several)] if is_run else [seen for seen, _ in several])
        answered = [frame for _, frames in several for frame in frames]
        wanted = [place for place, frame in enumerate(answered) if is_wanted(frame)]
        wanted.sort(key=lambda place: answered[place].place)
        counts = [len(frames) for _, frames in several]
        yield WindowBatch(clip, counts, wanted, [answered[place] for place in wanted])


def _batches(coming: Iterator[Window], batch: int, *, in_runs: bool) -> Iterator[tuple[list[Window], bool]]:
    """Up to `batch` windows at a time, and whether they are a run, in which each begins one frame after the one before.

    At the head of a video windows are reversed in time, so there a run has them last first.
    """
    several: list[Window] = []
    step = 0  # frames from each window to the next: 1, -1 at the head, 0 where they are no run
    for window in coming:
        next_step = _step(several[-1], window) if in_runs and several else 0
        if len(several) > 1 and next_step != step:
            yield several[:: step or 1], step != 0
            several, step = [], 0
        elif several:
            step = next_step
        several.append(window)
        if len(several) == batch:  # and not when the next one comes, for which a stream may let us wait
            yield several[:: step or 1], step != 0
            several, step = [], 0
    if several:
        yield several[:: step or 1], step != 0


def _step(one: Window, other: Window) -> int:
    seen, then = ([frame.place for frame in window] for window, _ in (one, other))
    return 1 if seen[1:] == then[:-1] else -1 if seen[:-1] == then[1:] else 0


def _frames_of_run(windows: Sequence[Window]) -> list[ScaledFrame]:
    """The frames of a run, each once, in the order in which its windows see them."""
    (first, _), *others = windows
    return [*first, *(seen[-1] for seen, _ in others)]


def batch_logits(teacher: Network, batch: WindowBatch, levels: Collection[str] = STORED) -> dict[str, Tensor]:
    """Level -> float32 (frame, y, x), the logits of the batch's wanted frames on the level's native grid.

    `levels` are those that are wanted of what the teacher has. Names of MIRRORED are of the clip mirrored left to
    right, which costs a second pass; maps come as the teacher gives them for that clip.
    """
    plain = [level for level in STORED if level in levels]
    mirrored = [level for level in STORED if MIRRORED[level] in levels]
    logits = teacher.frame_logits(batch.clip, batch.answered, plain) if plain else {}
    if mirrored:
        other = teacher.frame_logits(batch.clip.flip(-1), batch.answered, mirrored)
        logits |= {MIRRORED[level]: maps for level, maps in other.items()}
    return {level: maps[list(batch.wanted)] for level, maps in logits.items()}


def threads_for(teacher: Network) -> int:
    """Batches to run side by side: one for each thread that torch may use; two for a GPU, which computes one of
    them while the other is brought there or back."""
    return {"cpu": cores(), "cuda": 2}.get(teacher.device.type, 1)


def _with_frames(
    teacher: Network, levels: Collection[str], batch: WindowBatch
) -> tuple[Sequence[ScaledFrame], dict[str, Tensor]]:
    return batch.frames, batch_logits(teacher, batch, levels)
