"""The maps of one video as others have left them, in whatever kind of file, by absolute frame.

    DIR/001/0016.png         pictures of 8 or 16 bits, .npy, .npz or .mat, one for each frame
    DIR/001.npy, .npz, .mat  one array (frame, y, x) for the whole video; of MATLAB (y, x, frame)
    DIR/001.zarr             the same as a zarr array, or as a group with `maps` and `frames`
    DIR/001.mkv              a grey film: its n-th frame is the map of the video's n-th frame

Values may be on any scale. The decision that is not obvious: files are read forwards and held a frame or a chunk at a
time, so an npz is unpacked as it is read and nobody needs room for a film of floats; what lies back costs beginning
again. No file may run code: nothing is unpickled. Cost: some 2 ms for a picture, less for an array.
"""

import hashlib
import json
import weakref
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.gaze.label_files import read_mat
from tinyhd_pipe.stages.gaze.label_folders import FrameNames, label_files
from tinyhd_pipe.stages.gaze.label_videos import read_frame
from tinyhd_pipe.stages.predictions.records import first_name_in
from tinyhd_pipe.stages.video.decoding import count_packets
from tinyhd_pipe.stages.video.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoSource, is_lfs_pointer, numbering_of
from tinyhd_pipe.store.errors import DataError

Values = NDArray[np.float32]
ARRAYS = (".npy", ".npz", ".mat")
OF_A_FRAME = (*ARRAYS, *IMAGE_SUFFIXES)
"""Endings of files that hold one map; where a frame has several, the exact ones go before those of 8 bits."""
OF_A_VIDEO = (*ARRAYS, *VIDEO_SUFFIXES)
ZARR = ".zarr"
FRAMES = ".frames.npy"
"""Ending of the numbers beside an array's name, as `store export` leaves them."""
GREY = 16
"""Levels of 255 by which the channels of a grey picture may differ, as JPEG makes them."""
HARMLESS = {None, "blosc", "zstd", "zlib", "gzip", "lz4", "bz2", "lzma", "shuffle", "delta", "fixedscaleoffset"}
"""Codecs of zarr v2 that only move bytes; its `pickle` would run code."""


@dataclass(frozen=True, eq=False)
class GivenMaps:
    """Maps of one video."""

    frames: NDArray[np.int64]
    """(map,) Absolute frames that there are maps of, rising."""
    read: Callable[[int], Values]
    """The map of one of them, float32 (y, x) as its file has it. Raises DataError for a file that holds none."""


def kind_of(place: Path) -> str:
    """pictures, arrays or film: what maps at this place are kept in."""
    if place.is_dir() and not _is_zarr(place):
        names = sorted(path.suffix.lower() for path in place.iterdir())
        return "arrays" if any(name in ARRAYS for name in names) else "pictures"
    return "film" if place.suffix.lower() in VIDEO_SUFFIXES else "arrays"


def given_maps(place: Path, source: VideoSource, first: int | None = None) -> GivenMaps:
    """The maps at a place of a video.

    Arguments:
        first: the number in the name of frame 0's map; None: as names are read everywhere (video/numbers.py).

    Raises DataError for what is no such file.
    """
    if _is_zarr(place):
        return _of_zarr(place, source)
    if place.is_dir():
        return _of_folder(place, source, first)
    if place.suffix.lower() in VIDEO_SUFFIXES:
        return _by_place(source, count_packets(VideoSource(place.name, place)), partial(read_frame, place))
    return _of_array(place, source)


def content_of(place: Path, source: VideoSource, first: int | None = None) -> str:
    """SHA-256 of all that the maps at a place are read from, names and frame numbers included."""
    total = hashlib.sha256(f"{first}".encode())
    if place.is_file():
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    files = [p for p in sorted(place.rglob("*")) if p.is_file()] if _is_zarr(place) else _files(place, source, first)
    for path in files.values() if isinstance(files, dict) else files:
        data = path.read_bytes()
        total.update(f"{path.relative_to(place).as_posix()}\0{len(data)}\0".encode(errors="surrogateescape") + data)
    return total.hexdigest()


def _is_zarr(place: Path) -> bool:
    return place.is_dir() and any((place / name).exists() for name in ("zarr.json", ".zarray", ".zgroup"))


def _files(folder: Path, source: VideoSource, first: int | None) -> dict[int, Path]:
    """Absolute frame to the file of its map, by rising frame."""
    made_by_predict = first_name_in(folder)
    base = first if made_by_predict is None else made_by_predict
    names = FrameNames.of(source) if base is None else FrameNames(base)
    found = label_files(folder.parent, [folder.name], OF_A_FRAME, names)
    return {frame: folder.parent / name for frame, name in found.items()}


