"""A quarter of a million videos: what opening a store costs, and that a reader's memory has a bound."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.store_tools import describe, write_store
from tinyhd_pipe.store import Source, create_or_open, open_store
from tinyhd_pipe.store.manifest import LevelFile, Manifest, VideoRow, data_path, manifest_path, metadata_path

SHARDS, VIDEOS = 480, 500
LEVELS = dict.fromkeys((*(f"conspicuity_{scale}" for scale in (2, 3, 4, 5)), "final"), (12, 16))
TINY = b"maps"
OPEN = """
import json, pathlib, sys, time
import numpy
from tinyhd_pipe.store import open_store
def peak():  # not getrusage: a child begins with the peak of the process that forked it
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

before = peak()
start = time.process_time()
store = open_store(sys.argv[1])
videos = store.videos
row = store.video(videos[123_456])
seconds = time.process_time() - start
after = peak()
print(json.dumps([len(videos), row.rows, seconds, after / 1024, before / 1024]))
"""


def _rows(shard: int) -> list[VideoRow]:
    return [
        VideoRow(
            id=f"train_256/riding unicycle/{shard:04}{place:04}_000012_000022.mp4",
            digest=f"{shard * VIDEOS + place:064x}",
            frames=300,
            height=256,
            width=340,
            rate="30000/1001",
            first_frame=0,
            rows=300,
            first_row=304 * place,
        )
        for place in range(VIDEOS)
    ]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests of a store as large as Kinetics-400, as a dump writes them; of maps, files of a few bytes."""
    path = tmp_path_factory.mktemp("wide") / "maps.zarr"
    create_or_open(path, describe(levels=LEVELS))
    for number in range(SHARDS):
        rows = _rows(number)
        manifest = Manifest.of_rows(
            number, rows, 304 * VIDEOS, dict.fromkeys(LEVELS, LevelFile(len(TINY), "0" * 64)), ()
        )
        for level in LEVELS:
            for name in (data_path(number, level), metadata_path(number, level)):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(TINY)
        (path / manifest_path(number)).write_bytes(manifest.to_json())
    return path


def test_a_quarter_of_a_million_videos_open_in_about_a_second_and_300_megabytes(wide: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    output = subprocess.run([sys.executable, "-c", OPEN, wide], cwd=root, capture_output=True, check=True).stdout
    videos, rows, seconds, megabytes, _ = json.loads(output)
    assert videos == SHARDS * VIDEOS
    assert rows == 300
    assert seconds < 4  # about 1 on a quiet machine
    assert megabytes < 300


def test_adding_one_video_to_a_quarter_of_a_million_writes_its_own_shard_and_nothing_else(wide: Path) -> None:
    there = [Source(row.id, row.digest, row.frames) for shard in range(SHARDS) for row in _rows(shard)]
    before = _stamps(wide)
    assert len(before) == 11 * SHARDS + 2
    writer = create_or_open(wide, describe(levels=LEVELS))
    started = time.process_time()
    with writer.exclusive():
        plan = writer.plan([*there, Source("new.mp4", "d", 20)])
        seconds = time.process_time() - started
        (task,) = plan.todo
        maps = {level: np.zeros((20, *grid), np.float32) for level, grid in LEVELS.items()}
        with writer.shard(task) as shard, shard.video("new.mp4") as video:
            video.append(maps)
            video.finish(20)
    after = _stamps(wide)
    assert {path: after[path] for path in before} == before, "nothing that was there was touched"
    assert len(after) - len(before) == 11 + 1, "one shard and one plan"
    assert len(open_store(wide).videos) == SHARDS * VIDEOS + 1
    assert seconds < 6  # about 1.4 on a quiet machine


def _stamps(store: Path) -> dict[str, tuple[int, int, int]]:
    """What tells of every file that it was not written again."""
    stats = {path: path.stat() for path in store.rglob("*") if path.is_file()}
    return {str(path): (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in stats.items()}


def test_open_files_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyhd_pipe.store.reader.OPEN_FILES", 4)
    lengths = {f"{place:02}": 17 for place in range(12)}
    write_store(tmp_path / "s", lengths, shard_bytes=1)
    store = open_store(tmp_path / "s")
    for _ in range(2):
        for video in store.videos:
            store.read(video, range(17))
    assert len(list(Path("/proc/self/fd").iterdir())) < 100
    assert len(store._open) == 4


def test_decoded_chunks_have_a_bound_and_are_read_again_after_it(tmp_path: Path) -> None:
    lengths = {f"{place:02}": 48 for place in range(3)}
    write_store(tmp_path / "s", lengths)
    chunk = 8 * 24 * 32
    small, large = (open_store(tmp_path / "s", cache_bytes=limit) for limit in (2 * chunk, 100 * chunk))
    for _ in range(2):
        for video in large.videos:
            one, other = (store.read(video, range(48))["final"] for store in (small, large))
            np.testing.assert_array_equal(one, other)
    assert small._decoded._bytes <= 2 * chunk
    assert large._decoded._bytes == 18 * (chunk + chunk // 4)
