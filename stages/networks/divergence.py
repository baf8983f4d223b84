"""Maps as distributions over the picture: the divergence that students minimise and that storing maps is judged by.

Networks answer in logits, so it is taken in log space: log p = logsigmoid(logit) - log of its sum. That needs no
epsilon and stays finite where the published quotient underflows. Cost: three passes over the maps.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = 4
"""Mean KL(live ‖ stored) of some maps, in budgets of their store, from which these are not the teacher's: a frame of
delay costs far more."""


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
