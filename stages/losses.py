"""The losses of the paper, on maps that are read as distributions over the picture.

Networks answer in logits, so the divergence is taken in log space: log p = logsigmoid(logit) - log of its sum.
That needs no epsilon and stays finite where the published quotient underflows. Cost: three passes over the maps.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

CONSPICUITY = ("conspicuity_2", "conspicuity_3", "conspicuity_4", "conspicuity_5")


def kl_divergence(target: Tensor, logits: Tensor) -> Tensor:
    """KL(target ‖ sigmoid(logits)), both normalised to sum 1 over the last two axes.

    Arguments:
        target: non-negative maps, `(..., y, x)`, each with a positive sum (KL with an all-zero target is undefined:
            a missing map must never become a target).
        logits: the network's answer before its sigmoid, same shape.

    Returns the mean over all leading axes, a scalar in nats, >= 0.
    """
    target = target / target.sum(dim=(-2, -1), keepdim=True)
    log_map = F.logsigmoid(logits)
    log_p = log_map - torch.logsumexp(log_map.flatten(-2), dim=-1)[..., None, None]
    return (torch.xlogy(target, target) - target * log_p).sum(dim=(-2, -1)).mean()


def teacher_loss(logits: Mapping[str, Tensor], density: Tensor) -> Tensor:
    """HD2S's own loss: each of its five maps against the density map, `(batch, y, x)`; the sum of five KL terms."""
    return torch.stack([kl_divergence(density, logits[level]) for level in (*CONSPICUITY, "final")]).sum()


def distillation_loss(
    logits: Mapping[str, Tensor], maps: Mapping[str, Tensor], density: Tensor, labelled: Tensor
) -> dict[str, Tensor]:
    """TinyHD's loss, term by term; the sum of the terms is minimised, all with weight 1 (Hu et al., section 3.3).

    Arguments:
        logits: the student's answer, level -> `(batch, y, x)` or `(batch, frame, y, x)`.
        maps: the teacher's maps, level -> `(batch, frame, y, x)` with one frame for each of the student's outputs.
            A level that the teacher or the student does not have gives no term.
        density: density maps, `(batch, frame, y, x)`; rows that are not labelled are ignored.
        labelled: `(batch,)` bool.

    Where the student gives one D1 map for many frames (M with single D1), its target is the mean of the teacher's.
    """
    terms = {
        level: kl_divergence(_as_many_frames_as(logits[level], teacher_map), logits[level])
        for level, teacher_map in maps.items()
        if level in logits
    }
    if bool(labelled.any()):
        truth = _as_many_frames_as(logits["final"], density)
        terms["density"] = kl_divergence(truth[labelled], logits["final"][labelled])
        terms["density"] = terms["density"] * labelled.float().mean()  # a mean over the whole batch
    return terms


def _as_many_frames_as(logits: Tensor, target: Tensor) -> Tensor:
    """Bring targets (batch, frame, y, x) to the shape of `logits`: with one output, the mean over frames."""
    return target.mean(dim=1) if logits.ndim == target.ndim - 1 else target
