"""Reading maps: any frames of any video, by absolute frame number.

One contiguous read for each window and level: the chunks of a video lie one after another in its shard's
file. Opened files are kept, with their indices, up to a limit, so memory does not grow with the store. A
`Store` pickles as its URL and opens itself again where it is unpickled.
"""

import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from enum import IntEnum
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinyhd_pipe.store.catalogue import Catalogue, read_catalogue
from tinyhd_pipe.store.codec import decode_chunk
from tinyhd_pipe.store.data_file import DataFile
from tinyhd_pipe.store.encoding import Codes, Floats, logit_table, map_table, sigmoid
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import Manifest, VideoRow
from tinyhd_pipe.store.resample import bilinear
from tinyhd_pipe.store.schema import ROOT, Description, Level
from tinyhd_pipe.store.storage import Storage, open_storage

OPEN_FILES = 128


class FrameStatus(IntEnum):
    """What the store can say about a frame of a video it lists."""

    VALID = 0
    FAILED = 1
    """The frame should have a map, but could not be decoded or mapped."""
    NEVER_DUMPED = 2
    """Not among the frames that the dump was asked for (--every), or after the last decoded one."""


def open_store(url: str | os.PathLike[str]) -> "Store":
    """Open a store for reading: a local path or any fsspec URL. Raises `StoreError` where there is none."""
    store = Store(os.fspath(url))
    _ = store.description  # says at once that there is no store, rather than at the first read
    return store


