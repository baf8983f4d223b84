"""Reading maps: any frames of any video, by absolute frame number.

One contiguous read for each window and level: the chunks of a video lie one after another in its shard's
file. Opened files are kept, with their indices, up to a limit, so memory does not grow with the store. A
`Store` pickles as its URL and opens itself again where it is unpickled.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyhd_pipe.store.cache import ChunkCache
from tinyhd_pipe.store.catalogue import Catalogue, read_catalogue
from tinyhd_pipe.store.codec import decode_chunk
from tinyhd_pipe.store.data_file import ADVICE, DataFile
from tinyhd_pipe.store.encoding import (
    Codes,
    Floats,
    logit_table,
    look_up,
    map_table,
    pair_table,
    sigmoid_of_negative,
)
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import Manifest, VideoRow
from tinyhd_pipe.store.resample import bilinear
from tinyhd_pipe.store.schema import Description, Level, read_description
from tinyhd_pipe.store.storage import Storage, open_storage

OPEN_FILES = 128
CACHE_BYTES = 64 * 2**20
Piece = tuple[int, Codes]


class Span(NamedTuple):
    """Adjacent rows of one shard."""

    manifest: Manifest
    place: int
    """Where the first of them stands among the wanted frames."""
    row: int
    rows: int


class FrameStatus(IntEnum):
    """What the store can say about a frame of a video it lists."""

    VALID = 0
    FAILED = 1
    """The frame should have a map, but could not be decoded or mapped."""
    NEVER_DUMPED = 2
    """Not among the frames that the dump was asked for (--every), or after the last decoded one."""


def open_store(url: str | os.PathLike[str], *, cache_bytes: int = CACHE_BYTES) -> "Store":
    """Open a store for reading: a local path or any fsspec URL.

    `cache_bytes` bounds the decoded chunks that are kept for reads to come. Raises `StoreError` where there
    is no store.
    """
    store = Store(os.fspath(url), cache_bytes)
    _ = store.description  # says at once that there is no store, rather than at the first read
    return store


class Store:
    """Teacher maps of many videos. Cheap to make and to pickle; files are opened when first needed."""

    def __init__(self, url: str, cache_bytes: int = CACHE_BYTES) -> None:
        self.url = url
        self._cache_bytes = cache_bytes
        self._decoded = ChunkCache(cache_bytes)
        self._open: OrderedDict[tuple[int, str], DataFile] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "cache_bytes": self._cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Store.__init__(self, **state)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @cached_property
    def storage(self) -> Storage:
        return open_storage(self.url)

    @cached_property
    def description(self) -> Description:
        """What the store says about itself."""
        description = read_description(self.storage)
        if description is None:
            raise StoreError(f"{self.url}: no store there: make one with 'tinyhd-pipe teacher-dump'")
        return description

    @cached_property
    def _catalogue(self) -> Catalogue:
        return read_catalogue(self.storage)

    @cached_property
    def _value_tables(self) -> Mapping[str, NDArray[np.complex64]]:
        """Map values of pairs of codes, for each level."""
        return {level.name: pair_table(map_table(level.scale, level.offset)) for level in self.description.levels}

    @cached_property
    def videos(self) -> list[str]:
        """Ids of all videos, those that failed altogether included, sorted."""
        return sorted(self._catalogue.runs_of)

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the maps that a frame has; each may be there for the mirrored clip, too."""
        return tuple(level.name for level in self.description.levels if level.mirror_of is None)

    @property
    def mirrored(self) -> bool:
        """Whether the teacher's maps of the clips mirrored left to right are there, too."""
        return self.description.flip == "both"

    @property
    def manifests(self) -> Sequence[Manifest]:
        """The shards that count, in order of their numbers."""
        return self._catalogue.manifests

    @property
    def every(self) -> int:
        """Frames 0, every, 2 * every, ... have maps."""
        return self.description.every

    def video(self, video_id: str) -> VideoRow:
        """What is known of one video: frames, digest, size, rate, problem, failed frames, rows in all shards."""
        runs = self._runs(video_id)
        rows = [row for _, row in runs]
        return replace(
            rows[0],
            frames=max(row.frames for row in rows),
            rows=sum(row.rows for row in rows),
            failed=tuple(frame for row in rows for frame in row.failed),
        )

    def info(self) -> dict[str, Any]:
        """The store's facts as plain data: its description, and counts of shards, videos, maps and bytes.

        Beside them what the same maps would take as plain arrays, every level on the teacher's grid.
        """
        manifests = self.manifests
        plain = self.description.to_plain()
        for name, level in plain["levels"].items():
            level["bytes"] = sum(manifest.levels[name].bytes for manifest in manifests if manifest.rows)
        frames = sum(sum(manifest.columns["rows"]) for manifest in manifests)
        pixels = frames * len(plain["levels"]) * self.description.teacher_grid[0] * self.description.teacher_grid[1]
        return {
            "url": self.url,
            **plain,
            "shards": len(manifests),
            "videos": len(self._catalogue.runs_of),
            "videos_with_problems": sum(len(manifest.problems) for manifest in manifests),
            "frames_with_maps": frames,
            "failed_frames": sum(len(frames) for manifest in manifests for frames in manifest.failed.values()),
            "bytes": sum(file.bytes for manifest in manifests for file in manifest.levels.values()),
            "bytes_as_float32": 4 * pixels,
            "bytes_as_float16": 2 * pixels,
        }

    def status(self, video_id: str, frames: ArrayLike) -> NDArray[np.uint8]:
        """`FrameStatus` of each of these absolute frames, uint8."""
        wanted = _whole_numbers(frames)
        status = np.full(len(wanted), FrameStatus.NEVER_DUMPED, np.uint8)
        for _, row in self._runs(video_id):
            since = row.numbering.places(wanted) - row.first_frame
            status[(since >= 0) & (since % self.every == 0) & (since // self.every < row.rows)] = FrameStatus.VALID
            if row.failed:
                status[np.isin(wanted, row.failed)] = FrameStatus.FAILED
        return status

    def frames(self, video_id: str) -> NDArray[np.int64]:
        """Absolute frames of a video that were dumped, those that failed included, by rising number."""
        found = [
            row.numbering.numbers(row.first_frame + np.arange(row.rows) * self.every) for _, row in self._runs(video_id)
        ]
        return np.concatenate(found)

    def read(
        self,
        video_id: str,
        frames: ArrayLike,
        size: tuple[int, int] | None = None,
        *,
        levels: Iterable[str] | None = None,
        mirrored: bool = False,
    ) -> dict[str, Floats]:
        """Maps of these absolute frames, in this order: level -> float32 (frame, y, x) in [0, 1].

        Each level comes on its own grid, or with `size` = (y, x) all on one grid as the live teacher gave
        them (bilinear upsampling of the logits, then sigmoid). With `mirrored` they are the teacher's maps of
        the clip mirrored left to right: what is on the left of the video is on their right. Raises `StoreError`,
        naming them, where frames have no valid map: a missing map must never become a target.
        """
        wanted, spans, chosen = self._wanted(video_id, frames, levels, mirrored)
        maps = _empty(chosen, len(wanted), np.float32, size)
        for level in chosen:
            values = maps[level.kind]
            for start, codes in self._codes(level, spans):
                out = values[start : start + len(codes)]
                if values.shape[1:] == level.grid:
                    look_up(self._value_tables[level.name], codes, out)
                else:
                    _upsample(level, codes, out)
        return maps

    def read_codes(
        self, video_id: str, frames: ArrayLike, *, levels: Iterable[str] | None = None, mirrored: bool = False
    ) -> dict[str, Codes]:
        """The same as `read`, as stored: level -> uint8 (frame, y, x), to be scaled wherever that is cheapest.

        The logit is code * scale + offset of the level (`description.levels`). A quarter of the bytes of `read`.
        """
        wanted, spans, chosen = self._wanted(video_id, frames, levels, mirrored)
        codes: dict[str, Codes] = _empty(chosen, len(wanted), np.uint8)
        for level in chosen:
            for start, piece in self._codes(level, spans):
                codes[level.kind][start : start + len(piece)] = piece
        return codes

    def read_logits(
        self, video_id: str, frames: ArrayLike, *, levels: Iterable[str] | None = None, mirrored: bool = False
    ) -> dict[str, Floats]:
        """The same as `read`, before the sigmoid and on the stored grids."""
        wanted, spans, chosen = self._wanted(video_id, frames, levels, mirrored)
        logits = _empty(chosen, len(wanted), np.float32)
        for level in chosen:
            table = logit_table(level.scale, level.offset)
            for start, codes in self._codes(level, spans):
                logits[level.kind][start : start + len(codes)] = table[codes]
        return logits

    def _runs(self, video_id: str) -> list[tuple[Manifest, VideoRow]]:
        catalogue = self._catalogue
        try:
            runs = catalogue.runs_of[video_id]
        except KeyError:
            raise StoreError(f"{video_id}: not in {self.url}: dump it first with 'tinyhd-pipe teacher-dump'") from None
        found = []
        for run in (runs,) if isinstance(runs, int) else runs:
            shard = int(np.searchsorted(catalogue.first_run, run, side="right")) - 1
            manifest = catalogue.manifests[shard]
            found.append((manifest, manifest.row(run - int(catalogue.first_run[shard]))))
        return found

    def _wanted(
        self, video_id: str, frames: ArrayLike, levels: Iterable[str] | None, mirrored: bool
    ) -> tuple[NDArray[np.int64], list[Span], list[Level]]:
        """The wanted frames, where their rows lie, and the wanted levels. Raises `StoreError` where there are none."""
        wanted = _whole_numbers(frames)
        self._refuse_missing(video_id, wanted)
        names = set(self.levels if levels is None else levels)
        if unknown := names.difference(self.levels):
            raise StoreError(f"{self.url}: has no level {sorted(unknown)}, but {list(self.levels)}")
        if mirrored and not self.mirrored:
            raise StoreError(f"{self.url}: has no maps of mirrored clips: make a store with 'teacher-dump --flip both'")
        chosen = [
            level
            for level in self.description.levels
            if level.kind in names and (level.mirror_of is not None) == mirrored
        ]
        return wanted, self._spans(video_id, wanted), chosen

    def _spans(self, video_id: str, wanted: NDArray[np.int64]) -> list[Span]:
        """The wanted frames as stretches of adjacent rows, in the order in which they were asked for."""
        spans = []
        runs = self._runs(video_id)
        wanted = runs[0][1].numbering.places(wanted)
        run = np.searchsorted([row.first_frame for _, row in runs], wanted, side="right") - 1
        rows = np.empty(len(wanted), np.int64)
        for number, (_, row) in enumerate(runs):
            rows[run == number] = row.first_row + (wanted[run == number] - row.first_frame) // self.every
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(run) != 0)) + 1
        for start, stop in pairwise((0, *breaks.tolist(), len(wanted))):
            if start < stop:
                spans.append(Span(runs[run[start]][0], start, int(rows[start]), stop - start))
        return spans

    def _codes(self, level: Level, spans: list[Span]) -> Iterator[Piece]:
        """(place among the wanted frames, codes (frame, y, x)) of each stretch, chunk by chunk."""
        length = self.description.chunk_frames
        for span in spans:
            first, last = span.row // length, (span.row + span.rows - 1) // length
            for chunk, codes in enumerate(self._chunks(span.manifest, level, first, last), start=first):
                start = max(span.row - chunk * length, 0)
                stop = min(span.row + span.rows - chunk * length, length)
                yield span.place + chunk * length + start - span.row, codes[start:stop]

    def _chunks(self, manifest: Manifest, level: Level, first: int, last: int) -> Iterator[Codes]:
        """Decoded adjacent chunks; those that are not remembered are read together."""
        keys = [(manifest.number, level.name, chunk) for chunk in range(first, last + 1)]
        known = [self._decoded.get(key) for key in keys]
        missing = [place for place, codes in enumerate(known) if codes is None]
        if missing:
            start, stop = missing[0], missing[-1] + 1
            stored = self._file(manifest, level.name).read_chunks(first + start, stop - start)
        for place, codes in enumerate(known):
            if codes is None:
                codes = self._decode(manifest, level, first + place, stored[place - start])
                self._decoded.put(keys[place], codes)
            yield codes

    def _decode(self, manifest: Manifest, level: Level, chunk: int, stored: memoryview) -> Codes:
        try:
            return decode_chunk(stored, (self.description.chunk_frames, *level.grid))
        except (ValueError, RuntimeError) as error:
            raise StoreError(
                f"{self.url}: shard {manifest.number}, {level.name}, chunk {chunk}: {error}: {ADVICE}"
            ) from error

    def _refuse_missing(self, video_id: str, wanted: NDArray[np.int64]) -> None:
        status = self.status(video_id, wanted)
        for kind, reason in ((FrameStatus.FAILED, "failed"), (FrameStatus.NEVER_DUMPED, "were never dumped")):
            if missing := [int(frame) for frame in wanted[status == kind]]:
                named = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
                raise StoreError(f"{video_id}: frames {named} {reason} in {self.url}: ask for others, see Store.status")

    def _file(self, manifest: Manifest, level: str) -> DataFile:
        key = (manifest.number, level)
        with self._lock:
            if key in self._open:
                self._open.move_to_end(key)
                return self._open[key]
            chunks = manifest.rows // self.description.chunk_frames
            self._open[key] = file = DataFile(self.storage, manifest.number, level, chunks)
            while len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        return file


