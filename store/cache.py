"""Decoded chunks that were used last, up to a number of bytes.

Neighbouring windows share chunks, and validation reads the same clips every epoch. Windows at random over a
store that is larger than this gain nothing from it.
"""

from collections import OrderedDict
from threading import Lock

from tinyhd_pipe.store.encoding import Codes

Key = tuple[int, str, int]


class ChunkCache:
    """Least recently used chunks first to go; safe to use from several threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self._chunks: OrderedDict[Key, Codes] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Key) -> Codes | None:
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def put(self, key: Key, codes: Codes) -> None:
        """Remember a chunk, which nobody may write to any more."""
        with self._lock:
            if key in self._chunks or codes.nbytes > self._limit:
                return
            self._chunks[key] = codes
            self._bytes += codes.nbytes
            while self._bytes > self._limit:
                self._bytes -= self._chunks.popitem(last=False)[1].nbytes
