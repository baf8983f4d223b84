"""Points that people looked at as fixation and density maps, in the files of the DHF1K layout.

A density map is the sum of a Gaussian around every point, cut off at four standard deviations, divided by its maximum:
`scipy.ndimage.gaussian_filter(counts, sigma, mode="constant", truncate=4)`, which a test holds it to. The decision that
is not obvious: frames have few points, so the Gaussian is separated around each of them and the sum is one product of
matrices, (y, point) with (point, x), many times as fast as the filter. Maps are 8 bit, files have the same bytes every
time, and a video's folder is written beside and renamed. Frames that nobody looked at have no files.
"""

import io
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.gaze.gaze_points import Points

TRUNCATE = 4.0
"""Standard deviations at which the Gaussian is cut off."""
Files = Literal["png", "mat", "both"]
Floats = NDArray[np.float64]
Pixels = tuple[NDArray[np.int64], NDArray[np.int64]]
"""y and x, (point,) each."""


class Gaussian:
    """A Gaussian that is cut off, around any pixel of a picture of one size."""

    def __init__(self, size: tuple[int, int], sigma: tuple[float, float]) -> None:
        self.size = size
        self._of_y, self._of_x = (_around(side, width) for side, width in zip(size, sigma, strict=True))

    def density(self, y: NDArray[np.int64], x: NDArray[np.int64]) -> Floats:
        """The sum of Gaussians around these pixels (point,) as (y, x), its maximum 1."""
        total = self._of_y[y].T @ self._of_x[x]
        return np.asarray(total / total.max())


def _around(side: int, sigma: float) -> Floats:
    """(pixel, pixel): the Gaussian around each one."""
    away = np.abs(np.arange(side)[:, None] - np.arange(side))
    reach = int(TRUNCATE * sigma + 0.5)  # as scipy rounds it
    return np.where(away <= reach, np.exp(-0.5 * (away / sigma) ** 2), 0.0)


def write_maps(
    folder: Path,
    points: Points,
    gaussian: Gaussian,
    labels: Sequence[str],
    *,
    pool: int,
    files: Files,
    report: Callable[[int], None] = lambda frame: None,
) -> int:
    """Write all maps of a video into `folder`, in place of what is there; returns how many frames have fixations.

    A frame's density map is of the points of `pool` frames, its own in the middle. `labels` (frame,) are the names of
    files. `report` is told which frame was written last. Raises OSError where the disk is full; what was there is then
    still there.
    """
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    for name in ("maps", *(["fixation"] if files != "mat" else []), *(["fixation/maps"] if files != "png" else [])):
        (beside / name).mkdir(parents=True, exist_ok=True)
    looked_at, reach = np.unique(points.frame), pool // 2
    near = np.unique((looked_at[:, None] + np.arange(-reach, reach + 1)).ravel())
    near = near[(near >= 0) & (near < len(labels))]

    def write(frame: int) -> int:
        name = labels[frame]
        _write_png(beside / "maps" / f"{name}.png", _as_8_bit(gaussian.density(*points.of(frame, reach))))
        if len(points.of(frame)[0]):
            _write_fixations(beside / "fixation", name, points.of(frame), gaussian.size, files)
        return frame

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for frame in threads.map(write, near.tolist()):
            report(frame)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return len(looked_at)


def _as_8_bit(density: Floats) -> NDArray[np.uint8]:
    return np.rint(density * 255).astype(np.uint8)


def _write_fixations(folder: Path, name: str, at: Pixels, size: tuple[int, int], files: Files) -> None:
    fixations = np.zeros(size, np.uint8)
    fixations[at] = 255
    if files != "mat":
        _write_png(folder / f"{name}.png", fixations)
    if files != "png":
        (folder / "maps" / f"{name}.mat").write_bytes(_as_mat(fixations))


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    Image.fromarray(pixels).save(path, compress_level=4)


def _as_mat(fixations: NDArray[np.uint8]) -> bytes:
    """A .mat file with the variable `I`, as DHF1K's; scipy writes the date into its first 116 bytes, which are text."""
    from scipy.io import savemat  # slow to import

    packed = io.BytesIO()
    savemat(packed, {"I": (fixations > 0).astype(np.uint8)}, do_compression=True)
    return b"MATLAB 5.0 MAT-file, made by tinyhd-pipe".ljust(116) + packed.getvalue()[116:]
