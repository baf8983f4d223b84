"""Batch norm and the activation behind it, as one operation where a network trains on a CPU.

torch runs them as two layers, reads a clip twice more than it has to, and sums hundreds of thousands of float32 values
in float32: the gradient that its batch norm gives of a picture-sized clip is off by about 1e-3 of its norm. Our kernel
(kernels/norm.c) sums in blocks and adds those in double precision: off by 5e-8, in half the time. The decision that
is not obvious: the modules stay torch's own, with their keys and statistics, and only the call is ours. Inference goes
torch's way, whatever there is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.kernels import are_off, kernels
from tinyhd_pipe.stages.networks.layers.operators import norm as norm_operator

RELU6 = 6.0
RELU = float("inf")


def normalised(norm: nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor, *, top: float | None = None) -> Tensor:
    """`norm(x)`, then a clamp to [0, `top`] where there is one: (B, C, [T,] H, W) to the same shape."""
    if trains_in_kernels(norm, x):
        return _in_kernel(norm, x, top or 0.0)
    y: Tensor = norm(x)
    if top is None:
        return y
    return F.relu(y, inplace=True) if top == RELU else F.hardtanh(y, 0.0, top, inplace=True)


def trains_in_kernels(layer: nn.Module, x: Tensor) -> bool:
    """Whether our kernels take this layer: one that trains, of float32 on a CPU, where there is a compiler."""
    plain = x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return layer.training and plain and torch.is_grad_enabled() and not are_off() and kernels().library is not None


def _in_kernel(norm: nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor, top: float) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    y, (mean, variance, _, _) = norm_operator(x, norm.weight, norm.bias, epsilon=norm.eps, top=top)
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (count / max(1, count - 1)), norm.momentum)
    return y
