"""What published scripts do to a map before it is scored, by name: it moves figures, so it stands beside them.

    none     cubic resize with antialiasing, in float32, to the size of the truth
    png      divided by its maximum and rounded to 8 bits first, as a benchmark sees a good picture file
    tinyhd   minimum to maximum as 0 to 255, cut to whole numbers, OpenCV's cubic resize, its 5x5 Gaussian
    hd2s     cut to whole numbers of 1/255, Gaussian of deviation 7, divided by its maximum, cut to 8 bits again

The decision that is not obvious: OpenCV's cubic is another curve than MATLAB's and Pillow's (a = -3/4 instead of -1/2),
never antialiased, and its 5x5 Gaussian is the binomial 1 4 6 4 1 by its table for small kernels. Both are written here
from their documented formulas, rather than having OpenCV for two of them. Cost: 3 to 15 ms a map.

Sources: `generate.py` of TinyHD; `run_example.py` of TASED-Net, which HD2S took over.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.metrics import Array, quantise_as_png, resize_prediction, scaled_to_one
from tinyhd_pipe.stages.settings.evaluate import Postprocessing

OPENCV_CUBIC = -0.75
BINOMIAL = np.array([1, 4, 6, 4, 1], np.float32) / 16
HD2S_DEVIATION = 7.0
"""Pixels of the network's own grid."""


def postprocessed(prediction: Array, size: tuple[int, int], how: Postprocessing) -> NDArray[np.float32]:
    """A prediction as it is scored, float32 (y, x) of `size`, in [0, 1].

    `prediction` (y, x) in [0, 1], as the network gave it. A flat one stays flat.
    """
    values = np.asarray(prediction, np.float32)
    if how == "png":
        return resize_prediction(quantise_as_png(values), size)
    if how == "tinyhd" and values.max() > values.min():
        grey = np.floor(255 * scaled_to_one(values.astype(np.float64))).astype(np.float32)
        return _blurred(_opencv_resized(grey, size)) / np.float32(255)
    if how == "hd2s" and values.any():
        from scipy.ndimage import gaussian_filter  # slow to import

        blurred = gaussian_filter(np.floor(255 * values) / 255, sigma=HD2S_DEVIATION)
        return resize_prediction(np.floor(255 * blurred / (blurred.max() or 1)).astype(np.uint8), size)
    return resize_prediction(values, size)


def _opencv_resized(grey: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Whole numbers from 0 to 255, resized as OpenCV's INTER_CUBIC does it with 8 bits."""
    if grey.shape == size:
        return grey
    rows, columns = _cubic(grey.shape[0], size[0]), _cubic(grey.shape[1], size[1])
    return np.rint(rows @ grey @ columns.T).clip(0, 255)


@lru_cache(maxsize=64)
def _cubic(old: int, new: int) -> NDArray[np.float32]:
    """(new, old): what each old place weighs in each new one; places beyond the edge are the edge's."""
    where = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(where).astype(int) - 1
    weights = np.zeros((new, old), np.float32)
    for tap in range(4):
        place = (first + tap).clip(0, old - 1)
        np.add.at(weights, (np.arange(new), place), _cubic_weight(np.abs(where - (first + tap))))
    return weights


def _cubic_weight(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    a, d = OPENCV_CUBIC, distance
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _blurred(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 5x5 binomial of whole numbers, mirrored at the edge's middle, rounded to whole numbers."""
    from scipy.ndimage import correlate1d

    for axis in (0, 1):
        grey = np.asarray(correlate1d(grey, BINOMIAL, axis=axis, mode="mirror"), np.float32)
    blurred: NDArray[np.float32] = np.floor(grey + np.float32(0.5))
    return blurred
