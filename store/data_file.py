"""One level's data file of one shard, open for reading: its index, and chunks by number.

An object of this kind holds one file descriptor and 16 bytes a chunk. It closes itself when the last user
drops it.
"""

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.codec import index_bytes, parse_index, stored_size
from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import data_path
from tinyhd_pipe.store.storage import RangeReader, Storage

ADVICE = "run 'tinyhd-pipe store verify --repair'"
Index = NDArray[np.uint64]


class DataFile:
    """Chunks of one level of one shard.

    Raises `StoreError` where the file is missing or its index damaged; with `rebuild`, an index is then
    made from the chunks themselves as far as they are readable.
    """

    def __init__(self, storage: Storage, shard: int, level: str, chunks: int, *, rebuild: bool = False) -> None:
        path = data_path(shard, level)
        self._name = f"{storage.url}/{path}"
        try:
            self._file: RangeReader = storage.open(path)
        except FileNotFoundError as error:
            raise StoreError(f"{self._name}: is missing: {ADVICE}") from error
        try:
            self._index = read_index(self._file, chunks)
        except ValueError as error:
            if not rebuild:
                raise StoreError(f"{self._name}: {error}: {ADVICE}") from error
            self._index = walk(self._file, chunks)

    def read_chunks(self, first: int, count: int) -> list[memoryview]:
        """Stored bytes of adjacent chunks, by one read."""
        places = self._index[first : first + count].tolist()
        start, end = places[0][0], sum(places[-1])
        payload = memoryview(self._file.read(start, end - start))
        if len(payload) != end - start:
            raise StoreError(f"{self._name}: is cut short: {ADVICE}")
        return [payload[at - start : at - start + length] for at, length in places]


def read_index(file: RangeReader, chunks: int) -> Index:
    """(chunk, 2) offset and size, from the end of the file. Raises `ValueError` where it is damaged."""
    length = index_bytes(chunks)
    if file.size < length:
        raise ValueError("is cut short")
    return parse_index(file.read(file.size - length, length))


def walk(file: RangeReader, chunks: int) -> Index:
    """The same from the chunks, each of which says how long it is, up to the first that cannot be right."""
    places: list[tuple[int, int]] = []
    start = 0
    while len(places) < chunks:
        length = stored_size(file.read(start, 16))
        if length is None or start + length > file.size:
            break
        places.append((start, length))
        start += length
    return np.array(places, np.uint64).reshape(-1, 2)
