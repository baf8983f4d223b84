"""A disk whose power may fail: what a program does to files is recorded, and any prefix of it is replayed.

The model is the strict one of POSIX. What was written to a file is there once the file was synced, before that the
file may be empty. A name made, replaced or removed in a folder is certain once that folder was synced; before that
each name by itself may be as it was or as it became, in any order.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(eq=False)
class Node:
    """A file or a folder; its names lie in the folders that hold it."""

    is_folder: bool
    content: bytes = b""
    """Of a file, as it was synced last."""
    names: dict[str, "Node"] = field(default_factory=dict)
    """Of a folder, as a running program sees them."""
    synced: dict[str, "Node"] = field(default_factory=dict)
    """Of a folder, as they survive."""


Step = Callable[[Node], None]


@contextmanager
def recorded(root: Path) -> Iterator[list[Step]]:
    """What is done below `root` in the context, as steps that do the same to a `Node`."""
    recorder = _Recorder(root.resolve(), [])
    with pytest.MonkeyPatch.context() as patch:  # every function by which the store changes a folder or syncs
        patch.setattr(os, "mkdir", recorder.watched_mkdir(os.mkdir))
        patch.setattr(os, "replace", recorder.watched_replace(os.replace))
        patch.setattr(os, "unlink", recorder.watched_removal(os.unlink))
        patch.setattr(os, "rmdir", recorder.watched_removal(os.rmdir))
        patch.setattr(os, "fsync", recorder.watched_fsync(os.fsync))
        yield recorder.steps


@dataclass(frozen=True)
class _Recorder:
    root: Path
    steps: list[Step]

    def parts(self, path: Any, dir_fd: int | None = None) -> tuple[str, ...]:
        """Of a path below the root; none for others."""
        base = Path.cwd() if dir_fd is None else _path_of(dir_fd)
        full = base / os.fspath(path)
        return full.relative_to(self.root).parts if full.is_relative_to(self.root) else ()

    def watched_mkdir(self, mkdir: Any) -> Any:
        def watched(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            mkdir(path, mode, dir_fd=dir_fd)
            if parts := self.parts(path, dir_fd):
                self.steps.append(lambda disk: _put(disk, parts, Node(is_folder=True)))

        return watched

    def watched_replace(self, replace: Any) -> Any:
        def watched(source: Any, target: Any) -> None:
            replace(source, target)
            before, after = self.parts(source), self.parts(target)
            if before and after:
                self.steps.append(lambda disk: _put(disk, after, _take(disk, before)))

        return watched

    def watched_removal(self, remove: Any) -> Any:
        def watched(path: Any, *, dir_fd: int | None = None) -> None:
            parts = self.parts(path, dir_fd)
            remove(path, dir_fd=dir_fd)
            if parts:
                self.steps.append(lambda disk: (_take(disk, parts), None)[1])

        return watched

    def watched_fsync(self, fsync: Any) -> Any:
        def watched(descriptor: int) -> None:
            fsync(descriptor)
            path = _path_of(descriptor)
            parts = self.parts(path)
            if path.is_dir() and path.is_relative_to(self.root):
                self.steps.append(lambda disk: _sync_names(_at(disk, parts)))
            elif parts:
                content = path.read_bytes()
                self.steps.append(lambda disk: _put(disk, parts, Node(is_folder=False, content=content)))

        return watched


def _path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _at(disk: Node, parts: tuple[str, ...]) -> Node:
    for part in parts:
        disk = disk.names[part]
    return disk


def _put(disk: Node, parts: tuple[str, ...], node: Node) -> None:
    _at(disk, parts[:-1]).names[parts[-1]] = node


def _take(disk: Node, parts: tuple[str, ...]) -> Node:
    """Remove a name. A file that was never synced is empty whatever was written to it."""
    return _at(disk, parts[:-1]).names.pop(parts[-1], Node(is_folder=False))


def _sync_names(folder: Node) -> None:
    folder.synced = dict(folder.names)


Choose = Callable[[], bool]
"""Whether a name that was not synced is as it became."""


def after_power_cut(disk: Node, became: Choose) -> dict[str, bytes | None]:
    """What is found when the power is back: path -> bytes of a file, None for a folder."""
    found: dict[str, bytes | None] = {}
    for name in sorted(disk.names.keys() | disk.synced.keys()):
        now, then = disk.names.get(name), disk.synced.get(name)
        node = now if now is then or became() else then
        if node is None:
            continue
        found[name] = None if node.is_folder else node.content
        if node.is_folder:
            found |= {f"{name}/{path}": content for path, content in after_power_cut(node, became).items()}
    return found


def write_down(found: dict[str, bytes | None], folder: Path) -> None:
    """Make a folder of what was found."""
    folder.mkdir()
    for path, content in sorted(found.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
