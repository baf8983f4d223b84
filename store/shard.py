"""Writing one shard: video after video, some made anew, some copied byte for byte from another shard.

Every video starts at a chunk boundary and its last chunk is filled up, so the bytes of a video depend on
nothing but its maps: they can be copied when a neighbour changes. Memory holds one chunk of every level.
Nothing of the shard can be read before its manifest, which comes last.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from tinyhd_pipe.store.codec import array_metadata
from tinyhd_pipe.store.copying import Copier
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.lock import can_lock
from tinyhd_pipe.store.manifest import (
    LevelFile,
    Manifest,
    VideoRow,
    data_path,
    manifest_path,
    metadata_path,
    shard_folder,
)
from tinyhd_pipe.store.plan import Member, ShardTask
from tinyhd_pipe.store.schema import Description, Level
from tinyhd_pipe.store.storage import Storage
from tinyhd_pipe.store.video_writer import LevelWriter, VideoWriter


class ShardWriter:
    """An open shard. Its videos are written in the task's order, each by `video` or `failed_video`."""

    def __init__(
        self,
        task: ShardTask,
        description: Description,
        levels: Sequence[LevelWriter],
        copier: Copier,
        threads: Executor | None,
    ) -> None:
        self.number = task.number
        self.to_make = task.to_make
        self.rows: list[VideoRow] = []
        self._task = task
        self._description = description
        self._levels = levels
        self._copier = copier
        self._threads = threads

    @property
    def length(self) -> int:
        """Rows so far, padding included."""
        return len(self._levels[0].sizes) * self._description.chunk_frames

    @property
    def bytes_written(self) -> int:
        """Written so far, what was copied included."""
        return sum(level.bytes_written for level in self._levels)

    @contextmanager
    def video(
        self, video_id: str, *, height: int = 0, width: int = 0, rate: str = "", first_frame: int = 0
    ) -> Iterator[VideoWriter]:
        """Write one video, from its first frame to `finish`.

        Raises `StoreError` where it is not the turn of this video, and where the context is left without
        `finish`: half a video must not be read.
        """
        self._copy_until_next()
        member = self._next_member()
        if member is None or member.id != video_id:
            raise StoreError(f"{video_id}: out of turn in shard {self.number}, next is {member and member.id}")
        row = VideoRow(
            id=member.id,
            digest=member.digest,
            frames=0,
            height=height,
            width=width,
            rate=rate,
            first_frame=first_frame,
            rows=0,
            first_row=self.length,
            maps=member.maps,
        )
        writer = VideoWriter(row, self._description, self._levels, self._threads)
        yield writer
        if writer.finished is None:
            raise StoreError(f"{video_id}: left before finish(): the shard is dropped")
        self.rows.append(writer.finished)

    def failed_video(self, video_id: str, problem: str) -> None:
        """List a video that gave no frame at all, with the reason in one line."""
        with self.video(video_id) as video:
            video.finish(0, problem)

    def finish(self) -> None:
        """Copy what is left to copy. Raises `StoreError` where a video was not written."""
        self._copy_until_next()
        if (missing := self._next_member()) is not None:
            raise StoreError(f"{missing.id}: not written: shard {self.number} is dropped")

    def _next_member(self) -> Member | None:
        return self._task.members[len(self.rows)] if len(self.rows) < len(self._task.members) else None

    def _copy_until_next(self) -> None:
        while (member := self._next_member()) is not None and member.id in self._task.copied:
            self.rows.append(self._copier.copy(member, self._task.copied[member.id], self._levels, self.length))


@contextmanager
def write_shard(
    storage: Storage, description: Description, task: ShardTask, *, threads: int = 1
) -> Iterator[ShardWriter]:
    """Write one shard; it exists once the context is left normally, and is as before otherwise.

    Bytes depend on nothing but the task and the maps, whatever the number of `threads` that encode them. The shards
    that this one replaces are removed at the end; where that does not happen because of a kill, they are ignored and
    swept by the next run.
    """
    number = task.number
    try:
        with ExitStack() as files:
            levels = [
                LevelWriter(
                    level,
                    files.enter_context(storage.create(data_path(number, level.name))),
                    description.chunk_frames,
                )
                for level in description.levels
            ]
            pool = files.enter_context(ThreadPoolExecutor(threads)) if threads > 1 else None
            shard = ShardWriter(task, description, levels, Copier(storage, description), pool)
            yield shard
            shard.finish()
            finished = {writer.level.name: writer.finish() for writer in levels}
        _seal(storage, description, task, shard, finished)
    except BaseException:
        _drop(storage, task)
        raise
    for replaced in task.replaces:
        storage.remove(manifest_path(replaced))  # first, so that nothing half-removed is ever read
        storage.remove(shard_folder(replaced))


def _drop(storage: Storage, task: ShardTask) -> None:
    """Remove what an exception has left of a shard, unless it came so late that the shard is finished."""
    folder = shard_folder(task.number)
    if can_lock(storage) and not task.in_place and not storage.read_many([manifest_path(task.number)]):
        storage.remove(folder)  # nobody else is writing here, and nothing was there before
    else:
        storage.prune(folder)


def _seal(
    storage: Storage,
    description: Description,
    task: ShardTask,
    shard: ShardWriter,
    finished: Mapping[str, LevelFile],
) -> None:
    """Write what makes the data files arrays, and last the manifest."""
    number, length = task.number, shard.length
    if length == 0:  # every video failed: an array without rows would be no array
        finished = {}
        storage.remove(shard_folder(number))
    for level in description.levels if length else ():
        storage.write(metadata_path(number, level.name), level_metadata(description, level, length))
    manifest = Manifest.of_rows(number, shard.rows, length, finished, task.replaces)
    storage.write(manifest_path(number), manifest.to_json())


def level_metadata(description: Description, level: Level, rows: int) -> bytes:
    """The zarr.json of one level of a shard with that many rows."""
    shape = (rows, *level.grid)
    return array_metadata(shape, description.chunk_frames, level.scale, level.offset, level.name)
