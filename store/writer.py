"""Making and extending a store."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.manifest import SHARDS
from tinyhd_pipe.store.schema import ROOT, Description
from tinyhd_pipe.store.shard import ShardWriter, write_shard
from tinyhd_pipe.store.storage import open_storage

_PLAIN_GROUP = b'{"zarr_format":3,"node_type":"group","attributes":{}}'


def read_description(url: str | os.PathLike[str]) -> Description | None:
    """What an existing store says about itself, or None where there is none yet."""
    try:
        text = open_storage(url).read(ROOT)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Description.from_json(text, os.fspath(url))


def create_or_open(url: str | os.PathLike[str], description: Description) -> "StoreWriter":
    """Open a store for writing, making it where there is none.

    Raises `StoreError` where there is one with another identity, or something else than a store.
    """
    storage = open_storage(url)
    present = read_description(url)
    if present is None:
        storage.write(f"{SHARDS}/zarr.json", _PLAIN_GROUP)
        storage.write(ROOT, description.to_json())
        present = description
    present.refuse_other(description, os.fspath(url))
    return StoreWriter(os.fspath(url), present)


@dataclass(frozen=True)
class StoreWriter:
    """Writes shards of one store; picklable, so that each worker writes its own."""

    url: str
    description: Description
    """What the store says about itself; the measured figures are those of the dump that made it."""

    @contextmanager
    def shard(self, number: int, replaces: tuple[int, ...] = ()) -> Iterator[ShardWriter]:
        """Write one shard. No two writers may write the same number at once."""
        if number < 0:
            raise StoreError(f"shard {number}: expected 0 or more")
        with write_shard(open_storage(self.url), self.description, number, replaces) as shard:
            yield shard
