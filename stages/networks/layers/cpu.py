"""torch's convolutions and pooling in the ways that are fast for channels-last inputs: same keys and values.

Convolution: for a single float32 clip torch does not always ask oneDNN. In one thread, kernels of one pixel (temporal
ones count as such), and small inputs in any number of threads, go down an older path that is several times slower and
gives a contiguous result, after which every further layer is slow, too: a float32 window of HD2S at 192x256 in one
thread took 2.4 times as long. Here oneDNN is asked whenever the input lies channels-last, in training, too. In bfloat16
torch asks it anyway. What trains and has kernels of one pixel is a product of matrices, which has the faster gradient:
oneDNN's copies whole clips around it, 300 of the 1,100 ms of a step of TinyHD S at 192x256.

Pooling: the maximum over a box is that of the maxima along its axes, and each of those is a few passes over whole
vectors of channels, where torch's kernel walks the box for every value and, under autocast, in float32. Where there is
a gradient, torch's kernel is used.

On a GPU only kernels of one pixel are other than torch's: cuDNN takes several times as long as cuBLAS for them in
float32. Contiguous inputs go torch's way everywhere; the published networks run like that.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.kernels import are_off
from tinyhd_pipe.stages.networks.layers.layout import is_channels_last
from tinyhd_pipe.stages.networks.layers.operators import convolution

Steps = tuple[int, int, int]


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with zero padding given in numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / stride, W / stride)."""
        if _is_product(self, x):
            return _product(self, x)
        return _in_onednn(self, x, self.weight, self.padding) if _wants_onednn(x) else super().forward(x)


class Conv3d(nn.Conv3d):
    """`nn.Conv3d` with zero padding given in numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C', T / stride, H / stride, W / stride)."""
        if _is_product(self, x):
            return _product(self, x)
        return _in_onednn(self, x, self.weight, self.padding) if _wants_onednn(x) else super().forward(x)

    def inside(self, x: Tensor, taps: slice) -> Tensor:
        """The same without padding in time, and with some time steps of the kernel only."""
        weight, padding = self.weight[:, :, taps], (0, *self.padding[1:])
        if _wants_onednn(x):
            return _in_onednn(self, x, weight, padding)
        return F.conv3d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)


def clamped(conv: nn.Conv2d | nn.Conv3d, x: Tensor, top: float) -> Tensor:
    """`conv(x)` clamped to [0, `top`], in one pass over memory where oneDNN is asked and nothing is learned."""
    if not _wants_onednn(x) or torch.is_grad_enabled():
        return F.hardtanh(conv(x), 0.0, top, inplace=True)
    settings = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
    fused: Any = torch.ops.mkldnn._convolution_pointwise  # what torch.compile makes of the two
    answered: Tensor = fused(x, conv.weight, conv.bias, *settings, "hardtanh", [0.0, top], "")
    return answered


class MaxPool3d(nn.Module):
    """`nn.MaxPool3d`; no window lies wholly in the padding."""

    def __init__(self, kernel: Steps, stride: Steps, padding: Steps) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding = kernel, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C, T / stride, H / stride, W / stride)."""
        if x.device.type != "cpu" or not is_channels_last(x) or (x.requires_grad and torch.is_grad_enabled()):
            return F.max_pool3d(x, self.kernel, self.stride, self.padding)
        for axis, steps in enumerate(zip(self.kernel, self.stride, self.padding, strict=True), start=2):
            x = _largest_along(x, axis, *steps)
        return x


def _wants_onednn(x: Tensor) -> bool:
    onednn: Any = torch.backends.mkldnn
    plain = x.dtype == torch.float32 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return plain and onednn.is_available() and onednn.enabled and is_channels_last(x)


def _in_onednn(conv: nn.Conv2d | nn.Conv3d, x: Tensor, weight: Tensor, padding: Any) -> Tensor:
    return convolution(x, weight, conv.bias, padding, conv.stride, conv.dilation, conv.groups)


def _is_product(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Whether a kernel of one pixel is a product of matrices here: where it trains on a CPU, and on a GPU."""
    plain = set(conv.kernel_size) == set(conv.stride) == {1} and set(conv.padding) == {0} and conv.groups == 1
    if not plain:
        return False
    if x.device.type == "cuda":
        return is_channels_last(x) and not are_off()
    return conv.training and torch.is_grad_enabled() and conv.weight.requires_grad and _wants_onednn(x)


def _product(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """A kernel of one pixel, as a product: (B, C, [T,] H, W) to (B, C', [T,] H, W)."""
    return F.linear(x.movedim(1, -1), conv.weight.flatten(1), conv.bias).movedim(-1, 1)


def _largest_along(x: Tensor, axis: int, kernel: int, stride: int, padding: int) -> Tensor:
    """Maximum over `kernel` places along one axis.

    output i reads  stride i - padding, ..., stride i - padding + kernel - 1,  those of them that exist
    """
    if kernel == 1:
        return x
    places = x.shape[axis]
    outputs = (places + 2 * padding - kernel) // stride + 1
    whole, partial = [], []
    for shift in range(-padding, kernel - padding):
        first = max(0, -(shift // stride))
        last = min(outputs - 1, (places - 1 - shift) // stride)
        if last < first:
            continue
        read = _strided(x, axis, first * stride + shift, last * stride + shift, stride)
        if last - first + 1 == outputs:
            whole.append(read)
        else:
            partial.append((first, last, read))
    result = torch.maximum(*whole[:2]) if len(whole) > 1 else whole[0].clone()
    for first, last, read in [(0, outputs - 1, read) for read in whole[2:]] + partial:
        part = _strided(result, axis, first, last, 1)
        torch.maximum(part, read, out=part)
    return result


def _strided(x: Tensor, axis: int, first: int, last: int, step: int) -> Tensor:
    return x[(slice(None),) * axis + (slice(first, last + 1, step),)]
