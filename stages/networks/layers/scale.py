"""Frames as a network wants them by our kernel (kernels/scale.c), for networks that only predict, and for GPUs.

torch makes floats of the whole frame, scales them, and passes over what is left twice more: as long as decoding the
frame. The decision that is not obvious: dumps and trainings on a CPU are scaled torch's way, since the last bits are
others. Cost: .2 ms for a frame of 640x480.
"""

import ctypes
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.networks.layers.kernels import kernels


class _Scaling(ctypes.Structure):
    """`Scaling` of scale.c."""

    _fields_ = (
        *((name, ctypes.c_long) for name in ("in_y", "in_x", "y", "x")),
        ("mean", ctypes.c_float * 3),
        ("std", ctypes.c_float * 3),
    )


def scale_into(place: Tensor, picture: NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> None:
    """Write a frame, uint8 (Y, X, 3), scaled to `place`, contiguous float32 (y, x, 3)."""
    library = kernels().library
    assert library is not None  # whoever asks for it has looked
    picture = np.ascontiguousarray(picture)
    facts = _Scaling(*picture.shape[:2], *place.shape[:2], (ctypes.c_float * 3)(*mean), (ctypes.c_float * 3)(*std))
    library.scale(ctypes.c_void_p(picture.ctypes.data), ctypes.c_void_p(place.data_ptr()), facts)
