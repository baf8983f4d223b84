"""The losses of the paper, term by term: divergences between maps that are read as distributions over the picture."""

from collections.abc import Mapping

import torch
from torch import Tensor

from tinyhd_pipe.stages.networks.divergence import kl_divergence
from tinyhd_pipe.stages.networks.levels import CONSPICUITY, LEVELS, plain_level


def teacher_loss(logits: Mapping[str, Tensor], density: Tensor) -> Tensor:
    """HD2S's own loss: each of its five maps against the density map, `(batch, y, x)`; the sum of five KL terms."""
    return torch.stack([kl_divergence(density, logits[level]) for level in LEVELS]).sum()


def distillation_loss(
    logits: Mapping[str, Tensor],
    maps: Mapping[str, Tensor],
    density: Tensor,
    labelled: Tensor,
    *,
    conspicuity_weight: float = 1.0,
) -> dict[str, Tensor]:
    """TinyHD's loss, term by term; the sum of the terms is minimised, all with weight 1 (Hu et al., section 3.3).

    Arguments:
        logits: the student's answer, level -> `(batch, y, x)` or `(batch, frame, y, x)`.
        maps: the teacher's maps, level -> `(batch, frame, y, x)` with one frame for each of the student's outputs.
            A level that the teacher or the student does not have gives no term. Where the student has several
            decoders of a kind, each answers to the same maps and has a term for each of its own.
        density: density maps, `(batch, frame, y, x)`; rows that are not labelled are ignored.
        labelled: `(batch,)` bool.
        conspicuity_weight: factor of the terms of D1's maps; with 0 there are none.

    Where the student gives one D1 map for many frames (M with single D1), its target is the mean of the teacher's.
    """
    terms = {}
    for level, answered in logits.items():
        target = plain_level(level)
        weight = conspicuity_weight if target in CONSPICUITY else 1.0
        if weight and target in maps:
            terms[level] = weight * kl_divergence(_as_many_frames_as(answered, maps[target]), answered)
    if bool(labelled.any()):
        truth = _as_many_frames_as(logits["final"], density)
        terms["density"] = kl_divergence(truth[labelled], logits["final"][labelled])
        terms["density"] = terms["density"] * labelled.float().mean()  # a mean over the whole batch
    return terms


def _as_many_frames_as(logits: Tensor, target: Tensor) -> Tensor:
    """Bring targets (batch, frame, y, x) to the shape of `logits`: with one output, the mean over frames."""
    return target.mean(dim=1) if logits.ndim == target.ndim - 1 else target