def _of_folder(folder: Path, source: VideoSource, first: int | None) -> GivenMaps:
    files = _files(folder, source, first)
    return GivenMaps(np.array(list(files), np.int64), lambda frame: _one_map(files[frame]))


def _one_map(path: Path) -> Values:
    if path.suffix.lower() not in ARRAYS:
        return _picture(path)
    array = read_mat(path, "a map") if path.suffix.lower() == ".mat" else _stream(path, "map", "maps").whole()
    flat = array.squeeze()
    if flat.ndim != 2:
        raise DataError(f"{path}: holds {_shape(array)}; expected one map (y, x)")
    return flat.astype(np.float32)


def _picture(path: Path) -> Values:
    """A grey picture on its own scale."""
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L") if picture.mode in ("1", "P", "PA") else picture)
    except (OSError, SyntaxError, ValueError) as error:
        advice = "is a Git LFS pointer; run git lfs pull" if is_lfs_pointer(path) else "make or download it again"
        raise DataError(f"{path}: cannot be read as a picture; {advice}") from error
    if pixels.ndim == 3:
        colours = pixels[..., :3].astype(np.int32) if pixels.shape[2] > 2 else pixels[..., :1]
        if (colours.max(axis=-1) - colours.min(axis=-1)).max() > GREY:
            raise DataError(
                f"{path}: is coloured; expected a grey map, not one that is drawn in colours or over frames"
            )
        pixels = pixels[..., 0]
    return pixels.astype(np.float32)


def _by_place(source: VideoSource, count: int, read: Callable[[int], Values]) -> GivenMaps:
    """Maps of a video's frames as they come."""
    numbering = numbering_of(source)
    there = min(count, sum(run[2] for run in numbering.runs)) if numbering.runs else count
    places = {int(number): place for place, number in enumerate(numbering.numbers(np.arange(there)))}
    return GivenMaps(np.array(list(places), np.int64), lambda frame: read(places[frame]))


def _by_number(path: Path, frames: NDArray[Any], maps: int, read: Callable[[int], Values]) -> GivenMaps:
    """Maps of frames that are named beside them."""
    if frames.shape != (maps,) or frames.dtype.kind not in "iu" or (np.diff(frames) <= 0).any() or (frames < 0).any():
        raise DataError(f"{path}: frames are {_shape(frames)} for {maps} maps; expected a rising number for each")
    places = {int(number): place for place, number in enumerate(frames)}
    return GivenMaps(frames.astype(np.int64), lambda frame: read(places[frame]))


def _of_array(path: Path, source: VideoSource) -> GivenMaps:
    if path.suffix.lower() == ".mat":
        array = read_mat(path, "maps (y, x, frame)")
        if array.ndim != 3:
            raise DataError(f"{path}: holds {_shape(array)}; expected maps (y, x, frame)")
        packets = count_packets(source)
        if array.shape[0] != packets or array.shape[2] == packets:  # else it was written by Python
            array = np.moveaxis(array, -1, 0)
        return _by_place(source, len(array), lambda place: np.asarray(array[place], np.float32))
    stream = _stream(path, "maps")
    if len(stream.shape) == 4 and 1 in (stream.shape[1], stream.shape[3]):  # a channel
        y, x = stream.shape[2:] if stream.shape[1] == 1 else stream.shape[1:3]
    elif len(stream.shape) == 3:
        y, x = stream.shape[1:]
    else:
        raise DataError(f"{path}: holds {_by(stream.shape)} {stream.dtype}; expected maps (frame, y, x)")

    def read(place: int) -> Values:
        return stream.item(place).reshape(y, x).astype(np.float32)

    frames = _named_frames(path)
    count = stream.shape[0]
    return _by_place(source, count, read) if frames is None else _by_number(path, frames, count, read)