def _empty(
    levels: Sequence[Level], frames: int, dtype: type[np.generic], size: tuple[int, int] | None = None
) -> dict[str, NDArray[Any]]:
    """Room for the maps of each level, (frame, y, x), all of it in one block.

    Several arrays of half a megabyte and more would go back to the kernel after every window and be faulted in again
    page by page, which takes longer than decoding what they hold.
    """
    shapes = [(frames, *(size or level.grid)) for level in levels]
    ends = np.cumsum([0, *(math.prod(shape) for shape in shapes)]).tolist()
    block = np.empty(ends[-1], dtype)
    return {
        level.kind: block[start:end].reshape(shape)
        for level, shape, (start, end) in zip(levels, shapes, pairwise(ends), strict=True)
    }


def _whole_numbers(frames: ArrayLike) -> NDArray[np.int64]:
    wanted = np.asarray(frames).reshape(-1)
    if len(wanted) and wanted.dtype.kind not in "iu":
        raise StoreError(f"frames {wanted[:4].tolist()}: frames are whole numbers, counted from 0")
    return wanted.astype(np.int64)


def _upsample(level: Level, codes: Codes, out: Floats) -> None:
    """Codes to maps on a larger grid, a map at a time so that it stays in the processor's cache."""
    for place in range(len(codes)):
        wide = bilinear(codes[place : place + 1].astype(np.float32), (out.shape[1], out.shape[2]))
        np.multiply(wide, np.float32(-level.scale), out=wide)
        wide -= np.float32(level.offset)
        out[place] = sigmoid_of_negative(wide)[0]
