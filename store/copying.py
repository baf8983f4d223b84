"""Copying the bytes of one video from a sealed shard into an open one, chunk by chunk and unchanged."""

from collections.abc import Sequence
from dataclasses import replace

from tinyhd_pipe.store.codec import is_intact
from tinyhd_pipe.store.data_file import ADVICE, DataFile
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import Manifest, VideoRow, manifest_path
from tinyhd_pipe.store.plan import Member
from tinyhd_pipe.store.schema import Description
from tinyhd_pipe.store.storage import Storage
from tinyhd_pipe.store.video_writer import LevelWriter


class Copier:
    """Keeps the sources of one shard open while it is written."""

    def __init__(self, storage: Storage, description: Description) -> None:
        self._storage = storage
        self._chunk_frames = description.chunk_frames
        self._manifests: dict[int, Manifest] = {}
        self._files: dict[tuple[int, str], DataFile] = {}

    def copy(self, member: Member, source: int, levels: Sequence[LevelWriter], first_row: int) -> VideoRow:
        """Append the video's chunks to every level; returns its row for the new place.

        Raises `StoreError` where the source does not hold that very video, or where its bytes are damaged.
        """
        row = self._find(member, source)
        first, count = row.first_row // self._chunk_frames, -(-row.rows // self._chunk_frames)
        for writer in levels:
            for chunk in range(first, first + count):
                (stored,) = self._file(source, writer.level.name).read_chunks(chunk, 1)
                if not is_intact(stored):
                    raise StoreError(f"{member.id}: damaged in shard {source}, {writer.level.name}: {ADVICE}")
                writer.append_chunk(bytes(stored))
        return replace(row, first_row=first_row)

    def _find(self, member: Member, source: int) -> VideoRow:
        manifest = self._manifest(source)
        for position, there in enumerate(manifest.members):
            if there == member:
                return manifest.row(position)
        raise StoreError(f"{member.id}: not in shard {source} as planned: run again")

    def _manifest(self, source: int) -> Manifest:
        if source not in self._manifests:
            self._manifests[source] = Manifest.from_json(self._storage.read(manifest_path(source)))
        return self._manifests[source]

    def _file(self, source: int, level: str) -> DataFile:
        if (source, level) not in self._files:
            chunks = self._manifest(source).rows // self._chunk_frames
            self._files[source, level] = DataFile(self._storage, source, level, chunks, rebuild=True)
        return self._files[source, level]
