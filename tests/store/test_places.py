"""Where a store lies: only `://` makes a URL, and a slip in one is not a new folder."""

from pathlib import Path

import pytest

from tests.store_tools import write_store
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.bench.store import bench_store
from tinyhd_pipe.store import StoreError, open_store
from tinyhd_pipe.store.storage import LocalStorage, absolute, is_remote, open_storage

COLONS = ("run-2026-11-25T14:12:33.zarr", "a:b/maps.zarr", "x:/maps.zarr", "file:maps.zarr", "s3:maps.zarr", "c++:1")


@pytest.mark.parametrize("name", COLONS)
def test_a_path_with_a_colon_is_a_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(name, {"a.avi": 20})
    assert (tmp_path / name / "zarr.json").is_file(), "it lies where its name says"
    assert open_store(name).videos == open_store(tmp_path / name).videos == ["a.avi"]
    assert absolute(name) == str(tmp_path / name)
    assert not is_remote(name)
    assert run(["store", "verify", name]) == 0


def test_a_benchmark_reads_a_path_with_a_colon_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_store(COLONS[0], {"a.avi": 20})
    assert bench_store(COLONS[0], windows=2).maps == 20


def test_a_file_url_is_the_path_behind_it(tmp_path: Path) -> None:
    write_store(f"file://{tmp_path}/maps.zarr", {"a.avi": 5})
    assert open_store(tmp_path / "maps.zarr").videos == ["a.avi"]
    assert absolute(f"file://{tmp_path}/maps.zarr") == str(tmp_path / "maps.zarr")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("file:/data/maps.zarr", "/data/maps.zarr"), ("s3:/bucket/maps.zarr", "s3://bucket/maps.zarr")],
)
def test_a_url_with_one_slash_is_a_slip_and_said_to_be_one(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreError, match="a URL has two slashes"):
        open_storage(typed)
    assert run(["store", "info", typed]) == 1
    expected = f"tinyhd-pipe: {typed}: a URL has two slashes: give {meant}, or ./{typed} for a folder of that name"
    assert capsys.readouterr().err.splitlines() == [expected]
    assert list(tmp_path.iterdir()) == []
    storage = open_storage(f"./{typed}")
    assert isinstance(storage, LocalStorage)
    assert storage.root == Path(typed)


def test_what_lies_elsewhere_stays_a_url() -> None:
    for url in ("s3://bucket/maps.zarr", "memory://maps.zarr", "simplecache::s3://bucket/maps.zarr"):
        assert is_remote(url)
        assert absolute(url) == url
