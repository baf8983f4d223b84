"""TinyHD's inverted residuals as one kernel each, for networks that only predict on a CPU.

An inverted residual widens a clip twice to six times, filters it and narrows it again; layer by layer, most of a small
student's time goes into writing the wide clip to memory and reading it again. Our kernel (layers/kernels/residual.c)
does all three row by row, and what is wide stays in the cache. The decision that is not obvious: clips are contiguous
here and not channels-last, since rows are long where channels are few. Each window is computed by one thread; windows
run side by side (overlap.py). Cost: a copy of the weights; maps differ from the layers' by rounding alone.
"""

import ctypes
import functools
import threading
from copy import deepcopy

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.kernels import kernels
from tinyhd_pipe.stages.networks.mobilenet import InvertedResidual
from tinyhd_pipe.stages.networks.tinyhd import TinyHD


class _Residual(ctypes.Structure):
    """`Residual` of residual.c."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in (
            *("batch", "inputs", "hidden", "outputs"),
            *("in_t", "in_y", "in_x", "out_t", "out_y", "out_x"),
            *("frames", "stride_t", "stride", "expands", "adds"),
        )
    )


class _Weights(ctypes.Structure):
    """`Weights` of residual.c."""

    _fields_ = tuple(
        (f"{layer}{kind}", ctypes.c_void_p) for layer in ("expand", "depthwise", "project") for kind in ("", "_bias")
    )


_held = threading.local()
"""Where a thread's kernels work; it goes with the thread."""


class FusedResidual(nn.Module):
    """`layer` as one kernel, its norms folded into its convolutions before. Takes and gives contiguous float32."""

    def __init__(self, layer: InvertedResidual) -> None:
        super().__init__()
        expand: list[nn.Conv3d]
        *expand, depthwise, project = [each for each in layer.modules() if isinstance(each, nn.Conv3d)]
        library = _library()
        block = library.residual_block()
        self.shape = (project.in_channels, project.out_channels, depthwise.kernel_size[0], *depthwise.stride[:2])
        self.padding = (depthwise.kernel_size[0] - 1) // 2
        self.expands, self.adds = bool(expand), layer.residual
        widened: tuple[Tensor | None, ...] = _in_blocks(expand[0], block) if expand else (None, None)
        filtering = (depthwise.weight.flatten(1).contiguous(), depthwise.bias)
        self.tensors = (*widened, *filtering, *_in_blocks(project, block))
        self.weights = _Weights(*(None if each is None else each.data_ptr() for each in self.tensors))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T / stride, H / stride, W / stride)."""
        hidden, outputs, frames, stride_t, stride = self.shape
        x = x.contiguous()
        batch, inputs, *size = x.shape
        out_t = (size[0] + 2 * self.padding - frames) // stride_t + 1
        y = x.new_empty(batch, outputs, out_t, size[1] // stride, size[2] // stride)
        facts = _Residual(batch, inputs, hidden, outputs, *size, *y.shape[2:], *(frames, stride_t, stride))
        facts.expands, facts.adds = self.expands, self.adds
        library = _library()
        place = _place(library.residual_work(facts))
        library.residual(_at(x), _at(y), _at(place), self.weights, facts)
        return y


def fused(module: TinyHD) -> TinyHD:
    """A copy of a network whose norms are folded in which one kernel stands for each inverted residual.

    The module as it is where there is no C compiler.
    """
    if kernels().library is None:
        return module
    copy = deepcopy(module)
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, InvertedResidual):
                setattr(parent, name, FusedResidual(child))
    copy.aggregator.fused = True
    return copy


def _in_blocks(layer: nn.Conv3d, block: int) -> tuple[Tensor, Tensor]:
    """Weights (outputs, inputs) as (blocks, inputs, block), and the bias; both filled up with zeros."""
    outputs, inputs = layer.weight.shape[:2]
    more = -outputs % block
    weight = nn.functional.pad(layer.weight.detach().contiguous().view(outputs, inputs), (0, 0, 0, more))
    bias = torch.zeros(outputs) if layer.bias is None else layer.bias.detach()
    return weight.view(-1, block, inputs).transpose(1, 2).contiguous(), nn.functional.pad(bias, (0, more))


@functools.cache
def _library() -> ctypes.CDLL:
    library = kernels().library
    assert isinstance(library, ctypes.CDLL)  # `fused` asks first
    library.residual_work.restype = ctypes.c_long
    return library


def _place(floats: int) -> Tensor:
    """Memory of this thread, at least so many floats of it."""
    place: Tensor | None = getattr(_held, "place", None)
    if place is None or len(place) < floats:
        place = _held.place = torch.empty(floats)
    return place


def _at(x: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(x.data_ptr())
