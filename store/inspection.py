"""What is wrong with one data file, chunk by chunk."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np

from tinyhd_pipe.store.codec import index_bytes, is_intact
from tinyhd_pipe.store.data_file import Index, read_index, walk
from tinyhd_pipe.store.manifest import LevelFile
from tinyhd_pipe.store.storage import RangeReader


@dataclass(frozen=True)
class Finding:
    """Something wrong with adjacent chunks of a data file."""

    chunks: range
    reason: str
    lost: bool
    """The maps themselves are gone or not to be trusted; otherwise only what helps to find them."""


def inspect(file: RangeReader, chunks: int, expected: LevelFile) -> Iterator[Finding]:
    """Compare a data file with its own checksums and with what its manifest says of it.

    Where the index is damaged, the chunks are found by walking from one to the next, so that damage of the
    index and damage of the maps are told apart.
    """
    walked: Index | None = None
    try:
        index = read_index(file, chunks)
    except ValueError as error:
        index = walked = walk(file, chunks)
        if file.size == expected.bytes:
            yield from _index_findings(file, chunks, walked, str(error))
    sound, whole = True, sha256()
    for chunk, (start, length) in enumerate(index.tolist()):
        stored = file.read(start, length)
        whole.update(stored)
        if not is_intact(stored):
            sound = False
            yield Finding(range(chunk, chunk + 1), "checksum of a chunk does not match", lost=True)
    if len(index) < chunks:
        reason = f"has {file.size} bytes instead of {expected.bytes}" if file.size != expected.bytes else "is damaged"
        yield Finding(range(len(index), chunks), reason, lost=True)
    elif file.size != expected.bytes:
        yield Finding(range(chunks), f"has {file.size} bytes instead of {expected.bytes}", lost=False)
    elif sound and walked is None:
        length = index_bytes(chunks)
        whole.update(file.read(file.size - length, length))
        if whole.hexdigest() != expected.sha256:
            yield Finding(range(chunks), "is not the file that the manifest names", lost=True)


def _index_findings(file: RangeReader, chunks: int, walked: Index, reason: str) -> Iterator[Finding]:
    """The entries of a damaged index that are wrong; all of them if it is the checksum that is."""
    length = index_bytes(chunks)
    entries = np.frombuffer(file.read(file.size - length, chunks * 16), "<u8").reshape(-1, 2)
    wrong = np.flatnonzero((entries[: len(walked)] != walked).any(axis=1))
    for chunk in wrong.tolist():
        yield Finding(range(chunk, chunk + 1), reason, lost=False)
    if not len(wrong):
        yield Finding(range(chunks), reason, lost=False)
