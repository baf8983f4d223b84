"""One level's data file of one shard, open for reading: its index, and chunks by number.

An object of this kind holds one file descriptor and 16 bytes a chunk. It closes itself when the last user
drops it.
"""

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.codec import index_bytes, parse_index
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import data_path
from tinyhd_pipe.store.storage import RangeReader, Storage


class DataFile:
    """An open data file and its index."""

    def __init__(self, storage: Storage, shard: int, level: str, chunks: int) -> None:
        path = data_path(shard, level)
        self._name = f"{storage.url}/{path}"
        try:
            self._file: RangeReader = storage.open(path)
        except FileNotFoundError as error:
            raise StoreError(f"{self._name}: is missing: run 'tinyhd-pipe store verify --repair'") from error
        length = index_bytes(chunks)
        if self._file.size < length:
            raise StoreError(f"{self._name}: is cut short: run 'tinyhd-pipe store verify --repair'")
        try:
            self._index = parse_index(self._file.read(self._file.size - length, length))
        except ValueError as error:
            raise StoreError(f"{self._name}: {error}: run 'tinyhd-pipe store verify --repair'") from error

    def read_chunks(self, chunks: NDArray[np.int64]) -> list[memoryview]:
        """Stored bytes of adjacent chunks, by one read."""
        places = self._index[chunks]
        start, end = int(places[0, 0]), int(places[-1].sum())
        payload = memoryview(self._file.read(start, end - start))
        if len(payload) != end - start:
            raise StoreError(f"{self._name}: is cut short: run 'tinyhd-pipe store verify --repair'")
        return [payload[int(at) - start : int(at + length) - start] for at, length in places]
