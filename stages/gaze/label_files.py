"""Files that say where people looked in one frame: density maps as pictures, fixations as pictures or .mat."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.video.sources import is_lfs_pointer
from tinyhd_pipe.store.errors import DataError


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read channel 1 of a picture of 8 or 16 bits, as (y, x) in [0, 1]."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L") if picture.mode in ("1", "P") else picture)
    except (OSError, SyntaxError, ValueError) as error:
        advice = "is a Git LFS pointer; run git lfs pull" if is_lfs_pointer(path) else "download it again or delete it"
        raise DataError(f"{path}: cannot be read as a picture; {advice}") from error
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: pixels are {pixels.dtype}; expected a PNG of 8 or 16 bits")
    channel = pixels if pixels.ndim == 2 else pixels[..., 0]
    return channel.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def read_mat(path: Path) -> NDArray[np.bool_]:
    """Read the variable `I` of a MATLAB file, (y, x), as true where it is not zero."""
    from scipy.io import loadmat  # slow to import, and needed for few data sets

    try:
        fixations = np.asarray(loadmat(path, variable_names=["I"])["I"])
    except Exception as error:  # scipy's reader raises a dozen kinds of error, down to zlib's
        raise DataError(
            f"{path}: no readable variable 'I'; expected a fixation map as MATLAB saves it with -v7"
        ) from error
    return fixations > 0
