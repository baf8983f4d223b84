"""What a network makes of clips left out, to look at while it learns: frame, truth, the store's map, its own map.

The clips are some of those that validation scores, so pictures of different epochs, and of a resumed run, can be
compared. Nothing is drawn at random and the network only answers, so a run with pictures ends with the weights of one
without. Cost: at most four clips in evaluation mode, and a PNG of them.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.pictures.sheets import colour, sheet
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Terms
from tinyhd_pipe.stages.training.validation import FIXED_EPOCH

ROWS = 4


def validation_sheet(
    module: nn.Module, dataset: ClipDataset, path: Path, *, name: str, loss_terms: Terms, device: torch.device
) -> Path:
    """Draw the last frame of one clip of some videos of `dataset`, a row each, into a PNG.

    `name` is that of the network, above its column; `module` must be in evaluation mode.
    """
    places = np.unique(np.linspace(0, len(dataset.videos) - 1, ROWS).round().astype(int)).tolist()
    batches = [dataset[FIXED_EPOCH, place] for place in places]
    is_labelled = any(bool(batch.labelled.all()) for batch in batches)
    rows = []
    for place, batch in zip(places, batches, strict=True):
        with torch.inference_mode():
            logits = module(batch.to(device).clip)
            terms = loss_terms(logits, batch.to(device))
        said = ", ".join(f"{term} {float(value):.3f}" for term, value in terms.items())
        panels = _panels(dataset, batch, is_labelled=is_labelled)
        answer = logits[FINAL][0].float().sigmoid().cpu()  # (H, W), or (T, H, W) with an output for every frame
        panels[name] = colour((answer if answer.ndim == 2 else answer[_last_output(batch)]).numpy())
        rows.append((f"{dataset.describe((FIXED_EPOCH, place))}: {said}", panels))
    return sheet(rows, path)


def _panels(dataset: ClipDataset, batch: Batch, *, is_labelled: bool) -> dict[str, NDArray[np.uint8]]:
    """Frame, density map where any clip has one, and teacher's map where there is a store, of the last target."""
    frame = batch.clip[0, :, _last_output(batch) if len(batch.outputs) > 1 else -1]
    panels = {"frame": dataset.scaling.picture(frame)}
    if is_labelled:
        panels["truth"] = colour(batch.density[0, -1].numpy())
    if FINAL in batch.maps:
        panels["teacher"] = colour(batch.maps[FINAL][0, -1].numpy())
    return panels


def _last_output(batch: Batch) -> int:
    """Of a network with an output for every frame: the one that meets the last target."""
    return int(batch.outputs[-1])
