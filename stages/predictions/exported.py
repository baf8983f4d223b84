"""Files of a store's maps for tools that do not read zarr: what is written of a video, or of some videos together.

    png           DIR/001.AVI/0001.png           8 bits, as `predict` writes them
    npy           DIR/001.AVI.npy                float16 (frame, y, x) in [0, 1]; 001.AVI.frames.npy: absolute numbers
    webdataset    DIR/maps-00000.tar             001_AVI/000000.final.npy and 001_AVI/000000.json, a sample a frame;
                                                 000000.jpg, the frame itself, of videos that are given
    parquet       DIR/maps-00000.parquet         columns video, frame, and one for each level: float32, y * x in rows

Frames without a valid map have no file and no row; of an npy they are NaN. The decision that is not obvious: names in
tars have no dot before the level, because WebDataset ends a sample's key at the first one. Bytes depend on the maps
alone (no times, no names of users). Cost: reading a map, and 1 to 5 ms to write it; a chunk of maps is held.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinyhd_pipe.stages.predictions.map_files import Map, pictures
from tinyhd_pipe.stages.predictions.map_reading import FRAMES
from tinyhd_pipe.stages.settings.predict import Brightness
from tinyhd_pipe.stages.video.decoding import Picture, decode
from tinyhd_pipe.stages.video.sources import VideoSource, numbering_of
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.reader import FrameStatus, Store

TOGETHER = 32
"""Maps that are read at once."""
JPEG_QUALITY = 92
"""Of frames in tars, which are otherwise as they decode."""
Maps = Mapping[str, Map]
"""Level -> map (y, x) of one frame."""


def maps_of(
    store: Store, video: str, levels: Sequence[str], size: tuple[int, int] | None
) -> Iterator[tuple[int, Maps | None]]:
    """(absolute frame, its maps) of every dumped frame of a video, by rising number; None where they are not valid."""
    frames = store.frames(video)
    status = store.status(video, frames)
    for start in range(0, len(frames), TOGETHER):
        some = frames[start : start + TOGETHER]
        valid = some[status[start : start + TOGETHER] == FrameStatus.VALID]
        read = store.read(video, valid, size, levels=levels) if len(valid) else {}
        places = {int(frame): place for place, frame in enumerate(valid)}
        for frame in some.tolist():
            place = places.get(frame)
            yield frame, None if place is None else {level: read[level][place] for level in levels}


def write_pictures(folder: Path, maps: Iterator[tuple[int, Maps | None]], level: str, brightness: Brightness) -> int:
    """A PNG for every valid frame, named by its number from 1; returns how many."""
    count = 0
    with pictures(folder, 1, brightness) as add:
        for frame, several in maps:
            if several is not None:
                add(frame, several[level])
                count += 1
    return count


def write_array(path: Path, maps: Iterator[tuple[int, Maps | None]], level: str, shape: tuple[int, int, int]) -> int:
    """One .npy of all dumped frames, and beside it their numbers; returns how many are valid."""
    frames: list[int] = []
    count, missing = 0, np.full(shape[1:], np.nan, np.float16)
    with path.open("wb") as file:  # not by a memory map, in which a full disk is a signal and no error
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for frame, several in maps:
            file.write((missing if several is None else several[level].astype("<f2")).tobytes())
            frames.append(frame)
            count += several is not None
    np.save(frames_file(path), np.array(frames, np.int64))
    return count


def frames_file(path: Path) -> Path:
    """Where the numbers of an array's frames lie."""
    return path.with_suffix(FRAMES)


def write_tar(
    path: Path,
    videos: Sequence[tuple[str, Iterator[tuple[int, Maps | None]]]],
    sources: Mapping[str, VideoSource],
) -> int:
    """A sample for every valid frame of these videos, the frame itself in it where its video is among the sources;
    returns how many."""
    count = 0
    with tarfile.open(path, "w") as tar:
        for video, maps in videos:
            key = key_in_tars(video)
            shown = _shown(sources[video]) if video in sources else None
            for frame, several in maps:
                if several is None:
                    continue
                name = f"{key}/{frame:06d}"
                if shown is not None:
                    _add(tar, f"{name}.jpg", _as_jpeg(next(picture for number, picture in shown if number == frame)))
                for level, one in several.items():
                    _add(tar, f"{name}.{level}.npy", _as_npy(one))
                _add(tar, f"{name}.json", json.dumps({"video": video, "frame": frame}).encode())
                count += 1
    return count


def key_in_tars(video: str) -> str:
    """What a video's samples are named by."""
    return video.replace(".", "_")


def _shown(source: VideoSource) -> Iterator[tuple[int, Picture | None]]:
    """(absolute number, frame) of a video, one after another."""
    numbering = numbering_of(source)
    for place, picture in enumerate(decode(source)):
        yield int(numbering.numbers(place)), picture


def _as_jpeg(picture: Picture | None) -> bytes:
    assert picture is not None, "a frame that did not decode has no valid map"
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def write_table(path: Path, videos: Sequence[tuple[str, Iterator[tuple[int, Maps | None]]]]) -> int:
    """A row for every valid frame of these videos; returns how many. Raises SettingError without pyarrow."""
    pa, parquet = pyarrow()
    writer, count = None, 0
    for rows in _rows(videos):
        levels = list(rows[0][2])
        columns: dict[str, Any] = {
            "video": pa.array([video for video, _, _ in rows], pa.string()),
            "frame": pa.array([frame for _, frame, _ in rows], pa.int64()),
        }
        for level in levels:
            maps = np.stack([several[level] for _, _, several in rows])
            flat = pa.array(maps.reshape(-1), pa.float32())
            columns[level] = pa.FixedSizeListArray.from_arrays(flat, maps[0].size)
        if writer is None:
            grids = {level: "x".join(map(str, rows[0][2][level].shape)) for level in levels}
            schema = pa.table(columns).schema.with_metadata({f"grid of {name}": grid for name, grid in grids.items()})
            writer = parquet.ParquetWriter(path, schema, compression="zstd")
        writer.write_table(pa.table(columns, schema=schema))
        count += len(rows)
    if writer is not None:
        writer.close()
    return count


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and its parquet, which are heavy. Raises SettingError where they are missing."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise SettingError("--format parquet: needs pyarrow; pip install 'tinyhd-pipe[parquet]'") from error
    return pyarrow, parquet


def _rows(
    videos: Sequence[tuple[str, Iterator[tuple[int, Maps | None]]]],
) -> Iterator[list[tuple[str, int, Maps]]]:
    """Rows of the table, TOGETHER at a time."""
    rows: list[tuple[str, int, Maps]] = []
    for video, maps in videos:
        for frame, several in maps:
            if several is not None:
                rows.append((video, frame, several))
            if len(rows) == TOGETHER:
                yield rows
                rows = []
    if rows:
        yield rows


def _as_npy(saliency: Map) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, saliency.astype(np.float16))
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
