"""TinyHD's stem and inverted residuals as one kernel each, for networks that only predict on a CPU.

An inverted residual widens a clip twice to six times, filters it and narrows it again; layer by layer, most of a small
student's time goes into writing the wide clip to memory and reading it again. Our kernel (layers/kernels/residual.c)
does all three row by row, and what is wide stays in the cache. The decision that is not obvious: clips are contiguous
here and not channels-last, since rows are long where channels are few; the stem (layers/kernels/stem.c) takes frames as
they are scaled, and is where the one becomes the other. Each window is computed by one thread; windows run side by side
(overlap.py). Cost: a copy of the weights; maps differ from the layers' by rounding alone.
"""

import ctypes
import functools
import threading

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.folding import folded
from tinyhd_pipe.stages.networks.layers.kernels import kernels
from tinyhd_pipe.stages.networks.mobilenet import Activated, InvertedResidual
from tinyhd_pipe.stages.networks.tinyhd import TinyHD


class _Residual(ctypes.Structure):
    """`Residual` of residual.c."""

    _fields_ = tuple(
        (name, ctypes.c_long)
        for name in (
            *("batch", "inputs", "hidden", "outputs"),
            *("in_t", "in_y", "in_x", "out_t", "out_y", "out_x"),
            *("frames", "stride_t", "stride", "expands", "time", "space", "lifts"),
        )
    )


class _Weights(ctypes.Structure):
    """`Weights` of residual.c."""

    _fields_ = tuple(
        (f"{layer}{kind}", ctypes.c_void_p) for layer in ("expand", "depthwise", "project") for kind in ("", "_bias")
    )


class _Stem(ctypes.Structure):
    """`Stem` of stem.c."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("batch", "outputs", "t", "y", "x"))


_held = threading.local()
"""Where a thread's kernels work; it goes with the thread."""


class FusedResidual(nn.Module):
    """`layer` as one kernel, its norms folded into its convolutions before. Takes and gives contiguous float32.

    What is done to a clip before or after it may be done within, a row at a time.
    """

    def __init__(self, layer: InvertedResidual) -> None:
        super().__init__()
        expand: list[nn.Conv3d]
        *expand, depthwise, project = [each for each in layer.modules() if isinstance(each, nn.Conv3d)]
        library = _library()
        block = library.residual_block()
        self.shape = (project.in_channels, project.out_channels, depthwise.kernel_size[0], *depthwise.stride[:2])
        self.padding = (depthwise.kernel_size[0] - 1) // 2
        self.expands, self.residual = bool(expand), layer.residual
        widened: tuple[Tensor | None, ...] = _in_blocks(expand[0], block) if expand else (None, None)
        filtering = (depthwise.weight.flatten(1).contiguous(), depthwise.bias)
        self.tensors = (*widened, *filtering, *_in_blocks(project, block))
        self.weights = _Weights(*(None if each is None else each.data_ptr() for each in self.tensors))

    def forward(
        self, x: Tensor, *, finer: tuple[int, int] = (1, 1), lifts: int = 0, onto: Tensor | None = None
    ) -> Tensor:
        """(B, inputs, T, H, W) to (B, outputs, T / stride, H / stride, W / stride).

        Arguments:
            finer: how many times as many frames, and as many rows and columns, the clip is brought to before, by
                trilinear interpolation with corners aligned (`layers.grids.interpolated`).
            lifts: pixel-shuffle the results, and make so many frames of each (`layers.grids.shuffled`).
            onto: add them to this.
        """
        hidden, outputs, frames, stride_t, stride = self.shape
        time, space = finer
        assert finer == (1, 1) or stride == 1  # rows of stride 2 are laid out otherwise
        x = x.contiguous()
        batch, inputs, *coarse = x.shape
        size = (time * coarse[0], space * coarse[1], space * coarse[2])
        out = ((size[0] + 2 * self.padding - frames) // stride_t + 1, size[1] // stride, size[2] // stride)
        facts = _Residual(batch, inputs, hidden, outputs, *size, *out, frames, stride_t, stride)
        facts.expands, facts.time, facts.space, facts.lifts = self.expands, time, space, lifts
        if lifts:
            y = x.new_empty(batch, outputs // 4, lifts * out[0], 2 * out[1], 2 * out[2])
        else:
            y = x.new_empty(batch, outputs, *out)
        added = x if self.residual else onto
        assert added is None or (added.shape == y.shape and added.is_contiguous())
        library = _library()
        place = _place(library.residual_work(facts))
        library.residual(_at(x), _at(added), _at(y), _at(place), self.weights, facts)
        return y


class FusedStem(nn.Module):
    """The encoder's first layer as one kernel, its norm folded into it before. Takes float32, gives it contiguous."""

    def __init__(self, layer: Activated) -> None:
        super().__init__()
        (convolution, _) = layer
        assert isinstance(convolution, nn.Conv3d)
        self.outputs = convolution.out_channels
        self.weight, self.bias = _in_blocks(convolution, _library().stem_block())

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W), W a multiple of 32, to (B, outputs, T / 2, H / 2, W / 2)."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        batch, _, *size = x.shape
        y = x.new_empty(batch, len(self.bias), *(side // 2 for side in size))
        facts = _Stem(batch, len(self.bias), *size)
        library = _library()
        place = _place(library.stem_work(facts))
        library.stem(_at(x), _at(y), _at(place), _at(self.weight), _at(self.bias), facts)
        return y[:, : self.outputs]


def fused(module: TinyHD) -> TinyHD:
    """A copy of a network with its norms folded in which one kernel stands for the stem and each inverted residual.

    The layers are as they are where there is no C compiler.
    """
    copy = folded(module)
    if kernels().library is None:
        return copy
    for parent in list(copy.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, InvertedResidual):
                setattr(parent, name, FusedResidual(child))
    stem = copy.encoder.encoder[0]
    assert isinstance(stem, Activated)
    copy.encoder.encoder[0] = FusedStem(stem)
    copy.aggregator.fused = True
    return copy


def _in_blocks(layer: nn.Conv3d, block: int) -> tuple[Tensor, Tensor]:
    """Weights (outputs, ...) as (blocks, ..., block), flat between; and the bias; both filled up with zeros."""
    outputs = layer.out_channels
    more = -outputs % block
    weight = nn.functional.pad(layer.weight.detach().contiguous().view(outputs, -1), (0, 0, 0, more))
    bias = torch.zeros(outputs) if layer.bias is None else layer.bias.detach()
    return weight.view(-1, block, weight.shape[1]).transpose(1, 2).contiguous(), nn.functional.pad(bias, (0, more))


@functools.cache
def _library() -> ctypes.CDLL:
    library = kernels().library
    assert isinstance(library, ctypes.CDLL)  # `fused` asks first
    library.residual_work.restype = library.stem_work.restype = ctypes.c_long
    return library


def _place(floats: int) -> Tensor:
    """Memory of this thread, at least so many floats of it."""
    place: Tensor | None = getattr(_held, "place", None)
    if place is None or len(place) < floats:
        place = _held.place = torch.empty(floats)
    return place


def _at(x: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if x is None else x.data_ptr())
