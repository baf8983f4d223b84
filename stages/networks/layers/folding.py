"""Batch norms folded into the convolutions before them, for networks that only predict.

A norm whose statistics stand still is a factor and a shift for each channel, and so are a convolution's weights and
bias: two passes over memory less for every layer, since ReLU6 then goes with the convolution (cpu.py). The decision
that is not obvious: it rounds otherwise, so networks that are dumped or trained are never folded; maps that are stored
have the bits they always had.
"""

from copy import deepcopy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def folded(module: Network) -> Network:
    """A copy in evaluation mode in which `nn.Identity` stands where a norm follows a convolution in an `nn.Sequential`.

    Products are made in double precision and rounded once. Raises ValueError for a norm without statistics.
    """
    copy = deepcopy(module).eval()
    for row in [each for each in copy.modules() if isinstance(each, nn.Sequential)]:
        for (_, layer), (place, norm) in pairwise(list(row.named_children())):
            if isinstance(layer, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                _fold(layer, norm)
                setattr(row, place, nn.Identity())
    return copy


def _fold(layer: nn.Conv2d | nn.Conv3d, norm: nn.BatchNorm2d | nn.BatchNorm3d) -> None:
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a norm without running statistics cannot be folded")
    factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = 0.0 if layer.bias is None else layer.bias.double()
    shift = norm.bias.double() + (bias - norm.running_mean.double()) * factor
    weight = layer.weight.double() * factor.view(-1, *[1] * (layer.weight.ndim - 1))
    layer.weight = nn.Parameter(weight.to(layer.weight), requires_grad=False)
    layer.bias = nn.Parameter(shift.to(layer.weight), requires_grad=False)
