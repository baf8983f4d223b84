"""Files that say where people looked in one frame: density maps as pictures, fixations as pictures or .mat.

Pictures are read by their first channel, whatever they are: grey, RGB, RGBA, palette, black and white, 16 bits. The
decision that is not obvious: a fixation in a PNG is any pixel that is not black, in a JPEG one that is brighter than
half of white, because JPEG leaves dark noise around every point (`data check` tells of it). Cost: some 2 ms for a
picture of 360x640, and as much for a .mat.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.gaze.label_videos import in_file, read_frame, read_points, video_of_maps
from tinyhd_pipe.stages.video.sources import is_lfs_pointer
from tinyhd_pipe.store.errors import DataError

PICTURES = (".png", ".jpg", ".jpeg")
"""Endings of density maps, and of fixation maps beside `.mat`."""
LOSSY = (".jpg", ".jpeg")
Size = tuple[int, int]
"""Height and width."""


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read channel 1 of a picture of 8 or 16 bits, as float32 (y, x) in [0, 1]. Raises DataError for what is none."""
    if label := in_file(path):
        return read_frame(label.file, label.frame)
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L") if picture.mode in ("1", "P", "PA") else picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path) from error
    if pixels.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: pixels are {pixels.dtype}; expected a PNG of 8 or 16 bits")
    channel = pixels if pixels.ndim == 2 else pixels[..., 0]
    return channel.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def picture_size(path: Path) -> Size:
    """Height and width by the header alone, 0.1 ms. Raises DataError for what is no picture."""
    if label := in_file(path):
        return video_of_maps(label.file).size
    try:
        with Image.open(path) as picture:
            return picture.height, picture.width
    except (OSError, SyntaxError, ValueError) as error:
        raise _unreadable(path) from error


def read_fixation_file(path: Path) -> NDArray[np.bool_]:
    """Read where people looked, bool (y, x), from a picture or a .mat. Raises DataError for what is neither."""
    if (label := in_file(path)) and label.size:
        return read_points(label.file, label.frame, label.size)
    if path.suffix.lower() == ".mat":
        return _read_mat(path)
    return read_grey(path) > (0.5 if path.suffix.lower() in LOSSY else 0)


def rescaled_points(fixations: NDArray[np.bool_], size: Size) -> NDArray[np.bool_]:
    """Fixations of a picture of another size: each point moves to the pixel that its middle falls into.

    Points are moved and never resampled: a resized picture of them would lose some and blur others.
    """
    points = np.argwhere(fixations)
    scale = np.array(size) / fixations.shape
    moved = np.zeros(size, bool)
    moved[tuple(np.floor((points + 0.5) * scale).astype(int).T)] = True
    return moved


def _unreadable(path: Path) -> DataError:
    advice = "is a Git LFS pointer; run git lfs pull" if is_lfs_pointer(path) else "download it again or delete it"
    return DataError(f"{path}: cannot be read as a picture; {advice}")


def _read_mat(path: Path) -> NDArray[np.bool_]:
    """Read a fixation map of a MATLAB file, (y, x), dense or sparse, as true where it is not zero.

    It is the variable `I`, or the one that there is.
    """
    fixations = read_mat(path, "a fixation map")
    if fixations.ndim != 2:
        shape = "x".join(map(str, fixations.shape))
        raise DataError(f"{path}: its variable is {fixations.dtype}, {shape}; expected a map of numbers (y, x)")
    return fixations > 0


def read_mat(path: Path, expected: str) -> NDArray[Any]:
    """The numbers of a MATLAB file, dense: its variable `I`, or the one that there is.

    Raises DataError, which names what was `expected`, for what is none.
    """
    try:
        variables = _variables_of_7_3(path) if _is_7_3(path) else _variables(path)
    except DataError:
        raise
    except Exception as error:  # scipy's reader raises a dozen kinds of error, down to zlib's
        raise DataError(f"{path}: cannot be read as a MATLAB file; download it again or delete it") from error
    name = "I" if "I" in variables else next(iter(variables), None)
    if name is None or (name != "I" and len(variables) > 1):
        there = ", ".join(sorted(variables)) or "none"
        raise DataError(f"{path}: has no variable 'I', but {there}; expected {expected} of that name, or one alone")
    values = variables[name]
    dense: NDArray[Any] = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    if dense.dtype.kind not in "biuf":
        shape = "x".join(map(str, dense.shape))
        raise DataError(f"{path}: variable {name!r} is {dense.dtype}, {shape}; expected a map of numbers (y, x)")
    return dense


def _is_7_3(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(19).startswith(b"MATLAB 7.3 MAT-file")


def _variables(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat  # slow to import, and needed for few data sets

    return {name: value for name, value in loadmat(path).items() if not name.startswith("__")}


def _variables_of_7_3(path: Path) -> dict[str, Any]:
    """Variables of an HDF5 file as MATLAB 7.3 writes it: columns first, sparse ones as groups."""
    try:
        import h5py
    except ImportError as error:
        raise DataError(f"{path}: is of MATLAB 7.3; pip install 'tinyhd-pipe[mat73]' to read it") from error
    from scipy.sparse import csc_matrix

    with h5py.File(path) as file:
        found: dict[str, Any] = {}
        for name, value in file.items():
            if name.startswith("#"):
                continue
            if isinstance(value, h5py.Dataset):
                found[name] = value[()].T
            elif "MATLAB_sparse" in value.attrs:
                rows, starts = int(value.attrs["MATLAB_sparse"]), value["jc"][()]
                indices = value["ir"][()] if "ir" in value else []
                data = value["data"][()] if "data" in value else []
                found[name] = csc_matrix((data, indices, starts), shape=(rows, len(starts) - 1))
    return found
