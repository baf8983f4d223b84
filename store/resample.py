"""Bilinear upsampling in numpy, as torch's interpolate(mode="bilinear", align_corners=False) does it.

Whole factors, which is what a store needs (half and quarter grids), are made by slices: each of the k
phases of an output axis is a fixed mixture of a pixel and one neighbour. Other sizes gather, which is
several times slower.
"""

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.encoding import Floats


def bilinear(maps: Floats, size: tuple[int, int]) -> Floats:
    """Bring float32 (frame, y, x) to `size` = (y, x); pixel centres are aligned, edges are repeated."""
    return _along_x(_along_y(maps, size[0]), size[1])


def _along_y(maps: Floats, wanted: int) -> Floats:
    frames, length, width = maps.shape
    if wanted % length:
        low, high, near, far = _taps(length, wanted)
        gathered: Floats = maps[:, low] * near[:, None] + maps[:, high] * far[:, None]
        return gathered
    tall = np.empty((frames, length, wanted // length, width), np.float32)
    _fill_phases(maps, tall.transpose(2, 0, 1, 3), axis=1)
    return tall.reshape(frames, wanted, width)


def _along_x(maps: Floats, wanted: int) -> Floats:
    frames, height, length = maps.shape
    if wanted % length:
        low, high, near, far = _taps(length, wanted)
        gathered: Floats = maps[:, :, low] * near + maps[:, :, high] * far
        return gathered
    wide = np.empty((frames, height, length, wanted // length), np.float32)
    _fill_phases(maps, wide.transpose(3, 0, 1, 2), axis=2)
    return wide.reshape(frames, height, wanted)


def _fill_phases(maps: Floats, phases: Floats, axis: int) -> None:
    """Fill (phase, frame, y, x), the output pixels between each two input pixels of an axis.

    Phases lie around the input pixel in pairs, equally far from it: one mixes with the pixel before, one
    with that after.
    """
    factor = len(phases)
    head = (slice(None),) * axis
    first, last = (*head, slice(None, 1)), (*head, slice(-1, None))
    but_first, but_last = (*head, slice(1, None)), (*head, slice(None, -1))
    for phase in range((factor + 1) // 2):
        distance = np.float32((factor - 1 - 2 * phase) / (2 * factor))
        far = maps * distance
        near = maps - far
        before, after = phases[phase], phases[factor - 1 - phase]
        np.add(near[but_first], far[but_last], out=before[but_first])
        np.add(near[but_last], far[but_first], out=after[but_last])
        before[first], after[last] = maps[first], maps[last]


def _taps(length: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
    """For each output pixel its two inputs and their weights."""
    centres = np.maximum((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0.0)
    low = np.minimum(centres.astype(np.intp), length - 1)
    high = np.minimum(low + 1, length - 1)
    far = centres - low
    return low, high, (1.0 - far).astype(np.float32), far.astype(np.float32)
