"""Videos from elsewhere, fetched when they are first needed into a folder that is bounded in size.

    ~/.cache/tinyhd-pipe/videos/KEY/video.mp4     TINYHD_CACHE names another folder, TINYHD_CACHE_GB another bound
                                    lock          held, shared, by whoever decodes; its time says when that was

The decision that is not obvious: room is made before a video is fetched, from those used longest ago and never from
one in use, so the bound is passed only by what is decoded at once. A lock is the operating system's own, which ends
with its process; a video is written beside its name and renamed, and room is taken by one process at a time.

fsspec's caches do not serve: they have no bound, and know of no use. Cost: a look at every video that is kept for each
that is fetched, and twice the transfer of a set that is larger than the bound, once for digests and once for frames.
"""

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tinyhd_pipe.stages.video.remote import Remote, in_one_line, version_of
from tinyhd_pipe.store.errors import FetchError, SettingError
from tinyhd_pipe.store.storage import PARTIAL, filesystem_of

FOLDER, GIGABYTES = "TINYHD_CACHE", "TINYHD_CACHE_GB"
_DEFAULT_GIGABYTES = 20.0
_LOCK = "lock"
_PIECE = 1 << 23
"""Bytes that are asked for at a time."""


@dataclass(frozen=True)
class Keep:
    """Where fetched videos are kept."""

    folder: Path
    limit: int
    """Bytes."""

    @classmethod
    def of_environment(cls) -> "Keep":
        """As the environment of this process says. Raises SettingError for a bound that is no number."""
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = Path(os.environ.get(FOLDER) or cache / "tinyhd-pipe" / "videos")
        told = os.environ.get(GIGABYTES) or str(_DEFAULT_GIGABYTES)
        try:
            limit = int(float(told) * 1e9)
        except (ValueError, OverflowError):
            limit = 0
        if limit <= 0:
            raise SettingError(f"{GIGABYTES}={told}: expected gigabytes for fetched videos, as in {GIGABYTES}=20")
        return cls(folder, limit)


@contextmanager
def held(remote: Remote) -> Iterator[Path]:
    """A video as a file of this machine, which stays as long as the context lasts; fetched where it is not kept.

    Raises:
        VideoError: nothing is there any more.
        FetchError: it cannot be reached, has changed since it was listed, or there is no room for it.
    """
    keep = Keep.of_environment()
    ending = re.search(r"\.[A-Za-z0-9]{1,8}$", remote.where)
    key = hashlib.sha256(repr(remote).encode("utf-8", "surrogatepass")).hexdigest()[:32]
    kept = keep.folder / key / f"video{ending[0] if ending else ''}"
    descriptor = _in_use(remote, kept, keep)
    try:
        yield kept
    finally:
        os.close(descriptor)


def _in_use(remote: Remote, kept: Path, keep: Keep) -> int:
    """The lock, shared, under which the video is there and stays."""
    lock = kept.with_name(_LOCK)
    while True:
        with _writing(keep):
            descriptor = _locked(lock, fcntl.LOCK_SH)
            os.utime(descriptor)
        if kept.is_file():
            return descriptor
        os.close(descriptor)
        with _writing(keep):
            descriptor = _locked(lock, fcntl.LOCK_EX)
        try:
            if not kept.is_file():
                _fetch(remote, kept, keep)
        finally:
            os.close(descriptor)


def _locked(lock: Path, how: int) -> int:
    """The open file, once it is locked; not one that was removed while it was waited for.

    Raises BlockingIOError where `how` says not to wait.
    """
    while True:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, how)
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)


def _fetch(remote: Remote, kept: Path, keep: Keep) -> None:
    partial = kept.with_name(f"{kept.name}{PARTIAL}")
    try:
        _reserve(remote, partial, keep)
        with in_one_line(remote.where):
            files, path = filesystem_of(remote.url)
            count = 0
            streamed = "http" in files.protocol and not remote.member  # many web servers know no ranges
            with files.open(path, "rb", block_size=0 if streamed else _PIECE) as source:
                if remote.offset:
                    source.seek(remote.offset)
                with _writing(keep), partial.open("r+b") as file:
                    for piece in _pieces(source, remote):
                        file.write(piece)
                        count += len(piece)
                    os.fsync(file.fileno())
            files.invalidate_cache()
            now = version_of(files.info(path))
        if now != remote.version or (remote.length >= 0 and count != remote.length):
            raise FetchError(f"{remote.where}: changed since it was listed; run again with what is there now")
        with _writing(keep):
            partial.replace(kept)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _pieces(source: IO[bytes], remote: Remote) -> Iterator[bytes]:
    left = remote.length
    while left and (piece := _read(source, remote, _PIECE if left < 0 else min(left, _PIECE))):
        left -= len(piece) if left > 0 else 0
        yield piece


def _read(source: IO[bytes], remote: Remote, count: int) -> bytes:
    """Apart from what is written, so that a network that fails is not taken for a disk that does."""
    with in_one_line(remote.where):
        return bytes(source.read(count))


def _reserve(remote: Remote, partial: Path, keep: Keep) -> None:
    """Take room for a video, from those that were used longest ago where there is none left."""
    length = max(remote.length, 0)
    if length > keep.limit:
        raise FetchError(
            f"{remote.where}: {length / 1e9:.3g} GB, more than the {keep.limit / 1e9:.3g} GB that fetched videos may "
            f"take; set {GIGABYTES} higher"
        )
    with _writing(keep):
        descriptor = _locked(keep.folder / _LOCK, fcntl.LOCK_EX)
        try:
            partial.unlink(missing_ok=True)
            _make_room(keep, length)
            with partial.open("wb") as file:
                file.truncate(length)
        finally:
            os.close(descriptor)


def _make_room(keep: Keep, length: int) -> None:
    entries = []
    for entry in (path for path in keep.folder.iterdir() if path.is_dir()):
        with suppress(FileNotFoundError):  # removed by its own process as it failed
            size = sum(file.stat().st_size for file in entry.iterdir())
            entries.append(((entry / _LOCK).stat().st_mtime_ns, size, entry))
    total = length + sum(size for _, size, _ in entries)
    for _, size, entry in sorted(entries):
        if total <= keep.limit:
            break
        total -= size if _removed(entry) else 0


def _removed(entry: Path) -> bool:
    """Remove a video unless it is in use; its lock last, as nobody must find the one without the other."""
    try:
        descriptor = _locked(entry / _LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        for file in sorted(entry.iterdir(), key=lambda path: path.name == _LOCK):
            file.unlink()
        with suppress(OSError):  # somebody asks for it anew
            entry.rmdir()
        return True
    finally:
        os.close(descriptor)


@contextmanager
def _writing(keep: Keep) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FetchError(
            f"{keep.folder}: fetched videos cannot be kept there ({error.strerror or error}); make room, or set "
            f"{FOLDER} to another folder"
        ) from error
