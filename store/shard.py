"""Writing one shard: maps come in video by video, bytes go out chunk by chunk.

Every video starts at a chunk boundary and its last chunk is filled up by repeating the last map, so the
bytes of a video depend on nothing but its maps: they can be copied into another shard when a neighbour
changes. Memory holds one chunk of every level. Nothing of the shard can be read before its manifest, which
comes last.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO

import numpy as np
from tinyhd_pipe.store.codec import array_metadata, crc32c, encode_chunk, pack_index
from tinyhd_pipe.store.encoding import Codes, Floats, quantise
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import (
    LevelFile,
    Manifest,
    VideoRow,
    data_path,
    manifest_path,
    metadata_path,
    shard_folder,
)
from tinyhd_pipe.store.schema import Description, Level
from tinyhd_pipe.store.storage import Storage


class _LevelWriter:
    """The data file of one level: chunks in order, then the index."""

    def __init__(self, level: Level, file: IO[bytes], chunk_frames: int) -> None:
        self.level = level
        self.sizes: list[int] = []
        self._file = file
        self._pending: Codes = np.empty((chunk_frames, *level.grid), np.uint8)
        self._filled = 0
        self._checksum = 0
        self._bytes = 0

    def append(self, codes: Codes) -> None:
        """Take codes (frame, y, x) and write every chunk that they complete."""
        while len(codes):
            taken = codes[: len(self._pending) - self._filled]
            self._pending[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            codes = codes[len(taken) :]
            if self._filled == len(self._pending):
                self.append_chunk(encode_chunk(self._pending))
                self._filled = 0

    def repeat_last(self) -> None:
        """Append the last map once more, or a map of code 0 where there is none yet in this chunk."""
        last = self._pending[self._filled - 1] if self._filled else np.zeros(self.level.grid, np.uint8)
        self.append(last[None].copy())

    def fill_chunk(self) -> None:
        """Complete the open chunk, if there is one, so that the next video starts a new one."""
        if self._filled:
            self._pending[self._filled :] = self._pending[self._filled - 1]
            self.append_chunk(encode_chunk(self._pending))
            self._filled = 0

    def append_chunk(self, stored: bytes) -> None:
        """Write one chunk as it is."""
        self._write(stored)
        self.sizes.append(len(stored))

    def finish(self) -> LevelFile:
        """Write the index."""
        self._write(pack_index(self.sizes))
        return LevelFile(self._bytes, self._checksum)

    def _write(self, payload: bytes) -> None:
        self._file.write(payload)
        self._checksum = crc32c(payload, self._checksum)
        self._bytes += len(payload)


class VideoWriter:
    """Takes the maps of one video in the order of its frames; `finish` says how it ended."""

    def __init__(self, row: VideoRow, description: Description, levels: Sequence[_LevelWriter]) -> None:
        self.finished: VideoRow | None = None
        self._row = row
        self._every = description.every
        self._levels = levels
        self._rows = 0
        self._failed: set[int] = set()

    @property
    def next_frame(self) -> int:
        """The absolute frame whose map comes next."""
        return self._row.first_frame + self._rows * self._every

    def append(self, logits: Mapping[str, Floats]) -> None:
        """The next maps of every level: float32 logits (frame, y, x) on the level's own grid.

        Raises `StoreError` where levels, shapes or lengths are not what the store holds, or where a value
        is not finite: such a map would be learned from.
        """
        names = [writer.level.name for writer in self._levels]
        if sorted(logits) != sorted(names):
            raise StoreError(f"{self._row.id}: maps of {sorted(logits)}, the store holds {sorted(names)}")
        count = len(logits[names[0]])
        codes = []
        for writer in self._levels:
            level, maps = writer.level, logits[writer.level.name]
            if maps.shape != (count, *level.grid):
                raise StoreError(
                    f"{self._row.id}: {level.name} is {maps.shape}, expected {(count, *level.grid)}"
                )
            if not np.isfinite(maps).all():
                raise StoreError(
                    f"{self._row.id}: {level.name} is not finite between frames {self.next_frame} and "
                    f"{self.next_frame + (count - 1) * self._every}: use mark_failed for frames without a map"
                )
            codes.append(quantise(maps, level.scale, level.offset))
        for writer, level_codes in zip(self._levels, codes, strict=True):
            writer.append(level_codes)
        self._rows += count

    def mark_failed(self, frame: int) -> None:
        """Say that an absolute frame has no valid map: the next one (it gets a row of filling), or an
        earlier one.
        """
        if frame == self.next_frame:
            for writer in self._levels:
                writer.repeat_last()
            self._rows += 1
        if (
            not self._row.first_frame <= frame < self.next_frame
            or (frame - self._row.first_frame) % self._every
        ):
            raise StoreError(
                f"{self._row.id}: frame {frame} cannot fail now, the next one is {self.next_frame}"
            )
        self._failed.add(frame)

    def finish(self, frames: int, problem: str | None = None) -> None:
        """The video has ended after `frames` decoded frames; `problem` is one line of what was wrong with
        it.

        Raises `StoreError` where maps are missing or left over.
        """
        expected = (
            -(-(frames - self._row.first_frame) // self._every) if frames > self._row.first_frame else 0
        )
        if self._rows != expected:
            raise StoreError(f"{self._row.id}: {self._rows} maps for {frames} frames, expected {expected}")
        for writer in self._levels:
            writer.fill_chunk()
        line = " ".join((problem or "").split())
        self.finished = VideoRow(
            **{
                **vars(self._row),
                "frames": frames,
                "rows": self._rows,
                "problem": line,
                "failed": tuple(sorted(self._failed)),
            }
        )


class ShardWriter:
    """An open shard. Its videos are written one after another, each by `video`."""

    def __init__(self, number: int, description: Description, levels: Sequence[_LevelWriter]) -> None:
        self.number = number
        self.rows: list[VideoRow] = []
        self._description = description
        self._levels = levels

    @property
    def length(self) -> int:
        """Rows so far, padding included."""
        return len(self._levels[0].sizes) * self._description.chunk_frames

    @contextmanager
    def video(
        self,
        video_id: str,
        digest: str,
        *,
        height: int = 0,
        width: int = 0,
        rate: str = "",
        first_frame: int = 0,
    ) -> Iterator[VideoWriter]:
        """Write one video; leaving without having called `finish` is an error, as half a video must not be
        read.
        """
        if any(row.id == video_id for row in self.rows):
            raise StoreError(f"{video_id}: twice in one shard: video ids must differ")
        row = VideoRow(video_id, digest, 0, height, width, rate, first_frame, 0, self.length)
        writer = VideoWriter(row, self._description, self._levels)
        yield writer
        if writer.finished is None:
            raise StoreError(f"{video_id}: left before finish(): the shard is dropped")
        self.rows.append(writer.finished)

    def failed_video(self, video_id: str, digest: str, problem: str) -> None:
        """List a video that gave no frame at all, with the reason."""
        with self.video(video_id, digest) as video:
            video.finish(0, problem)


@contextmanager
def write_shard(
    storage: Storage, description: Description, number: int, replaces: tuple[int, ...] = ()
) -> Iterator[ShardWriter]:
    """Write one shard; it exists once the context is left normally, and leaves nothing behind otherwise."""
    storage.remove(shard_folder(number))
    try:
        with ExitStack() as files:
            levels = [
                _LevelWriter(
                    level,
                    files.enter_context(storage.create(data_path(number, level.name))),
                    description.chunk_frames,
                )
                for level in description.levels
            ]
            shard = ShardWriter(number, description, levels)
            yield shard
            finished = {writer.level.name: writer.finish() for writer in levels}
        length = shard.length
        if length == 0:  # every video failed: an array without rows would be no array
            storage.remove(shard_folder(number))
            finished = {}
        for level in description.levels if length else ():
            metadata = array_metadata(
                (length, *level.grid), description.chunk_frames, level.scale, level.offset, level.name
            )
            storage.write(metadata_path(number, level.name), metadata)
        manifest = Manifest.of_rows(number, shard.rows, length, finished, replaces)
        storage.write(manifest_path(number), manifest.to_json())
    except BaseException:
        storage.remove(shard_folder(number))
        raise
