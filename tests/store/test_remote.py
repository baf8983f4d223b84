"""The same store on any fsspec URL; memory:// stands for object stores here."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.store_tools import assert_stored, describe, live_logits, make_shard, sources_of, write_store
from tinyhd_pipe.store import StoreError, create_or_open, open_store
from tinyhd_pipe.store.repair import repair
from tinyhd_pipe.store.storage import open_storage
from tinyhd_pipe.store.verify import verify

LENGTHS = {"a.avi": 20, "b.avi": 40, "c.avi": 3, "failed.avi": 0, "d.avi": 33}
SMALL = 12_000
URL = "memory://bucket/maps.zarr"


@pytest.fixture(autouse=True)
def _empty_bucket() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


def content_of(url: str) -> dict[str, bytes]:
    storage = open_storage(url)
    return {path: storage.read(path) for path in storage.sizes("")}


def test_an_object_store_holds_the_bytes_of_a_local_one(tmp_path: Path) -> None:
    for url in (URL, str(tmp_path / "s")):
        write_store(url, LENGTHS, shard_bytes=SMALL)
        write_store(url, LENGTHS, shard_bytes=SMALL, changed={"d.avi": "new"})
    assert content_of(URL) == content_of(str(tmp_path / "s"))


def test_maps_are_read_by_ranges_from_an_object_store() -> None:
    write_store(URL, LENGTHS, shard_bytes=SMALL)
    store = open_store(URL)
    read = store.read_logits("b.avi", range(5, 40))
    for level in store.description.levels:
        assert_stored(read[level.name], live_logits("b.avi", 40)[level.name][5:], level.scale)
    assert store.videos == sorted(LENGTHS)


def test_a_rerun_on_an_object_store_makes_what_is_missing_and_nothing_else() -> None:
    write_store(URL, LENGTHS, shard_bytes=SMALL)
    before = content_of(URL)
    assert write_store(URL, LENGTHS, shard_bytes=SMALL) == []
    open_storage(URL).remove("shards/00001/zarr.json")  # as a kill before the manifest leaves it
    assert write_store(URL, LENGTHS, shard_bytes=SMALL) == ["b.avi"]
    assert content_of(URL) == before


def test_an_exception_leaves_no_object_behind() -> None:
    writer = create_or_open(URL, describe())
    (task,) = writer.plan(sources_of({"a": 5})).todo
    before = content_of(URL)
    with suppress(KeyboardInterrupt), writer.shard(task) as shard, shard.video("a") as video:
        video.append(live_logits("a", 4))
        raise KeyboardInterrupt
    assert content_of(URL) == before


def test_damage_in_an_object_store_is_found_and_undone() -> None:
    write_store(URL, LENGTHS, shard_bytes=SMALL)
    before = content_of(URL)
    rng = np.random.default_rng(1)
    for path in before:
        if path.startswith("plans/"):
            continue
        damaged = bytearray(before[path])
        bit = int(rng.integers(len(damaged) * 8))
        damaged[bit // 8] ^= 1 << bit % 8
        open_storage(URL).write(path, bytes(damaged))
        report = verify(URL)
        assert [damage.path for damage in report.damages] == [path]
        tasks = repair(URL, report)
        writer = create_or_open(URL, describe())
        for task in tasks:
            make_shard(writer, task, LENGTHS)
        assert content_of(URL) == before, path


def test_an_unknown_kind_of_url_is_one_line() -> None:
    with pytest.raises(StoreError, match=r"nosuch://x: cannot be opened"):
        open_store("nosuch://x")
