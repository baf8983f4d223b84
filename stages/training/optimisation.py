"""How weights move: optimiser, learning rate, clipped gradients, and the average that is scored."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tinyhd_pipe.stages.settings.training import Recipe


def optimiser_of(groups: Sequence[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser; each group may have a `rate`, its share of the learning rate."""
    for group in groups:
        group.setdefault("rate", 1.0)
    defaults: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    defaults |= {"fused": True} if recipe.fused else {"fused": False, "foreach": False}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, **defaults)
    return (torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW)(groups, **defaults)


def learning_rate(recipe: Recipe, *, step: int, steps_per_epoch: int) -> float:
    """The rate of a step, counted from 0 over the whole run.

    Over the first `warm_up` epochs it rises linearly to what the schedule says.
    """
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * step / (recipe.epochs * steps_per_epoch)))
    else:
        rate *= recipe.decay ** sum(step // steps_per_epoch >= milestone for milestone in recipe.milestones)
    rising = recipe.warm_up * steps_per_epoch
    return rate * min(1.0, (step + 1) / rising) if rising else rate


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate"]


def average_of(module: nn.Module, recipe: Recipe) -> AveragedModel | None:
    """A moving average of weights and statistics: `average` of the old and the rest of the new after every step."""
    if not recipe.average:
        return None
    averaging = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
    return AveragedModel(module, multi_avg_fn=averaging, use_buffers=True)


def clip(module: nn.Module, largest: float | None) -> float:
    """Scale all gradients so that their norm is at most `largest`; returns what it was, NaN where one is not finite."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if largest is not None:
        torch.nn.utils.clip_grads_with_norm_(module.parameters(), largest, norm)
    return float(norm)
