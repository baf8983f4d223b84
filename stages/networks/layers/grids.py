"""Clips on finer grids by our kernels (kernels/grids.c), for networks that only predict on a CPU.

torch's pixel shuffle of a clip is three copies, and its trilinear interpolation walks the eight neighbours of every
value: together they take longer than all fused convolutions of a small student. The decision that is not obvious: a
shuffle and the doubling of frames that follows it in a network of 16 outputs are one pass. Cost: that pass.
"""

import ctypes

from torch import Tensor

from tinyhd_pipe.stages.networks.layers.kernels import kernels


class _Grid(ctypes.Structure):
    """`Grid` of grids.c."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("planes", "t", "y", "x", "time", "space"))


def shuffled(x: Tensor, *, time: int) -> Tensor:
    """Height and width doubled out of the channels, then `time` frames for each: contiguous float32
    (B, 4C, T, H, W) to (B, C, time T, 2H, 2W)."""
    batch, channels, frames, height, width = x.shape
    y = x.new_empty(batch, channels // 4, time * frames, 2 * height, 2 * width)
    return _made("shuffle", x, y, _Grid(batch * channels, frames, height, width, time, 2))


def interpolated(x: Tensor, *, time: int, space: int) -> Tensor:
    """Trilinear with corners aligned: contiguous float32 (B, C, T, H, W) to (B, C, time T, space H, space W)."""
    batch, channels, frames, height, width = x.shape
    y = x.new_empty(batch, channels, time * frames, space * height, space * width)
    return _made("interpolate", x, y, _Grid(batch * channels, frames, height, width, time, space))


def _made(name: str, x: Tensor, y: Tensor, grid: _Grid) -> Tensor:
    library = kernels().library
    assert library is not None  # whoever fuses a network asks first
    x = x.contiguous()
    getattr(library, name)(ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), grid)
    return y
