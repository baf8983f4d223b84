"""Where bytes live: a local folder or any fsspec URL, behind the same few calls.

Local files are written beside their name, synced and renamed, so that a name either holds everything or
does not exist, also after a power cut. A name is durable only when every folder above it is, and those that a
killed run has made may not be: all of them are synced, up to the one that holds the store, once by each
`LocalStorage`. Shards come by one of their own each, so a shard that was removed is gone before the next is there.
Object stores give the same for a single object by themselves (a put is atomic), but have neither rename nor
locks. Paths are relative to the store, with forward slashes.
"""

import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol, cast

from tinyhd_pipe.store.errors import StoreError

PARTIAL = ".partial"
"""How the names of files end that are not whole yet."""
LOCK = ".lock"
"""What lies in a store while a dump writes to it."""
Write = Callable[[bytes], object]
_LOCAL = "file://"
_SCHEME_AND_ONE_SLASH = re.compile(r"([a-z][a-z0-9+.-]*):/(?!/)")
_SCHEMES = ("file", "memory", "s3", "gs", "gcs", "abfs", "az", "http", "https", "hdfs", "sftp", "ssh", "ftp")
"""Those whose name before a single slash is a slip, and not a folder."""


class Storage(Protocol):
    """What the store needs of the place it lives in."""

    url: str

    def read(self, path: str) -> bytes:
        """All bytes of a file. Raises `FileNotFoundError`."""

    def read_many(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        """All bytes of several files, concurrently where that is faster, without those that are missing."""

    def write(self, path: str, payload: bytes) -> None:
        """Replace a file as a whole."""

    def create(self, path: str) -> "AbstractContextManager[Write]":
        """A context that gives a function to write bytes with; the file exists when it is left normally."""

    def folders(self, path: str) -> list[str]:
        """Names of what lies directly in a folder, sorted; empty where it does not exist."""

    def sizes(self, path: str) -> dict[str, int]:
        """Paths of all files below a folder and their bytes; empty where it does not exist."""

    def prune(self, path: str) -> None:
        """Remove empty folders below and including this one."""

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all that it holds; nothing happens where it does not exist."""

    def open(self, path: str) -> "RangeReader":
        """A file to read pieces of. Raises `FileNotFoundError`."""


class RangeReader(Protocol):
    """An open file that is read in pieces; safe to use from several threads."""

    size: int

    def read(self, start: int, length: int) -> bytes: ...


def open_storage(url: str | os.PathLike[str]) -> Storage:
    """The storage behind a local path or an fsspec URL such as s3://bucket/maps.zarr or memory://maps.zarr.

    Only `://` makes a URL: `run-14:12.zarr` is a folder. Raises `StoreError` where a URL has one slash, as in
    `file:/data/maps.zarr`, because neither a folder `file:` nor a guess is what the user means.
    """
    text = os.fspath(url)
    scheme = _SCHEME_AND_ONE_SLASH.match(text)
    if scheme and scheme[1] in _SCHEMES:
        rest = text[scheme.end() - 1 :]
        meant = rest if scheme[1] == "file" else f"{scheme[1]}:/{rest}"
        raise StoreError(f"{text}: a URL has two slashes: give {meant}, or ./{text} for a folder of that name")
    if is_remote(text):
        return RemoteStorage(text)
    return LocalStorage(text.removeprefix(_LOCAL))


def is_remote(text: str) -> bool:
    """Whether this names a place behind fsspec; otherwise it is a path of this machine, or one behind `file://`."""
    return "://" in text and not text.startswith(_LOCAL)


def absolute(text: str) -> str:
    """The same place for a process with another working directory."""
    return text if is_remote(text) else str(Path(text.removeprefix(_LOCAL)).absolute())


def filesystem_of(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it. Raises `StoreError` where a package is missing for it."""
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        advice = "pip install 'tinyhd-pipe[s3]' for s3://, else the package that fsspec names"
        raise StoreError(f"{url}: cannot be opened: {error}: {advice}") from error
    except ValueError as error:
        raise StoreError(f"{url}: cannot be opened: {error}; expected a folder, or a URL that fsspec knows") from error
    return files, str(path)


class LocalStorage:
    """A folder of the local disk."""

    def __init__(self, folder: str) -> None:
        self.url = folder
        self.root = Path(folder)
        self._durable: set[Path] = set()
        """Folders whose names were synced."""

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def read_many(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        found = {}
        for path in paths:
            try:
                found[path] = self.read(path)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return found

    def write(self, path: str, payload: bytes) -> None:
        with self.create(path) as write:
            write(payload)

    @contextmanager
    def create(self, path: str) -> Iterator[Write]:
        final = self.root / path
        partial = final.with_name(f"{final.name}.{uuid.uuid4().hex}{PARTIAL}")  # each writer its own
        with _failures(final):
            self._make_folder(final.parent)
            file = partial.open("wb")
        try:
            yield _guarded(file, final)
            with _failures(final):
                file.flush()
                os.fsync(file.fileno())
                file.close()
                partial.replace(final)
                _sync_folder(final.parent)
        except BaseException:
            with suppress(OSError):  # a full disk refuses what is still buffered
                file.close()
            partial.unlink(missing_ok=True)
            raise

    def _make_folder(self, folder: Path) -> None:
        """Make a folder of the store and those above it where they are missing, and all of them durable."""
        if folder in self._durable:
            return
        if folder == self.root:
            make_folder(folder.parent)
        else:
            self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)
        self._durable.add(folder)

    def folders(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self.root / path))  # noqa: PTH208 - names are wanted, not paths
        except (FileNotFoundError, NotADirectoryError):
            return []

    def sizes(self, path: str) -> dict[str, int]:
        found: dict[str, int] = {}
        for folder, _, names in os.walk(self.root / path):
            here = Path(folder)
            found |= {(here / name).relative_to(self.root).as_posix(): (here / name).stat().st_size for name in names}
        return found

    def prune(self, path: str) -> None:
        self._durable.clear()
        for folder, _, _ in os.walk(self.root / path, topdown=False):
            with suppress(OSError):  # not empty
                Path(folder).rmdir()

    def remove(self, path: str) -> None:
        target = self.root / path
        self._durable.clear()
        with _failures(target):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def open(self, path: str) -> "LocalFile":
        return LocalFile(self.root / path)


