"""Bilinear upsampling of logits in numpy, as torch's interpolate(mode="bilinear", align_corners=False) does
it.
"""

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.encoding import Floats


def bilinear(logits: Floats, size: tuple[int, int]) -> Floats:
    """Bring (frame, y, x) to `size` = (y, x); pixel centres are aligned, edges are repeated. float32
    throughout.
    """
    low, high, near, far = _taps(logits.shape[2], size[1])
    wide: Floats = logits[:, :, low] * near + logits[:, :, high] * far  # (frame, y, X)
    low, high, near, far = _taps(logits.shape[1], size[0])
    full: Floats = wide[:, low] * near[:, None] + wide[:, high] * far[:, None]  # (frame, Y, X)
    return full


def _taps(length: int, wanted: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats, Floats]:
    """For each output pixel its two inputs and their weights."""
    centres = np.maximum((np.arange(wanted) + 0.5) * (length / wanted) - 0.5, 0.0)
    low = np.minimum(centres.astype(np.intp), length - 1)
    high = np.minimum(low + 1, length - 1)
    far = centres - low
    return low, high, (1.0 - far).astype(np.float32), far.astype(np.float32)
