"""Videos behind URLs and in tars: which there are, with none of them fetched.

    s3://bucket/clips/      http://host/clip.mp4      s3://bucket/*.mp4      any fsspec URL
    shard-000.tar           s3://bucket/shard-000.tar                        WebDataset, or any plain tar

The decision that is not obvious: a video is named together with its version (the ETag where there is one, else size and
time of change), so that what was listed is what is decoded, or an error. Cost: a listing, or one question for a URL; of
a tar a request for each member, because its headers lie between them.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from tinyhd_pipe.store.errors import FetchError, TinyHDError, VideoError
from tinyhd_pipe.store.storage import absolute, filesystem_of, is_remote

_TAR = ".tar"
_HEADERS = 1 << 16
"""Bytes that are read at a time of a tar whose members are looked for; a header takes 512."""
_CHANGES = ("ETag", "etag", "LastModified", "Last-Modified", "updated", "last_modified", "mtime", "created")
"""What file systems say of a file that is another one when it was replaced, the surest first."""


@dataclass(frozen=True, order=True)
class Remote:
    """A video that is fetched before it is decoded."""

    url: str
    """Of the file that holds it; an absolute path where that is a tar of this machine."""
    version: str
    """What the place says of the file's content as it was listed."""
    member: str = ""
    """Its name in the tar; "" where the file is the video."""
    offset: int = 0
    """Byte of the file at which it begins."""
    length: int = -1
    """Bytes; -1 where the place does not say."""

    @property
    def where(self) -> str:
        """The URL as anyone may read it, with the member's name behind it."""
        return f"{public(self.url)}/{self.member}" if self.member else public(self.url)


@dataclass(frozen=True)
class Listing:
    """What there is at a URL."""

    folder: str
    """What tells its videos from those of the same names elsewhere: the name of the folder, or of the tar."""
    files: Mapping[str, Remote]
    """Path below what was given, or the name of the file that was given, to where it lies."""
    is_file: bool = False
    """Whether the URL is that of a single file, which is taken whatever its ending."""


def public(address: str) -> str:
    """An address without the passwords before an `@` or behind a `?`."""
    return re.sub(r"(?<=://)[^/@]*@", "", address).partition("?")[0] if "://" in address else address


def is_elsewhere(text: str) -> bool:
    """Whether videos must be fetched from there first: a URL, or a tar."""
    return is_remote(text) or (_is_tar(text) and not Path(text).is_dir())


def urls_at(text: str) -> list[str]:
    """The URLs that a pattern with `*` or `[` matches, or the one that was given; `?` begins a query.

    Raises VideoError where none matches or the place cannot be listed.
    """
    if not is_remote(text) or not any(sign in text for sign in "*["):
        return [text]
    files, pattern = filesystem_of(text)
    with in_one_line(text):
        found = [files.unstrip_protocol(path) for path in sorted(files.glob(pattern))]
    if not found:
        raise VideoError(
            f"{public(text)}: nothing there matches this pattern; expected videos, folders of videos or tars"
        )
    return found


def listing(text: str) -> Listing:
    """The files at a URL, below it where it is a folder, or the members of a tar; nothing is fetched.

    Raises VideoError where there is nothing, FetchError where the place cannot be reached, StoreError where the package
    for URLs of its kind is missing.
    """
    if _is_tar(text):
        return _tar_listing(text)
    files, root = filesystem_of(text)
    with in_one_line(text):
        facts = {} if text.endswith("/") else files.info(root)
        if facts and facts["type"] != "directory":
            return Listing(_parent(text), {_name(text): _whole(text, facts)}, is_file=True)
        found = files.find(root, detail=True)
        # Web servers' listings are names alone.
        found = {path: files.info(path) if known.get("size") is None else known for path, known in found.items()}
    skip = len(root.rstrip("/")) + 1
    below = {path[skip:]: _whole(files.unstrip_protocol(path), facts) for path, facts in found.items()}
    return Listing(_name(text.rstrip("/")), below)


def version_of(facts: Mapping[str, Any]) -> str:
    """What changes when a file is replaced, from what its file system says of it."""
    told = next((facts[name] for name in _CHANGES if facts.get(name)), "")
    if isinstance(told, datetime):  # of which a listing may give the seconds
        told = told.timestamp()
    return f"{told} {facts.get('size')}"


@contextmanager
def in_one_line(where: str) -> Iterator[None]:
    """Turn whatever a library raises about a place into one line; FetchError, but VideoError where nothing is there."""
    try:
        yield
    except TinyHDError:
        raise
    except FileNotFoundError as error:
        if isinstance(error.__cause__, OSError):  # what fsspec makes of a server that does not answer
            raise _unreachable(where, error.__cause__) from error
        raise VideoError(
            f"{public(where)}: nothing there; expected a video, a folder of videos or a tar of them"
        ) from error
    except Exception as error:  # each file system has its own, and none of them is worth a traceback
        raise _unreachable(where, error) from error


def _unreachable(where: str, error: Exception) -> FetchError:
    said = " ".join(str(error).split()) or type(error).__name__
    return FetchError(f"{public(where)}: cannot be read ({said}); check the address, the network and your rights")


def _tar_listing(text: str) -> Listing:
    url = absolute(text)
    files, path = filesystem_of(url)
    with in_one_line(text):
        version = version_of(files.info(path))
        try:
            with files.open(path, "rb", block_size=_HEADERS) as file, tarfile.open(fileobj=file, mode="r:") as tar:
                found = {
                    member.name.removeprefix("./"): Remote(url, version, member.name, member.offset_data, member.size)
                    for member in tar
                    if member.isreg() and not member.issparse()
                }
        except tarfile.ReadError as error:
            raise VideoError(
                f"{public(text)}: not a whole, plain tar ({error}); fetch it again, or unpack it if it is gzip"
            ) from error
    return Listing(_name(text).removesuffix(_TAR), found)


def _whole(url: str, facts: Mapping[str, Any]) -> Remote:
    size = facts.get("size")
    return Remote(url, version_of(facts), length=-1 if size is None else int(size))


def _is_tar(text: str) -> bool:
    return _path(text).endswith(_TAR)


def _name(text: str) -> str:
    return PurePosixPath(_path(text)).name


def _parent(text: str) -> str:
    return PurePosixPath(_path(text)).parent.name


def _path(text: str) -> str:
    """Of a web address without its query, and as text; other URLs are as they are."""
    return unquote(urlsplit(text).path) if text.startswith(("http://", "https://")) else text
