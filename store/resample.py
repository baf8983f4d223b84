"""Bilinear upsampling in numpy, as torch's interpolate(mode="bilinear", align_corners=False) does it.

Whole factors, which is what a store needs (half and quarter grids), are made by slices: each of the k
phases of an output axis is a fixed mixture of a pixel and one neighbour. Other sizes gather, which is
several times slower.
"""

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.encoding import Floats


def bilinear(maps: Floats, size: tuple[int, int]) -> Floats:
    """Bring (frame, y, x) to `size` = (y, x); pixel centres are aligned, edges are repeated. float32
    throughout.
    """
    return _along_x(_along_y(maps, size[0]), size[1])


def _along_y(maps: Floats, wanted: int) -> Floats:
    frames, length, width = maps.shape
    if wanted % length:
        low, high, near, far = _taps(length, wanted)
        gathered: Floats = maps[:, low] * near[:, None] + maps[:, high] * far[:, None]
        return gathered
    factor = wanted // length
    tall = np.empty((frames, length, factor, width), np.float32)
    for phase in range(factor):
        _mix(maps, tall[:, :, phase], factor, phase, axis=1)
    return tall.reshape(frames, wanted, width)


def _along_x(maps: Floats, wanted: int) -> Floats:
    frames, height, length = maps.shape
    if wanted % length:
        low, high, near, far = _taps(length, wanted)
        gathered: Floats = maps[:, :, low] * near + maps[:, :, high] * far
        return gathered
    factor = wanted // length
    wide = np.empty((frames, height, length, factor), np.float32)
    for phase in range(factor):
        _mix(maps, wide[:, :, :, phase], factor, phase, axis=2)
    return wide.reshape(frames, height, wanted)


def _mix(maps: Floats, out: Floats, factor: int, phase: int, axis: int) -> None:
    """Every `factor`-th output pixel along an axis, from `phase` on."""
    distance = (2 * phase + 1 - factor) / (2 * factor)  # of the output pixel's centre from the input pixel's
    head = (slice(None),) * axis
    here, there = (slice(1, None), slice(None, -1)) if distance < 0 else (slice(None, -1), slice(1, None))
    edge = slice(None, 1) if distance < 0 else slice(-1, None)
    far = np.float32(abs(distance))
    np.multiply(maps, 1 - far, out=out)
    out[(*head, here)] += maps[(*head, there)] * far
    out[(*head, edge)] = maps[(*head, edge)]


def _taps(length: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
    """For each output pixel its two inputs and their weights."""
    centres = np.maximum((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0.0)
    low = np.minimum(centres.astype(np.intp), length - 1)
    high = np.minimum(low + 1, length - 1)
    far = centres - low
    return low, high, (1.0 - far).astype(np.float32), far.astype(np.float32)
