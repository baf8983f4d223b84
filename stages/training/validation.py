"""Videos left out of training, and how well a network does on them.

The clips are always the same ones, so scores of different epochs and of a resumed run can be compared.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset
from tinyhd_pipe.store.errors import DataError

Video = TypeVar("Video")
FIXED_EPOCH = 2**31
"""The epoch whose clips are scored; training never comes so far."""


def leave_out(videos: Sequence[Video], share: float) -> tuple[list[Video], list[Video]]:
    """Split videos into (learned from, left out): every k-th one is left out, at least one.

    Raises DataError for fewer than two videos.
    """
    if len(videos) < 2:
        raise DataError(f"{len(videos)} video to learn from: two are needed, one of them to be left out for validation")
    step = max(2, round(1 / share))
    places = range(step - 1, len(videos), step) or range(len(videos) - 1, len(videos))
    return [video for place, video in enumerate(videos) if place not in places], [videos[place] for place in places]


def validation_scores(
    module: nn.Module,
    dataset: ClipDataset,
    *,
    clips_per_video: int,
    loss_terms: Callable[[Mapping[str, Tensor], Batch], dict[str, Tensor]],
    device: torch.device,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Mean of every loss term over `clips_per_video` fixed clips of each video of `dataset`, in evaluation mode."""
    clips = len(dataset.videos) * clips_per_video
    terms: dict[str, list[float]] = {}
    with torch.inference_mode():
        for index in range(clips):
            batch = dataset[FIXED_EPOCH, index].to(device)
            for name, term in loss_terms(module(batch.clip), batch).items():
                terms.setdefault(name, []).append(float(term))
            report(index + 1, clips)
    return {name: float(np.mean(values)) for name, values in terms.items()}