@dataclass(eq=False)
class _Stream:
    """An .npy file, or one within an .npz, that is read forwards."""

    path: Path
    member: str | None
    """Of an .npz."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int
    """Byte at which the values begin."""
    file: IO[bytes] | None = None

    def item(self, place: int) -> NDArray[Any]:
        """One of its first axis."""
        count = int(np.prod(self.shape[1:]))
        return self._read(place * count * self.dtype.itemsize, count)

    def whole(self) -> NDArray[Any]:
        return self._read(0, int(np.prod(self.shape))).reshape(self.shape)

    def _read(self, offset: int, count: int) -> NDArray[Any]:
        try:
            if self.file is None:
                self.file = _opened(self.path, self.member)
                weakref.finalize(self, self.file.close)
            self.file.seek(self.start + offset)
            data = self.file.read(count * self.dtype.itemsize)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: is cut short or damaged; download it again") from error
        if len(data) < count * self.dtype.itemsize:
            raise DataError(f"{self.path}: is cut short; download it again")
        return np.frombuffer(data, self.dtype)


def _stream(path: Path, *names: str) -> _Stream:
    """The array of an .npy, or of an .npz the one of these names, or the largest one."""
    try:
        member = _member(path, names) if path.suffix.lower() == ".npz" else None
        with _opened(path, member) as file:
            version = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
            start = file.tell()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        advice = "is a Git LFS pointer; run git lfs pull" if is_lfs_pointer(path) else "expected an array of numbers"
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]}; {advice}") from error
    if dtype.kind not in "biuf" or (fortran and len(shape) > 1):
        order = "by columns" if fortran else str(dtype)
        raise DataError(
            f"{path}: holds {_by(shape)} {order}; expected numbers by rows, as numpy.save(order='C') leaves"
        )
    return _Stream(path, member, shape, dtype, start)


def _member(path: Path, names: tuple[str, ...]) -> str:
    with zipfile.ZipFile(path) as zipped:
        there = {info.filename: info.file_size for info in zipped.infolist() if info.filename.endswith(".npy")}
    wanted = [f"{name}.npy" for name in names if f"{name}.npy" in there]
    return wanted[0] if wanted else max(there, key=lambda name: there[name], default="maps.npy")


def _opened(path: Path, member: str | None) -> IO[bytes]:
    return path.open("rb") if member is None else zipfile.ZipFile(path).open(member)


def _named_frames(path: Path) -> NDArray[Any] | None:
    """The array `frames` of an .npz, or beside an .npy, where there is one."""
    if path.suffix.lower() != ".npz":
        beside = path.with_suffix(FRAMES)
        return _stream(beside).whole() if beside.exists() else None
    with zipfile.ZipFile(path) as zipped:
        if "frames.npy" not in zipped.namelist():
            return None
    return _stream(path, "frames").whole()


def _of_zarr(place: Path, source: VideoSource) -> GivenMaps:
    _refuse_code(place)
    try:
        found = zarr.open(str(place), mode="r")
        maps = found["maps"] if isinstance(found, zarr.Group) else found
        frames = found["frames"][:] if isinstance(found, zarr.Group) and "frames" in found else None  # type: ignore[index]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{place}: no array of maps in it; expected one (frame, y, x), of a group named 'maps'"
        ) from error
    if not isinstance(maps, zarr.Array) or maps.ndim != 3 or maps.dtype.kind not in "biuf":
        raise DataError(f"{place}: holds {getattr(maps, 'shape', 'no array')}; expected maps (frame, y, x)")
    read = _in_chunks(place, maps)
    if frames is None:
        return _by_place(source, maps.shape[0], read)
    return _by_number(place, np.asarray(frames), maps.shape[0], read)


def _in_chunks(place: Path, maps: "zarr.Array[Any]") -> Callable[[int], Values]:
    """Reads a chunk of maps once for all of its frames."""
    length = max(1, maps.chunks[0])
    kept: dict[int, Values] = {}

    def read(frame: int) -> Values:
        chunk = frame // length
        if chunk not in kept:
            kept.clear()
            try:
                kept[chunk] = np.asarray(maps[chunk * length : (chunk + 1) * length], np.float32)
            except Exception as error:  # whatever a codec raises
                raise DataError(f"{place}: maps from {chunk * length} on cannot be read; download it again") from error
        wanted: Values = kept[chunk][frame - chunk * length]
        return wanted

    return read


def _refuse_code(place: Path) -> None:
    """Raise DataError where a zarr v2 array has a codec that might run code."""
    for path in (place / ".zarray", *place.glob("*/.zarray")):
        try:
            plain = json.loads(path.read_bytes()) if path.exists() else {}
        except ValueError as error:
            raise DataError(f"{path}: not JSON; download it again") from error
        codecs = [plain.get("compressor"), *(plain.get("filters") or [])]
        for name in ((codec or {}).get("id") for codec in codecs):
            if name not in HARMLESS:
                raise DataError(f"{path}: packed by {name!r}, which is not read here; write it as zarr v3, or as npz")


def _shape(array: NDArray[Any]) -> str:
    return f"{_by(array.shape)} {array.dtype}"


def _by(shape: Iterator[int] | tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one number"
