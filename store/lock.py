"""One dump at a time, and one writer for each shard.

In a folder the lock is the operating system's own on an open file, so it ends with its process, however that dies:
there is no stale lock to clear. The file is removed at the end, which is safe only where whoever gets the lock looks
whether its file has still a name: filelock does from 4.2 on. Object stores have no locks, but leases (lease.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeGuard

from filelock import FileLock, Timeout

from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.lease import leased
from tinyhd_pipe.store.storage import LOCK, PARTIAL, LocalStorage, RemoteStorage, Storage, make_folder


def can_lock(storage: Storage) -> TypeGuard[LocalStorage]:
    """Whether a writer can keep others out there."""
    return isinstance(storage, LocalStorage)


@contextmanager
def exclusive(storage: Storage) -> Iterator[None]:
    """Hold the store's lock, or its lease. Raises `StoreError` where another process holds it: at once, or as soon as
    that gives a sign of life."""
    if isinstance(storage, RemoteStorage):
        with leased(storage):
            yield
        return
    assert can_lock(storage)
    path = storage.root / LOCK
    is_new = not storage.root.exists()
    lock = FileLock(path)
    try:
        make_folder(storage.root)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StoreError(
            f"{storage.url}: another dump is writing to it: wait for it, or use another --store"
        ) from error
    except OSError as error:
        raise StoreError(f"{storage.url}: cannot be written: {error.strerror}: use another --store") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is held, so that nobody's lock but ours is removed
        lock.release()
        if is_new:
            with suppress(OSError):  # not empty: it is a store now
                storage.root.rmdir()


@contextmanager
def claimed(storage: Storage, shard: int) -> Iterator[None]:
    """Be the only one that writes this shard; waits for another worker that is at it, until that ends or dies.

    The file stays, for whoever waits on it; the next sweep removes it. Object stores have none: there, two workers of
    one dump may write the same bytes. Raises `StoreError` where there can be no file.
    """
    if not can_lock(storage):
        yield
        return
    lock = FileLock(storage.root / f"{LOCK}-{shard:05d}{PARTIAL}")
    try:
        lock.acquire()
    except OSError as error:
        raise StoreError(f"{storage.url}: cannot be written: {error.strerror}: use another --store") from error
    try:
        yield
    finally:
        lock.release()
