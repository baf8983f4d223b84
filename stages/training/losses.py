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
    for level, target in targets_of(logits, maps).items():
        weight = conspicuity_weight if plain_level(level) in CONSPICUITY else 1.0
        if weight:
            terms[level] = weight * kl_divergence(target, logits[level])
    if bool(labelled.any()):
        truth = _as_many_frames_as(logits["final"], density)
        terms["density"] = kl_divergence(truth[labelled], logits["final"][labelled])
        terms["density"] = terms["density"] * labelled.float().mean()  # a mean over the whole batch
    return terms


def answered_frames(logits: Mapping[str, Tensor], outputs: Tensor) -> dict[str, Tensor]:
    """Of a student's answer, level -> `(batch, y, x)` or `(batch, 16, y, x)`, those outputs that meet a target.

    `outputs` is int64 (frame,), which output meets which target frame; a level with one map has only that.
    """
    return {level: maps if maps.ndim == 3 else maps[:, outputs] for level, maps in logits.items()}


def targets_of(logits: Mapping[str, Tensor], maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What each of the student's maps is compared with, shaped as it is: those that there is a target for."""
    return {
        level: _as_many_frames_as(answered, maps[plain_level(level)])
        for level, answered in logits.items()
        if plain_level(level) in maps
    }


def _as_many_frames_as(logits: Tensor, target: Tensor) -> Tensor:
    """Bring targets (batch, frame, y, x) to the shape of `logits`: with one output, the mean over frames."""
    return target.mean(dim=1) if logits.ndim == target.ndim - 1 else target
