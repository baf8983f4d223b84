"""The reader in docs/store-format.md, in another language, which knows zarr and nothing of us, reads the same maps."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.doc_blocks import PROJECT, blocks
from tests.store_tools import LEVELS, describe, synthetic_logits, write_store
from tinyhd_pipe.store import Source, create_or_open, open_store
from tinyhd_pipe.store.numbering import Numbering

HERE = Path(__file__).resolve().parent / "node"
INSTALLED = Path(__file__).resolve().parents[2] / "build" / "node"
LENGTHS = {"b/long.avi": 53, "a.mp4": 16, "one.mkv": 1, "c.avi": 17}


@pytest.fixture(scope="module")
def reader() -> Path:
    """The reader's script beside the packages that it needs; without Node an error in CI, elsewhere a skip."""
    npm = shutil.which("npm")
    if npm is None:
        _cannot("Node is missing: install Node 18 or later with npm")
    INSTALLED.mkdir(parents=True, exist_ok=True)
    lock = INSTALLED / "package-lock.json"
    fresh = not lock.exists() or lock.read_bytes() != (HERE / lock.name).read_bytes()
    for file in HERE.iterdir():
        if file.is_file():
            shutil.copy(file, INSTALLED)
    if fresh or not (INSTALLED / "node_modules").exists():
        install = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
        answer = subprocess.run(install, cwd=INSTALLED, capture_output=True, text=True)
        if answer.returncode:
            lock.unlink()
            _cannot(f"npm cannot install the packages of {HERE}: {answer.stderr.strip()}")
    (script,) = (block.text for block in blocks(PROJECT / "docs/store-format.md") if block.language == "js")
    (INSTALLED / "read_maps.js").write_text(script)
    return INSTALLED / "read_maps.js"


def _cannot(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{reason}: in CI a store must be read in another language, too")
    pytest.skip(reason)


def read_by_node(reader: Path, store: Path, video: str, level: str, frames: range) -> np.ndarray:
    command = ["node", reader, store, video, level, str(frames.start), str(frames.stop)]
    answer = subprocess.run(command, capture_output=True)
    assert answer.returncode == 0, answer.stderr.decode()
    return np.frombuffer(answer.stdout, "<f4").reshape(-1, *LEVELS[level])


def test_zarrita_reads_the_same_maps_of_every_level_and_video(reader: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "s", LENGTHS, shard_bytes=5_000)
    write_store(tmp_path / "s", LENGTHS, shard_bytes=5_000, changed={"c.avi": "new"})
    store = open_store(tmp_path / "s")
    assert len(store.manifests) > 1
    for video, frames, level in (
        ("b/long.avi", range(53), "final"),
        ("b/long.avi", range(9, 35), "conspicuity_2"),
        ("one.mkv", range(1), "final"),
        ("c.avi", range(15, 17), "conspicuity_2"),
    ):
        theirs = read_by_node(reader, tmp_path / "s", video, level, frames)
        np.testing.assert_allclose(theirs, store.read(video, frames)[level], rtol=1e-5)


def test_zarrita_finds_every_nth_frame(reader: Path, tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe(every=3))
    (task,) = writer.plan([Source("v", "one", 20)]).todo
    with writer.shard(task) as shard, shard.video("v") as video:
        video.append({name: maps[::3] for name, maps in synthetic_logits("v", 20).items()})
        video.finish(20)
    theirs = read_by_node(reader, tmp_path / "s", "v", "final", range(4, 16))
    ours = open_store(tmp_path / "s").read("v", [6, 9, 12, 15])["final"]
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


def test_zarrita_finds_frames_by_their_numbers(reader: Path, tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan([Source("v", "one", 8)]).todo
    with writer.shard(task) as shard, shard.video("v") as video:
        video.append(synthetic_logits("v", 8))
        video.finish(8, numbering=Numbering.of([3, 4, 5, 20, 25, 30, 35, 41]))
    theirs = read_by_node(reader, tmp_path / "s", "v", "final", range(4, 31))
    ours = open_store(tmp_path / "s").read("v", [4, 5, 20, 25, 30])["final"]
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


def test_zarrita_passes_over_what_does_not_count(reader: Path, tmp_path: Path) -> None:
    """A shard whose place another one has taken, one that is not finished, and a frame without a valid map."""
    path = tmp_path / "s"
    write_store(path, {"a.mp4": 16, "b.mp4": 9})
    shutil.copytree(path / "shards" / "00000", tmp_path / "old")
    write_store(path, {"b.mp4": 9}, changed={"b.mp4": "new"}, prune=True)
    shutil.copytree(tmp_path / "old", path / "shards" / "00000")  # as a dump that is killed before it sweeps leaves it
    (path / "shards" / "00009").mkdir()
    assert [manifest.replaces for manifest in open_store(path).manifests] == [(0,)]
    command = ["node", reader, path, "a.mp4", "final", "0", "16"]
    assert "a.mp4: no maps in" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
    theirs = read_by_node(reader, path, "b.mp4", "final", range(9))
    np.testing.assert_allclose(theirs, open_store(path).read("b.mp4", range(9))["final"], rtol=1e-5)


def test_zarrita_says_which_frames_have_no_valid_map(reader: Path, tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan([Source("v", "one", 8)]).todo
    with writer.shard(task) as shard, shard.video("v") as video:
        video.append({name: maps[:3] for name, maps in synthetic_logits("v", 8).items()})
        video.mark_failed(3)
        video.append({name: maps[4:] for name, maps in synthetic_logits("v", 8).items()})
        video.finish(8)
    theirs = read_by_node(reader, tmp_path / "s", "v", "final", range(2, 6))
    assert np.isnan(theirs).all(axis=(1, 2)).tolist() == [False, True, False, False]


def test_a_code_that_is_one_step_off_would_be_seen(reader: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "s", {"a.mp4": 16})
    level = open_store(tmp_path / "s").description.levels[0]
    logits = open_store(tmp_path / "s").read_logits("a.mp4", range(16))[level.name] + np.float32(level.scale)
    theirs = read_by_node(reader, tmp_path / "s", "a.mp4", level.name, range(16))
    assert not np.isclose(theirs, 1 / (1 + np.exp(-logits)), rtol=1e-5).any()
