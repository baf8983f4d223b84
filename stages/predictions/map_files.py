"""Files of predicted maps: a picture for each frame, or one file for a video.

    DIR/001.AVI/0001.png     8 bits; named as the frame's picture is in a folder, else by the frame's number from 1
    DIR/001.AVI.npz          maps: float16 (frame, y, x) in [0, 1]; frames: (frame,) absolute numbers from 0
    DIR/001.AVI.zarr         the same two arrays, as a group of zarr v3

The decision that is not obvious: of 8 bits, a map's own maximum is 255 by default, because maps peak near .05 and would
keep a dozen grey levels; metrics do not depend on scale, but who compares frames with one another wants `absolute`, in
which 255 is 1. Maps are written as they come, and held 64 at most; a file that is one for a video is there when it is
whole. Cost: 1 to 2 ms a picture.
"""

import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.gaze.metrics import quantise_as_png
from tinyhd_pipe.stages.settings.predict import Brightness
from tinyhd_pipe.stages.video.sources import VideoSource, frame_names

Map = NDArray[np.float32]
Add = Callable[[int, Map], None]
"""Takes (absolute frame, map (y, x) in [0, 1]), by rising frame."""
TOGETHER = 64
"""Maps in a chunk of a zarr array."""


def first_name(source: VideoSource) -> int:
    """The number in the name of frame 0's map: 1, but 0 of a folder whose pictures count from 0 (video/numbers.py).

    Raises VideoError for a folder that cannot be read.
    """
    found = frame_names(source.path) if source.is_frame_folder else None
    return found.base if found and found.numbered else 1


def eight_bits(saliency: Map, brightness: Brightness) -> NDArray[np.uint8]:
    """A map (y, x) in [0, 1] as uint8 (y, x): its own maximum is 255, or 1 is."""
    if brightness == "peak":
        return quantise_as_png(saliency)
    grey: NDArray[np.uint8] = np.rint(saliency * np.float32(255)).clip(0, 255).astype(np.uint8)
    return grey


def frames_there(folder: Path, base: int) -> frozenset[int]:
    """The absolute frames of which `pictures` has left a map."""
    return frozenset(int(path.stem) - base for path in folder.glob("*.png") if path.stem.isdecimal())


@contextmanager
def pictures(folder: Path, base: int, brightness: Brightness) -> Iterator[Add]:
    """Writes each map as a PNG, which is whole or not there; frame 0 is named `base`."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / ".partial"

    def add(frame: int, saliency: Map) -> None:
        # Maps are smooth: harder compression takes four times as long for a tenth less, and runs are all there is.
        picture = Image.fromarray(eight_bits(saliency, brightness))
        picture.save(partial, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
        partial.replace(folder / f"{frame + base:04d}.png")

    try:
        yield add
    finally:
        partial.unlink(missing_ok=True)
        with suppress(OSError):  # only if it is empty: of what does not decode nothing is left
            folder.rmdir()


@contextmanager
def archive(path: Path, facts: Mapping[str, Any]) -> Iterator[Add]:
    """Writes all maps as one npz, with `facts` as JSON in its third array; maps wait in a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    waiting, partial = path.with_name(f".{path.name}.waiting"), path.with_name(f".{path.name}.partial")
    frames: list[int] = []
    size: tuple[int, ...] = ()
    try:
        with waiting.open("w+b") as maps:

            def add(frame: int, saliency: Map) -> None:
                nonlocal size
                size = saliency.shape
                frames.append(frame)
                maps.write(saliency.astype("<f2").tobytes())

            yield add
            maps.seek(0)
            with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
                with zipped.open("maps.npy", "w", force_zip64=True) as member:
                    header = {"descr": "<f2", "fortran_order": False, "shape": (len(frames), *size)}
                    np.lib.format.write_array_header_2_0(member, header)
                    shutil.copyfileobj(maps, member)
                for name, array in (("frames", np.array(frames, np.int64)), ("facts", np.array(json.dumps(facts)))):
                    with zipped.open(f"{name}.npy", "w") as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        partial.replace(path)
    finally:
        waiting.unlink(missing_ok=True)
        partial.unlink(missing_ok=True)


@contextmanager
def zarr_group(path: Path, facts: Mapping[str, Any]) -> Iterator[Add]:
    """Writes all maps as one group of zarr v3, with `facts` as its attributes."""
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    frames: list[int] = []
    waiting: list[NDArray[np.float16]] = []
    partial.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.open_group(str(partial), mode="w", zarr_format=3, attributes=dict(facts))

    def flush() -> None:
        if waiting:
            block = np.stack(waiting)
            if "maps" not in group:
                shape = (0, *block.shape[1:])
                chunks = (TOGETHER, *block.shape[1:])
                axes = ("frame", "y", "x")
                group.create_array("maps", shape=shape, chunks=chunks, dtype="float16", dimension_names=axes)
            array = group["maps"]
            assert isinstance(array, zarr.Array)
            array.append(block)
            waiting.clear()

    def add(frame: int, saliency: Map) -> None:
        frames.append(frame)
        waiting.append(saliency.astype(np.float16))
        if len(waiting) == TOGETHER:
            flush()

    try:
        yield add
        flush()
        group.create_array("frames", data=np.array(frames, np.int64), dimension_names=("frame",))
        shutil.rmtree(path, ignore_errors=True)
        partial.replace(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