class LocalFile:
    """A file read by position, so that threads and forked processes share no file offset."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._descriptor).st_size

    def read(self, start: int, length: int) -> bytes:
        return os.pread(self._descriptor, length, start)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


class RemoteStorage:
    """A folder of any fsspec file system."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, root = filesystem_of(url)
        self._root = root.rstrip("/")

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"

    def read(self, path: str) -> bytes:
        return cast(bytes, self._files.cat_file(self._at(path)))

    def read_many(self, paths: Iterable[str]) -> Mapping[str, bytes]:
        wanted = {self._at(path): path for path in paths}
        found = self._files.cat(list(wanted), on_error="omit") if wanted else {}
        if isinstance(found, bytes):  # a single path gives its bytes, not a mapping
            return {next(iter(wanted.values())): found}
        return {wanted[full]: payload for full, payload in found.items()}

    def write(self, path: str, payload: bytes) -> None:
        with _failures(self._at(path)):
            self._files.pipe_file(self._at(path), payload)

    def put_new(self, path: str, payload: bytes) -> None:
        """Make an object; raises `FileExistsError` where it is there, by the store's own word if it has one."""
        full = self._at(path)
        try:
            self._files.pipe_file(full, payload, mode="create")
        except (NotImplementedError, TypeError, ValueError):
            self.write(path, payload)
        except OSError as error:
            if error.errno != errno.ENOSYS:  # which is S3's 501, of servers without conditional writes
                raise
            self.write(path, payload)

    @contextmanager
    def create(self, path: str) -> Iterator[Write]:
        """Gather the bytes in a local temporary file; the object is put as a whole at the end."""
        full = self._at(path)
        with tempfile.NamedTemporaryFile() as file:
            yield _guarded(cast(IO[bytes], file), file.name)
            with _failures(full):
                file.flush()
                self._files.makedirs(full.rsplit("/", 1)[0], exist_ok=True)
                self._files.put_file(file.name, full)

    def folders(self, path: str) -> list[str]:
        try:
            entries = self._files.ls(self._at(path), detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def sizes(self, path: str) -> dict[str, int]:
        self._files.invalidate_cache()
        try:
            entries = self._files.find(self._at(path), detail=True)
        except FileNotFoundError:
            return {}
        skip = len(self._root) + 1
        return {full[skip:]: int(entry["size"]) for full, entry in entries.items()}

    def prune(self, path: str) -> None:
        """Object stores have no folders."""

    def remove(self, path: str) -> None:
        with _failures(self._at(path)):
            self._files.invalidate_cache()
            if self._files.exists(self._at(path)):
                self._files.rm(self._at(path), recursive=True)

    def open(self, path: str) -> "RemoteFile":
        size = int(self._files.info(self._at(path))["size"])
        return RemoteFile(self._files, self._at(path), size)


class RemoteFile:
    """An object read by ranges."""

    def __init__(self, files: Any, path: str, size: int) -> None:
        self._files = files
        self._path = path
        self.size = size

    def read(self, start: int, length: int) -> bytes:
        return cast(bytes, self._files.cat_file(self._path, start=start, end=start + length))


@contextmanager
def _failures(path: object) -> Iterator[None]:
    """Turn what a full disk or a read-only folder raises into one line that says what to do."""
    try:
        yield
    except OSError as error:
        advice = "free some and run again" if error.errno == errno.ENOSPC else "mend that and run again"
        reason = error.strerror or str(error)
        raise StoreError(f"{path}: cannot be written: {reason}: {advice}; what is finished is kept") from error


def _guarded(file: IO[bytes], path: object) -> Write:
    """The file's write, with its failures in one line; other errors of the meantime are left alone."""

    def write(payload: bytes) -> None:
        with _failures(path):
            file.write(payload)

    return write


def make_folder(folder: Path) -> None:
    """Make a folder and those above it where they are missing, each of them durable. Raises `OSError`."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Make what was renamed, made or removed in a folder durable, where the file system can and we may."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)
