"""The teacher over one video: logits of every wanted frame, each frame decoded once and scaled once.

Decoding runs in a thread ahead of the teacher; windows are cut from the scaled frames. Cost: one window for each
frame of a one-output teacher, one for 16 frames of a 16-output one.
"""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from tinyhd_pipe.stages.inference import ScaledFrame, clip_of, scaled_frames, windows
from tinyhd_pipe.stages.losses import CONSPICUITY
from tinyhd_pipe.stages.networks import Network
from tinyhd_pipe.stages.video import Picture

LEVELS = (*CONSPICUITY, "final")
Item = TypeVar("Item")


def teacher_maps(
    teacher: Network, pictures: Iterator[Picture | None], *, every: int = 1, batch: int = 1
) -> Iterator[tuple[list[ScaledFrame], dict[str, Tensor]]]:
    """The teacher's logits of frames 0, every, 2 * every, ... of one video.

    Yields (frames, level -> float32 (frame, y, x) on the level's native grid), of `batch` windows at a time. Batches
    never span videos, so a video's maps depend on that video alone.
    """
    frames = scaled_frames(teacher.scaling, pictures)
    coming = windows(teacher, frames, every=every, reverse_head=True)
    while several := list(islice(coming, batch)):
        clip = torch.stack([clip_of(window) for window, _ in several])  # (B, 3, T, H, W)
        logits = teacher.frame_logits(clip, [len(answered) for _, answered in several], LEVELS)
        answered = [frame for _, frames in several for frame in frames]
        wanted = [place for place, frame in enumerate(answered) if frame.number % every == 0]
        yield [answered[place] for place in wanted], {level: maps[wanted] for level, maps in logits.items()}


def ahead(items: Iterator[Item], depth: int) -> Iterator[Item]:
    """The same items, made in a thread that runs at most `depth` of them ahead; what it raises is raised here."""
    end: Any = object()
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = deque(thread.submit(next, items, end) for _ in range(depth))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, items, end))
            yield item
