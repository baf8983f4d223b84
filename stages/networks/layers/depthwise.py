"""Depthwise 3D convolution whose passes are fast on a CPU and on a GPU.

On a CPU, forward, torch's own channels-last kernel is fast. Backward it is not: most of a TinyHD training step went
into it, so there our kernels do it (kernels/depthwise.c). Where that cannot be compiled, and in double precision,
a 3D kernel is seen as one 2D kernel for each of its time steps, whose gradients torch has vectorised; where the stride
is 1, the gradient of the input is itself a forward convolution with the kernel turned round. On a CUDA device neither
pass of torch's is fast, and Triton kernels of ours do both (depthwise_gpu.py).
"""

from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyhd_pipe.stages.networks.layers.cpu import Conv3d, Steps
from tinyhd_pipe.stages.networks.layers.kernels import are_off
from tinyhd_pipe.stages.networks.layers.layout import is_channels_last
from tinyhd_pipe.stages.networks.layers.norm import trains_in_kernels
from tinyhd_pipe.stages.networks.layers.operators import depthwise

HAS_TRITON = find_spec("triton") is not None
"""It comes with every CUDA build of torch."""


class DepthwiseConv3d(Conv3d):
    """`nn.Conv3d` with groups = channels and no bias: the same keys, the same values, a faster gradient."""

    def __init__(
        self,
        channels: int,
        kernel: tuple[int, int, int],
        stride: tuple[int, int, int],
        padding: tuple[int, int, int],
    ) -> None:
        super().__init__(channels, channels, kernel, stride, padding, groups=channels, bias=False)
        self.steps = (stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T, H, W) to (B, C, T / stride, H / stride, W / stride)."""
        if _runs_in_triton(x):
            y = depthwise(x, self.weight, *self.steps)
            return y if self.bias is None else y + self.bias.to(y.dtype).view(-1, 1, 1, 1)
        if not torch.is_grad_enabled() or not self.weight.requires_grad or x.device.type != "cpu" or are_off():
            return super().forward(x)
        if trains_in_kernels(self, x):
            return depthwise(x, self.weight, *self.steps)
        answer: Tensor = _FramewiseGradient.apply(x, self.weight, *self.steps)  # type: ignore[no-untyped-call]
        return answer


def _runs_in_triton(x: Tensor) -> bool:
    """Whether our GPU kernels take this input: not in double precision, nor laid out as in the published networks."""
    plain = x.device.type == "cuda" and x.dtype in (torch.float32, torch.bfloat16)
    return plain and is_channels_last(x) and HAS_TRITON and not are_off()


class _FramewiseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: Steps, padding: Steps) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.steps = stride, padding
        return F.conv3d(x, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.steps
        gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
        wanted = ctx.needs_input_grad[0]
        keeps_size = stride == (1, 1, 1) and weight.shape[2:] == tuple(2 * width + 1 for width in padding)
        of_input, of_weight = _framewise(x, weight, gradient, stride, padding, wants_input=wanted and not keeps_size)
        if wanted and keeps_size:
            of_input = F.conv3d(gradient, weight.flip(2, 3, 4), None, 1, padding, 1, len(weight))
        return of_input, of_weight, None, None


def _framewise(
    x: Tensor, weight: Tensor, gradient: Tensor, stride: Steps, padding: Steps, *, wants_input: bool
) -> tuple[Tensor | None, Tensor]:
    """Gradients of input (where wanted) and weight, one 2D convolution for each time step of the kernel.

    output frame t of a kernel with 3 time steps reads the input frames  stride t - 1, stride t, stride t + 1
    """
    of_input = torch.zeros_like(x) if wants_input else None
    of_weight = torch.zeros_like(weight)
    for step in range(weight.shape[2]):
        shift = step - padding[0]
        first = -(shift // stride[0]) if shift < 0 else 0  # the first output frame that reads a frame here
        last = min(gradient.shape[2] - 1, (x.shape[2] - 1 - shift) // stride[0])
        if last < first:
            continue
        read = slice(first * stride[0] + shift, last * stride[0] + shift + 1, stride[0])
        input_2d, weight_2d, _ = torch.ops.aten.convolution_backward(
            _as_pictures(gradient[:, :, first : last + 1]),
            _as_pictures(x[:, :, read]),
            weight[:, :, step],
            None,
            stride[1:],
            padding[1:],
            [1, 1],
            False,
            [0, 0],
            len(weight),
            [wants_input, True, False],
        )
        of_weight[:, :, step] = weight_2d
        if of_input is not None:
            of_input[:, :, read] += input_2d.unflatten(0, (len(x), -1)).transpose(1, 2)
    return of_input, of_weight


def _as_pictures(x: Tensor) -> Tensor:
    """(B, C, T, H, W) to (B T, C, H, W), channels last."""
    return x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
