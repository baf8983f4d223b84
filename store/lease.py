"""One dump at a time in an object store, which has no locks: a lease that shows signs of life.

The lease is an object that only one of several writers can create, where the store has conditional writes (S3's
If-None-Match); elsewhere two that begin within the same second may both get it. Its holder writes it anew every `BEAT`
seconds. Whoever finds one watches it: as soon as it changes, its holder is alive, and the dump is refused; when it
stays the same for `PATIENCE` seconds, its holder is dead, and the next number is created, which again only one can.

The decision that is not obvious: a dead dump's lease is taken over and needs nobody to release it, because running it
again is the whole recovery manual. Watching rather than reading a time compares no clocks, and asks for no process ids,
which mean nothing on another machine. Cost: a listing and a small write every `BEAT` seconds, and `PATIENCE` seconds
before a killed dump goes on. A holder that is frozen for longer has lost its lease and says so at its end; what it
wrote is whole shards of its own plan all the same.
"""

import json
import logging
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Event, Thread

from tinyhd_pipe.store.errors import StoreError
from tinyhd_pipe.store.storage import LOCK, RemoteStorage

BEAT, PATIENCE, GLANCE = 10.0, 60.0, 0.5
"""Seconds between two signs of life, until a holder that gives none is dead, and between two looks at it."""
_log = logging.getLogger(__name__)


@contextmanager
def leased(storage: RemoteStorage) -> Iterator[None]:
    """Hold the store's lease. Raises `StoreError` where another dump is alive, or where this one has lost it."""
    lease = _take(storage)
    beating = Thread(target=lease.beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        lease.ended.set()
        beating.join()
        with suppress(StoreError, OSError):  # who comes next finds it dead
            storage.remove(lease.path)
    if lease.lost:
        raise StoreError(
            f"{storage.url}: another dump took over while this one gave no sign of life for {PATIENCE:g} s: "
            "run 'tinyhd-pipe store verify', then the dump again"
        )


@dataclass
class _Lease:
    storage: RemoteStorage
    number: int
    facts: dict[str, object] = field(
        default_factory=lambda: {
            "holder": f"process {os.getpid()} on {socket.gethostname()}",
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "id": uuid.uuid4().hex,
        }
    )
    beats: int = 0
    lost: bool = False
    ended: Event = field(default_factory=Event)

    @property
    def path(self) -> str:
        return f"{LOCK}/{self.number:05d}"

    def written(self) -> bytes:
        return json.dumps({**self.facts, "beats": self.beats}).encode()

    def beat(self) -> None:
        """Show signs of life until it has ended or is lost."""
        while not self.lost and not self.ended.wait(BEAT):
            with suppress(Exception):  # whatever hinders one beat, the network for a moment, may be over at the next
                self.lost = _numbers(self.storage)[-1:] != [self.number]
                if not self.lost:
                    self.beats += 1
                    self.storage.write(self.path, self.written())


def _take(storage: RemoteStorage) -> _Lease:
    """Create the next lease after one that is dead, or the first."""
    try:
        held = _newest(storage)
        if held is not None:
            _watch(storage, held)
        lease = _Lease(storage, held[0] + 1 if held else 0)
        storage.put_new(lease.path, lease.written())
        older = _numbers(storage)
        if older[-1:] != [lease.number]:  # we looked long ago: others came and went since
            storage.remove(lease.path)
            raise _refusal(storage, _newest(storage))
        for number in older[:-1]:
            storage.remove(f"{LOCK}/{number:05d}")
    except FileExistsError as error:
        raise _refusal(storage, _newest(storage)) from error
    except OSError as error:
        raise StoreError(f"{storage.url}: cannot be written: {error.strerror or error}: use another --store") from error
    return lease


def _watch(storage: RemoteStorage, held: tuple[int, bytes]) -> None:
    """Wait until the lease's holder must be dead, or has ended. Raises `StoreError` as soon as it is alive."""
    _log.warning("%s: held by %s; if it is dead, this goes on in %g s", storage.url, _told(held[1]), PATIENCE)
    dead = time.monotonic() + PATIENCE
    while time.monotonic() < dead:
        time.sleep(GLANCE)
        now = _newest(storage)
        if now is None:
            return
        if now != held:
            raise _refusal(storage, now)


def _numbers(storage: RemoteStorage) -> list[int]:
    return sorted(int(name) for name in storage.folders(LOCK) if name.isdecimal())


def _newest(storage: RemoteStorage) -> tuple[int, bytes] | None:
    """The lease that counts, and what its holder wrote last."""
    for number in reversed(_numbers(storage)):
        with suppress(FileNotFoundError):  # released meanwhile
            return number, storage.read(f"{LOCK}/{number:05d}")
    return None


def _refusal(storage: RemoteStorage, held: tuple[int, bytes] | None) -> StoreError:
    holder = f" ({_told(held[1])})" if held else ""
    return StoreError(f"{storage.url}: another dump is writing to it{holder}: wait for it, or use another --store")


def _told(written: bytes) -> str:
    """Who holds a lease, and since when."""
    try:
        facts = json.loads(written)
        return f"{facts['holder']} since {facts['since']}"
    except (ValueError, KeyError, TypeError):
        return "somebody"