class Store:
    """Teacher maps of many videos. Cheap to make and to pickle; files are opened when they are first
    needed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._open: OrderedDict[tuple[int, str], DataFile] = OrderedDict()
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Store.__init__(self, state["url"])

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @cached_property
    def storage(self) -> Storage:
        return open_storage(self.url)

    @cached_property
    def description(self) -> Description:
        """What the store says about itself."""
        try:
            text = self.storage.read(ROOT)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise StoreError(
                f"{self.url}: no store there: make one with 'tinyhd-pipe teacher-dump'"
            ) from error
        return Description.from_json(text, self.url)

    @cached_property
    def _catalogue(self) -> Catalogue:
        return read_catalogue(self.storage)

    @cached_property
    def _tables(self) -> Mapping[str, tuple[Floats, Floats]]:
        """Logit and map value of each code, for each level."""
        return {
            level.name: (logit_table(level.scale, level.offset), map_table(level.scale, level.offset))
            for level in self.description.levels
        }

    @property
    def videos(self) -> list[str]:
        """Ids of all videos, those that failed altogether included, sorted."""
        return sorted(self._catalogue.runs_of)

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(level.name for level in self.description.levels)

    @property
    def every(self) -> int:
        """Frames 0, every, 2 * every, ... have maps."""
        return self.description.every

    def video(self, video_id: str) -> VideoRow:
        """What is known of one video: frames, digest, size, rate, problem, failed frames. Its rows are
        those of all runs.
        """
        runs = self._runs(video_id)
        first = runs[0][1]
        failed = tuple(frame for _, row in runs for frame in row.failed)
        return VideoRow(**{**vars(first), "rows": sum(row.rows for _, row in runs), "failed": failed})

    def info(self) -> dict[str, Any]:
        """The store's facts as plain data: its description, and counts of shards, videos, maps and bytes."""
        manifests = self._catalogue.manifests
        return {
            "url": self.url,
            **self.description.to_plain(),
            "shards": len(manifests),
            "videos": len(self._catalogue.runs_of),
            "videos_with_problems": sum(len(manifest.problems) for manifest in manifests),
            "frames_with_maps": sum(sum(manifest.columns["rows"]) for manifest in manifests),
            "failed_frames": sum(
                len(frames) for manifest in manifests for frames in manifest.failed.values()
            ),
            "bytes": sum(file.bytes for manifest in manifests for file in manifest.levels.values()),
        }

    def status(self, video_id: str, frames: ArrayLike) -> NDArray[np.uint8]:
        """`FrameStatus` of each of these absolute frames, uint8."""
        wanted = np.asarray(frames, np.int64).reshape(-1)
        status = np.full(len(wanted), FrameStatus.NEVER_DUMPED, np.uint8)
        for _, row in self._runs(video_id):
            since = wanted - row.first_frame
            status[(since >= 0) & (since % self.every == 0) & (since // self.every < row.rows)] = (
                FrameStatus.VALID
            )
            if row.failed:
                status[np.isin(wanted, row.failed)] = FrameStatus.FAILED
        return status

    def read(
        self,
        video_id: str,
        frames: ArrayLike,
        size: tuple[int, int] | None = None,
        *,
        levels: Iterable[str] | None = None,
    ) -> dict[str, Floats]:
        """Maps of these absolute frames, in this order: level -> float32 (frame, y, x) in [0, 1].

        Each level comes on its own grid, or with `size` = (y, x) all on one grid as the live teacher gave
        them (bilinear upsampling of the logits, then sigmoid). Raises `StoreError`, naming them, where
        frames have no valid map: a missing map must never become a target.
        """
        maps = {}
        for level, codes in self._read_codes(video_id, frames, levels):
            logits, values = self._tables[level.name]
            if size is None or tuple(size) == level.grid:
                maps[level.name] = values[codes]
            else:
                maps[level.name] = sigmoid(bilinear(logits[codes], size))
        return maps

    def read_logits(
        self, video_id: str, frames: ArrayLike, *, levels: Iterable[str] | None = None
    ) -> dict[str, Floats]:
        """The same as `read`, before the sigmoid and on the stored grids."""
        read = self._read_codes(video_id, frames, levels)
        return {level.name: self._tables[level.name][0][codes] for level, codes in read}

    def _runs(self, video_id: str) -> list[tuple[Manifest, VideoRow]]:
        catalogue = self._catalogue
        try:
            runs = catalogue.runs_of[video_id]
        except KeyError:
            raise StoreError(
                f"{video_id}: not in {self.url}: dump it first with 'tinyhd-pipe teacher-dump'"
            ) from None
        found = []
        for run in (runs,) if isinstance(runs, int) else runs:
            shard = int(np.searchsorted(catalogue.first_run, run, side="right")) - 1
            manifest = catalogue.manifests[shard]
            found.append((manifest, manifest.row(run - int(catalogue.first_run[shard]))))
        return found

    def _read_codes(
        self, video_id: str, frames: ArrayLike, levels: Iterable[str] | None
    ) -> Iterable[tuple[Level, Codes]]:
        wanted = np.asarray(frames, np.int64).reshape(-1)
        self._refuse_missing(video_id, wanted)
        names = set(self.levels if levels is None else levels)
        if unknown := names.difference(self.levels):
            raise StoreError(f"{self.url}: has no level {sorted(unknown)}, but {list(self.levels)}")
        runs = self._runs(video_id)
        for level in self.description.levels:
            if level.name in names:
                yield level, self._codes_of(level, runs, wanted)

    def _refuse_missing(self, video_id: str, wanted: NDArray[np.int64]) -> None:
        status = self.status(video_id, wanted)
        for kind, reason in ((FrameStatus.FAILED, "failed"), (FrameStatus.NEVER_DUMPED, "were never dumped")):
            if missing := [int(frame) for frame in wanted[status == kind]]:
                named = ", ".join(map(str, missing[:8])) + (", …" if len(missing) > 8 else "")
                raise StoreError(
                    f"{video_id}: frames {named} {reason} in {self.url}: ask for others, see Store.status"
                )

    def _codes_of(
        self, level: Level, runs: list[tuple[Manifest, VideoRow]], wanted: NDArray[np.int64]
    ) -> Codes:
        if len(runs) == 1:
            manifest, row = runs[0]
            return self._rows(manifest, level, row.first_row + (wanted - row.first_frame) // self.every)
        codes = np.empty((len(wanted), *level.grid), np.uint8)
        for manifest, row in runs:
            index = (wanted - row.first_frame) // self.every
            here = (index >= 0) & (index < row.rows)
            if here.any():
                codes[here] = self._rows(manifest, level, row.first_row + index[here])
        return codes

    def _rows(self, manifest: Manifest, level: Level, rows: NDArray[np.int64]) -> Codes:
        """Codes (row, y, x) of these rows of one level of one shard."""
        if not len(rows):
            return np.empty((0, *level.grid), np.uint8)
        chunk_frames = self.description.chunk_frames
        chunks, where = np.unique(rows // chunk_frames, return_inverse=True)
        decoded = np.empty((len(chunks), chunk_frames, *level.grid), np.uint8)
        file = self._file(manifest, level.name)
        for group in np.split(np.arange(len(chunks)), np.flatnonzero(np.diff(chunks) > 1) + 1):
            for place, stored in zip(group, file.read_chunks(int(chunks[group[0]]), len(group)), strict=True):
                try:
                    decoded[place] = decode_chunk(stored, (chunk_frames, *level.grid))
                except (ValueError, RuntimeError) as error:
                    raise StoreError(
                        f"{self.url}: shard {manifest.number}, {level.name}, chunk {chunks[place]}: {error}: "
                        "run 'tinyhd-pipe store verify --repair'"
                    ) from error
        return decoded[where, rows % chunk_frames]

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
