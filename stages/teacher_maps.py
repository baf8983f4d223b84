"""The teacher over one video: logits of every wanted frame, each frame decoded once and scaled once.

Windows are cut from the scaled frames in one thread and answered side by side in others (overlap.py), so a map has the
same bits on any number of cores. Cost: one window for each frame of a one-output teacher, one for 16 frames of a
16-output one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor

from tinyhd_pipe.stages.inference import ScaledFrame, clip_of, scaled_frames, windows
from tinyhd_pipe.stages.losses import CONSPICUITY
from tinyhd_pipe.stages.networks import Network
from tinyhd_pipe.stages.overlap import ahead, cores, in_parallel
from tinyhd_pipe.stages.video import Picture

LEVELS = (*CONSPICUITY, "final")
BATCHES_AHEAD = 8
"""Batches of windows that are decoded, scaled and cut before the teacher asks for them."""


@dataclass(frozen=True, eq=False)
class WindowBatch:
    """What the teacher sees in one forward pass, and which of its answers are wanted."""

    clip: Tensor
    """float32 (batch, 3, 16, y, x)."""
    answered: Sequence[int]
    """How many of its last frames each window answers for."""
    wanted: Sequence[int]
    """Places among all answered frames."""
    frames: Sequence[ScaledFrame]
    """The wanted ones."""


def teacher_maps(
    teacher: Network, pictures: Iterator[Picture | None], *, every: int = 1, batch: int = 1
) -> Iterator[tuple[Sequence[ScaledFrame], dict[str, Tensor]]]:
    """The teacher's logits of frames 0, every, 2 * every, ... of one video.

    Yields (frames, level -> float32 (frame, y, x) on the level's native grid), of `batch` windows at a time. Batches
    never span videos, so a video's maps depend on that video alone.
    """
    batches = ahead(window_batches(teacher, pictures, every=every, batch=batch), BATCHES_AHEAD)
    yield from in_parallel(partial(_with_frames, teacher), batches, threads_for(teacher))


def window_batches(
    teacher: Network, pictures: Iterator[Picture | None], *, every: int = 1, batch: int = 1
) -> Iterator[WindowBatch]:
    """The batches of windows that `teacher_maps` answers, by rising frame."""
    frames = scaled_frames(teacher.scaling, pictures)
    coming = windows(teacher, frames, every=every, reverse_head=True)
    while several := list(islice(coming, batch)):
        clip = torch.cat([clip_of(window)[None] for window, _ in several])  # (B, 3, T, H, W), keeps the layout
        answered = [frame for _, frames in several for frame in frames]
        wanted = [place for place, frame in enumerate(answered) if frame.number % every == 0]
        yield WindowBatch(clip, [len(frames) for _, frames in several], wanted, [answered[place] for place in wanted])


def batch_logits(teacher: Network, batch: WindowBatch) -> dict[str, Tensor]:
    """Level -> float32 (frame, y, x), the logits of the batch's wanted frames on the level's native grid."""
    logits = teacher.frame_logits(batch.clip, batch.answered, LEVELS)
    return {level: maps[list(batch.wanted)] for level, maps in logits.items()}


def threads_for(teacher: Network) -> int:
    """Windows to run side by side: one for each thread that torch may use, but one on a GPU, which is filled by one."""
    return cores() if teacher.device.type == "cpu" else 1


def _with_frames(teacher: Network, batch: WindowBatch) -> tuple[Sequence[ScaledFrame], dict[str, Tensor]]:
    return batch.frames, batch_logits(teacher, batch)
