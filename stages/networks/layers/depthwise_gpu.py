"""Depthwise 3D convolution of channels-last features on a CUDA device, and its gradients: three Triton kernels.

cuDNN runs such a layer group by group. On an H100 the weights' gradient alone took 97 % of a bfloat16 step of TinyHD,
and torch's own kernels want contiguous features, on which batch norm is six times as slow. Here every program makes a
tile of neighbouring pixels times neighbouring channels (kernels/depthwise_triton.py). The decision that is not obvious:
the sum over pixels in a weight's gradient is made of partial sums that the shapes alone place, not of atomic ones, so
the same step gives the same bits.

Triton comes with every CUDA build of torch; nothing is imported where there is no such device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tinyhd_pipe.stages.networks.layers.kernels import depthwise_triton

SIDE = 3
"""Height and width of every kernel; its frames may be any number."""
TILE = 2048
"""Values that a program makes."""
ROUNDS = 8
"""Tiles that a program adds up for the weights' gradient, unless there would be too many programs."""
MOST_PARTS = 512
"""Partial sums of a weight's gradient."""


@dataclass(frozen=True)
class Layer:
    """The shapes of one call."""

    channels: int
    seen: Sequence[int]
    """(T, H, W) of the input."""
    made: Sequence[int]
    """(T, H, W) of the output."""
    frames: int
    """Of the kernel."""
    stride: Sequence[int]
    padding: Sequence[int]

    @classmethod
    def of(cls, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> "Layer":
        """x (B, C, T, H, W), weight (C, 1, t, 3, 3)."""
        made = [
            (size + 2 * beside - width) // step + 1
            for size, beside, width, step in zip(x.shape[2:], padding, weight.shape[2:], stride, strict=True)
        ]
        return cls(x.shape[1], x.shape[2:], made, weight.shape[2], stride, padding)

    def turned(self) -> "Layer":
        """From the output's gradient to the input's, where the stride is 1."""
        padding = [width - 1 - beside for width, beside in zip((self.frames, SIDE, SIDE), self.padding, strict=True)]
        return replace(self, seen=self.made, made=self.seen, padding=padding)

    @property
    def width(self) -> int:
        """Channels of a tile."""
        return 64 if self.channels % 64 == 0 else 32 if self.channels > 16 else 16

    def settings(self) -> dict[str, Any]:
        """What all kernels take."""
        names = ("T", "H", "W", "OT", "OH", "OW"), ("ST", "SH", "SW", "PT", "PH", "PW")
        values = (*self.seen, *self.made), (*self.stride, *self.padding)
        told = dict(zip(names[0], values[0], strict=True)) | dict(zip(names[1], values[1], strict=True))
        return told | {"C": self.channels, "KT": self.frames, "BC": self.width, "BP": TILE // self.width}


def depthwise(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """(B, C, T, H, W), channels-last, and (C, 1, t, 3, 3) to (B, C, T / stride, ...), channels-last, of the input's
    type."""
    layer = Layer.of(x, weight, stride, padding)
    y = _empty(x, layer.made)
    pixels = y.numel() // layer.channels
    with _on(x):
        depthwise_triton.forward[_grid(layer, pixels)](x, _by_tap(weight), y, pixels, **layer.settings())
    return y


def depthwise_backward(
    x: Tensor, weight: Tensor, of_output: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Gradients of input, channels-last and of its type, and weight, float32."""
    layer = Layer.of(x, weight, stride, padding)
    of_output = of_output.contiguous(memory_format=torch.channels_last_3d)
    of_input = _empty(x, layer.seen)
    pixels, made = of_input.numel() // layer.channels, of_output.numel() // layer.channels
    rows = layer.frames * SIDE
    tiles = _parts(made, TILE // layer.width)
    rounds = max(ROUNDS, _parts(tiles, MOST_PARTS))
    parts = _parts(tiles, rounds)
    partial = x.new_empty((parts, rows * SIDE, layer.channels), dtype=torch.float32)
    with _on(x):
        if set(stride) == {1}:
            # A convolution, too, with the kernel turned round: four times as fast as the general way.
            turned = layer.turned()
            taps = _by_tap(weight.flip(2, 3, 4))
            depthwise_triton.forward[_grid(layer, pixels)](of_output, taps, of_input, pixels, **turned.settings())
        else:
            tiles_of_input = _grid(layer, pixels)
            depthwise_triton.of_input[tiles_of_input](of_output, _by_tap(weight), of_input, pixels, **layer.settings())
        grid = (rows, _parts(layer.channels, layer.width), parts)
        depthwise_triton.of_weight[grid](x, of_output, partial, made, rounds, **layer.settings())
    of_weight = partial.sum(0).t().reshape(weight.shape)
    return of_input, of_weight.to(weight.dtype)


def _by_tap(weight: Tensor) -> Tensor:
    """(C, 1, t, 3, 3) to float32 (9 t, C), so that neighbouring channels are read at once."""
    return weight.flatten(1).t().float().contiguous()


def _empty(x: Tensor, sizes: Sequence[int]) -> Tensor:
    shape = (x.shape[0], x.shape[1], *sizes)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)


def _grid(layer: Layer, pixels: int) -> tuple[int, int]:
    return _parts(pixels, TILE // layer.width), _parts(layer.channels, layer.width)


def _on(x: Tensor) -> Any:
    """Triton launches where torch is, not where its arguments are."""
    return torch.cuda.device(x.device)


def _parts(count: int, size: int) -> int:
    """How many parts of this size it takes."""
    return -(-count // size)
