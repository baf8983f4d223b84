"""Object stores: a living dump is told by its signs of life, a dead one is followed, and never do two write."""

import errno
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Barrier, Lock

import pytest

from tests.store_tools import write_store
from tinyhd_pipe.store import StoreError, lease, open_store
from tinyhd_pipe.store.lock import exclusive
from tinyhd_pipe.store.storage import RemoteStorage, open_storage

LENGTHS = {"a.avi": 5, "b.avi": 8}
ROOT = Path(__file__).resolve().parents[2]
BEAT = 0.2
HOLDER = f"""
import sys
from tinyhd_pipe.store import StoreError, lease
from tinyhd_pipe.store.lock import exclusive
from tinyhd_pipe.store.storage import open_storage
lease.BEAT = {BEAT}
try:
    with exclusive(open_storage(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
    print("ended", flush=True)
except StoreError as error:
    print(error, flush=True)
"""


@pytest.fixture
def url(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lease, "GLANCE", 0.05)
    return f"{bucket}/maps.zarr"


@contextmanager
def another_dump(url: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the store until it is told to end."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", HOLDER, url], cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as holder:
        assert said_by(holder) == "held"
        yield holder
        holder.kill()


def said_by(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def leases(url: str) -> list[str]:
    return open_storage(url).folders(".lock")


def test_a_second_dump_is_refused_and_told_who_is_there_as_soon_as_that_gives_a_sign_of_life(url: str) -> None:
    with another_dump(url) as holder:
        started = time.monotonic()
        with pytest.raises(StoreError, match=rf"another dump is writing to it \(process {holder.pid} on .* since 2"):
            write_store(url, LENGTHS)
        assert time.monotonic() - started < lease.PATIENCE / 2
        assert list(open_storage(url).sizes("shards")) == ["shards/zarr.json"], "nothing of it was written"
        assert leases(url) == ["00000"]


def test_a_dump_that_was_killed_is_followed_after_a_while_and_nobody_has_to_release_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with another_dump(url) as holder:
        holder.kill()
        holder.wait()
        assert leases(url) == ["00000"]
        monkeypatch.setattr(lease, "PATIENCE", 5 * BEAT)
        write_store(url, LENGTHS)
    assert open_store(url).videos == sorted(LENGTHS)
    assert leases(url) == []


def test_a_dump_that_ends_while_it_is_watched_is_followed_at_once(url: str) -> None:
    with another_dump(url) as holder, ThreadPoolExecutor() as threads:
        holder.send_signal(signal.SIGSTOP)  # no sign of life while somebody comes to watch
        second = threads.submit(write_store, url, LENGTHS)
        time.sleep(BEAT)
        assert not second.done()
        open_storage(url).remove(".lock/00000")  # as the holder's last step does
        assert second.result(timeout=lease.PATIENCE / 2) == sorted(LENGTHS)


def test_a_dump_that_was_frozen_learns_that_another_took_over(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "PATIENCE", 5 * BEAT)
    with another_dump(url) as holder:
        holder.send_signal(signal.SIGSTOP)
        with exclusive(open_storage(url)):
            assert leases(url) == ["00001"]
            holder.send_signal(signal.SIGCONT)
            time.sleep(3 * BEAT)
            assert holder.stdin is not None
            holder.stdin.write("end\n")
            holder.stdin.flush()
            assert "another dump took over while this one gave no sign of life" in said_by(holder)
            assert leases(url) == ["00001"], "it left the new holder's alone"


def _at_once(url: str, dumps: int, conditional: bool) -> int:
    """Start so many dumps at the same instant; returns how many of them were let in."""
    let_in, door, count = [], Barrier(dumps), Lock()

    def dump() -> None:
        storage = open_storage(url)
        assert isinstance(storage, RemoteStorage)
        if not conditional:
            storage.put_new = storage.write  # type: ignore[method-assign]
        door.wait()
        with suppress(StoreError), exclusive(storage):
            with count:
                let_in.append(storage)
            time.sleep(1)

    with ThreadPoolExecutor(dumps) as threads:
        for begun in [threads.submit(dump) for _ in range(dumps)]:
            begun.result()
    return len(let_in)


@pytest.mark.parametrize("after_a_dead_one", [False, True])
def test_of_dumps_that_begin_at_the_same_instant_one_is_let_in(
    url: str, monkeypatch: pytest.MonkeyPatch, after_a_dead_one: bool
) -> None:
    monkeypatch.setattr(lease, "PATIENCE", 0.5)
    if after_a_dead_one:
        open_storage(url).write(".lock/00004", b"{}")
    assert _at_once(url, 6, conditional=True) == 1
    assert leases(url) == []


def test_without_conditional_writes_more_might_be_let_in_at_the_same_instant(url: str) -> None:
    assert _at_once(url, 6, conditional=False) > 1


@pytest.mark.parametrize("answer", [OSError(errno.ENOSYS, "A header you provided implies"), NotImplementedError()])
def test_a_store_without_conditional_writes_refuses_a_second_dump_all_the_same(
    url: str, monkeypatch: pytest.MonkeyPatch, answer: Exception
) -> None:
    storage = open_storage(url)
    assert isinstance(storage, RemoteStorage)
    pipe_file = storage._files.pipe_file

    def without_conditions(path: str, payload: bytes, mode: str = "overwrite") -> object:
        if mode == "create":
            raise answer
        return pipe_file(path, payload)

    monkeypatch.setattr(storage._files, "pipe_file", without_conditions)
    monkeypatch.setattr(lease, "BEAT", BEAT)
    with exclusive(storage):
        assert leases(url) == ["00000"]
        with pytest.raises(StoreError, match=r"another dump is writing to it"), exclusive(storage):
            pass
    assert leases(url) == []


def test_a_bucket_that_takes_no_lease_is_one_line(server: str) -> None:
    with (
        pytest.raises(StoreError, match=r"^s3://no-such-bucket/s: cannot be written: .*bucket") as raised,
        exclusive(open_storage("s3://no-such-bucket/s")),
    ):
        pass
    assert "\n" not in str(raised.value)
