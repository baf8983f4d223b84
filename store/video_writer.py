"""The maps of one video on their way into an open shard: quantised, gathered into chunks, encoded, written.

Every video starts a new chunk, and its last chunk is filled up by repeating the last map, which costs next
to nothing under a temporal delta. Levels may be encoded side by side, each into its own file: one after another they
took 5 ms a frame, several times as long as a GPU takes to make it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from hashlib import sha256

import numpy as np

from tinyhd_pipe.store.codec import encode_chunk, pack_index
from tinyhd_pipe.store.encoding import CENTRE, Floats, quantise
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import LevelFile, VideoRow
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering
from tinyhd_pipe.store.schema import Description, Level
from tinyhd_pipe.store.storage import Write


class LevelWriter:
    """The data file of one level: chunks in order, then the index."""

    def __init__(self, level: Level, write: Write, chunk_frames: int) -> None:
        self.level = level
        self.sizes: list[int] = []
        self.bytes_written = 0
        self._put = write
        self._pending: Floats = np.zeros((chunk_frames, *level.grid), np.float32)
        self._filled = 0
        self._digest = sha256()

    def append(self, logits: Floats) -> None:
        """Take logits (frame, y, x) and write every chunk that they complete."""
        while len(logits):
            taken = logits[: len(self._pending) - self._filled]
            self._pending[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            logits = logits[len(taken) :]
            if self._filled == len(self._pending):
                self._write_pending()

    def repeat_last(self) -> None:
        """Append the last map once more, or an even one where there is none yet in this chunk."""
        self.append(self._pending[self._filled - 1 : self._filled] if self._filled else self._even())

    def fill_chunk(self) -> None:
        """Complete the open chunk, if there is one, so that the next video starts a new one."""
        if self._filled:
            self._pending[self._filled :] = self._pending[self._filled - 1]
            self._write_pending()

    def _write_pending(self) -> None:
        codes = quantise(self._pending, self.level.scale, self.level.offset, len(self._pending))
        self.append_chunk(encode_chunk(codes))
        self._filled = 0

    def _even(self) -> Floats:
        return np.full((1, *self.level.grid), CENTRE, np.float32)

    def append_chunk(self, stored: bytes) -> None:
        """Write one chunk as it is."""
        self._write(stored)
        self.sizes.append(len(stored))

    def finish(self) -> LevelFile:
        """Write the index."""
        self._write(pack_index(self.sizes))
        return LevelFile(self.bytes_written, self._digest.hexdigest())

    def _write(self, payload: bytes) -> None:
        self._put(payload)
        self._digest.update(payload)
        self.bytes_written += len(payload)


class VideoWriter:
    """Takes the maps of one video in the order of its frames; `finish` says how it ended.

    Frames go by their places in the video until then (numbering.py).
    """

    def __init__(
        self, row: VideoRow, description: Description, levels: Sequence[LevelWriter], threads: Executor | None
    ) -> None:
        self.finished: VideoRow | None = None
        self._row = row
        self._every = description.every
        self._levels = levels
        self._threads = threads
        self._rows = 0
        self._failed: set[int] = set()

    @property
    def next_frame(self) -> int:
        """The frame whose map comes next."""
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
        for writer in self._levels:
            level, maps = writer.level, logits[writer.level.name]
            if maps.shape != (count, *level.grid):
                raise StoreError(f"{self._row.id}: {level.name} is {maps.shape}, expected {(count, *level.grid)}")
            if not np.isfinite(maps).all():
                raise StoreError(
                    f"{self._row.id}: {level.name} is not finite between frames {self.next_frame} and "
                    f"{self.next_frame + (count - 1) * self._every}: use mark_failed for frames without a map"
                )
        if self._threads is None:
            for writer in self._levels:
                writer.append(logits[writer.level.name])
        else:
            for done in [self._threads.submit(writer.append, logits[writer.level.name]) for writer in self._levels]:
                done.result()
        self._rows += count

    def mark_failed(self, frame: int) -> None:
        """Say that a frame has no valid map: an earlier one, or the next one, which gets filling."""
        if frame == self.next_frame:
            for writer in self._levels:
                writer.repeat_last()
            self._rows += 1
        if not self._row.first_frame <= frame < self.next_frame or (frame - self._row.first_frame) % self._every:
            raise StoreError(f"{self._row.id}: frame {frame} cannot fail now, the next one is {self.next_frame}")
        self._failed.add(frame)

    def finish(self, frames: int, problem: str | None = None, *, numbering: Numbering = AS_THEY_COME) -> None:
        """The video has ended after `frames` decoded frames; `problem` says in one line what was wrong with it.

        `numbering` gives the absolute numbers of these frames.

        Raises `StoreError` where maps are missing or left over.
        """
        expected = -(-(frames - self._row.first_frame) // self._every) if frames > self._row.first_frame else 0
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
                "failed": tuple(numbering.numbers(sorted(self._failed)).tolist()),
                "numbering": numbering,
            }
        )
