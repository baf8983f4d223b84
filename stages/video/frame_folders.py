"""Folders of pictures as videos: what size they have, and one picture of them as a frame.

The decision that is not obvious: the size is that of most pictures, by their headers, and not that of the first one,
which may be a cover. Fifteen to thirty pictures, evenly spread, decide (all, of a smaller folder): 2 ms and one decoded
picture, however large the folder is.

Pillow reads more than it can convert: a grey picture of 16 bits is scaled here, because its own conversion clips at
255 and makes it white; floats and 32-bit numbers have no white that is known, so they count as broken.
"""

from collections import Counter
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from tinyhd_pipe.stages.video.names import escaped
from tinyhd_pipe.stages.video.sources import VideoSource, frame_files, is_lfs_pointer
from tinyhd_pipe.store.errors import VideoError

Picture = npt.NDArray[np.uint8]
"""(y, x, 3) uint8, RGB, upright."""
Size = tuple[int, int]
"""Height and width of an upright picture, in pixels."""
ASKED_FOR_THEIR_SIZE = 15
_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # an EXIF tag, and its values for pictures to be turned by a quarter


def folder_size(source: VideoSource) -> Size:
    """Height and width of a frame folder's video: those of most of its pictures, of which one at least decodes.

    Raises:
        VideoError: no picture decodes.
    """
    files = frame_files(source)
    asked = files[:: max(1, len(files) // ASKED_FOR_THEIR_SIZE)]
    sizes = Counter(size for path in asked if (size := _size_by_header(path)) is not None)
    for wanted in (*(size for size, _ in sizes.most_common()), None):
        for path in files:
            picture = read_image(path, wanted)
            if picture is not None:
                return picture.shape[0], picture.shape[1]
    if files and all(map(is_lfs_pointer, files)):
        raise VideoError(f"{source.where}: holds Git LFS pointers, not the pictures themselves; run git lfs pull")
    raise VideoError(f"{source.where}: none of its pictures decodes; copy them again or leave it out")


def _size_by_header(path: Path) -> Size | None:
    try:
        with Image.open(path) as image:
            return _upright_size(image)
    except Exception:  # as in read_image
        return None


def _upright_size(image: Image.Image) -> Size:
    """Of a picture that is open and not decoded: asking a PNG for EXIF that it does not announce would decode it."""
    asked = image.format != "PNG" or "exif" in image.info
    is_lying = asked and image.getexif().get(_ORIENTATION) in _LYING
    return (image.width, image.height) if is_lying else (image.height, image.width)


def read_image(path: Path, size: Size | None = None) -> Picture | None:
    """One picture of a frame folder, upright, RGB; None if it is broken, of unknown white, or not of `size`."""
    try:
        with Image.open(path) as image:
            picture = _rgb(ImageOps.exif_transpose(image), image.format)
    except Exception:  # Pillow's readers raise a dozen kinds of error, struct's and zlib's among them
        return None
    return picture if picture is not None and picture.shape[:2] == (size or picture.shape[:2]) else None


def _rgb(image: Image.Image, file_format: str | None) -> Picture | None:
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PPM")
    if has_16_bits:
        grey = (np.asarray(image).astype(np.uint32) + 128) // 257  # 65535 is 255, to the nearest
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        return None
    return cast(Picture, np.array(image.convert("RGB")))


def broken_pictures(failed: list[Path], frames: int) -> str:
    """What to say of a frame folder of which some pictures gave no frame."""
    first = escaped(failed[0].name)
    if is_lfs_pointer(failed[0]):
        return f"{len(failed)} of {frames} pictures are missing, {first} the first: a Git LFS pointer; run git lfs pull"
    return f"{len(failed)} of {frames} pictures are broken or of another size, {first} the first"
