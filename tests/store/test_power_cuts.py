"""The power fails after any step of a dump: what is found is a store whose rerun ends as if it had never failed."""

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.power_cuts import Node, Step, after_power_cut, recorded, write_down
from tests.store_tools import assert_stored, content_of, live_logits, write_store
from tinyhd_pipe.store import StoreError, open_store
from tinyhd_pipe.store import storage as storages
from tinyhd_pipe.store.storage import LocalStorage

LENGTHS = {"a.avi": 17, "b.avi": 3, "c.avi": 20}
SMALL = 5_000
DUMPS: tuple[dict[str, str], ...] = ({}, {"b.avi": "new"}, {"b.avi": "newer", "c.avi": "new"})
"""A shard is replaced, and what took its place is replaced again."""
MIXTURES = 2
"""How often names that were not synced are mixed at random, after each step."""


def dump(folder: Path, changed: dict[str, str]) -> None:
    write_store(folder / "new" / "maps.zarr", LENGTHS, shard_bytes=SMALL, changed=changed)


def states(steps: list[Step], disk: Node) -> Iterator[dict[str, bytes | None]]:
    """All that may be found after each step, once each: nothing but what is certain, and mixtures with the rest."""
    rng = random.Random(0)
    seen = set()
    for step in [lambda disk: None, *steps]:
        step(disk)
        choices: list[Callable[[], bool]] = [lambda: False, *[lambda: rng.random() < 0.5] * MIXTURES]
        for choice in choices:
            found = after_power_cut(disk, choice)
            key = tuple(found.items())
            if key not in seen:
                seen.add(key)
                yield found


def whole_or_goes_on(folder: Path, changed: dict[str, str], whole: dict[str, bytes]) -> None:
    """What can be read is right, and the dump started again ends with the bytes of one whose power never failed."""
    store = folder / "new" / "maps.zarr"
    if (store / "zarr.json").exists():
        opened = open_store(store)
        for video in opened.videos:
            live = live_logits(video, LENGTHS[video], opened.video(video).digest)["final"]
            read = opened.read_logits(video, range(LENGTHS[video]))["final"]
            assert_stored(read, live, opened.description.levels[0].scale)
    dump(folder, changed)
    assert content_of(store) == whole


def cut_everywhere(folder: Path) -> int:
    """Dump, change, change again, with the power failing after every step; returns how many states were found."""
    disk, found = Node(is_folder=True), 0
    (folder / "disk").mkdir()
    for changed in DUMPS:
        with recorded(folder / "disk") as steps:
            dump(folder / "disk", changed)
        whole = content_of(folder / "disk" / "new" / "maps.zarr")
        for state in states(steps, disk):
            write_down(state, folder / "cut")
            whole_or_goes_on(folder / "cut", changed, whole)
            shutil.rmtree(folder / "cut")
            found += 1
        assert after_power_cut(disk, lambda: False).keys() >= {f"new/maps.zarr/{path}" for path in whole}, (
            "all of a dump that has ended is durable"
        )
    return found


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: no real disk has to sync for a disk that is imagined."""
    room = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=room if os.access(room, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def test_after_a_power_cut_at_any_step_a_rerun_ends_with_the_bytes_of_a_dump_without_one(memory: Path) -> None:
    assert cut_everywhere(memory) > 100


def _make_only(self: LocalStorage, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)


@pytest.mark.parametrize(
    ("owner", "name", "forgetful"),
    [
        (LocalStorage, "_make_folder", _make_only),
        (storages, "_sync_folder", lambda folder: None),
    ],
    ids=["new folders", "all folders"],
)
def test_a_store_that_forgets_to_sync_is_found_out(
    memory: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, forgetful: object
) -> None:
    monkeypatch.setattr(owner, name, forgetful)
    with pytest.raises((AssertionError, StoreError)):
        cut_everywhere(memory)
