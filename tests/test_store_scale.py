"""A quarter of a million videos: what opening a store costs, and that a reader's memory has a bound."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.store_tools import describe, write_store
from tinyhd_pipe.store import create_or_open, open_store
from tinyhd_pipe.store.manifest import LevelFile, Manifest, VideoRow, manifest_path

SHARDS, VIDEOS = 480, 500
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


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests of a store as large as Kinetics-400, as a dump writes them; no maps."""
    path = tmp_path_factory.mktemp("wide") / "maps.zarr"
    writer = create_or_open(path, describe())
    for number in range(SHARDS):
        rows = [
            VideoRow(
                id=f"train_256/riding unicycle/{number:04}{place:04}_000012_000022.mp4",
                digest=f"{number * VIDEOS + place:064x}",
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
        levels = {name: LevelFile(10**8, "0" * 64) for name in ("final", "conspicuity_2")}
        manifest = Manifest.of_rows(number, rows, 304 * VIDEOS, levels, ())
        writer.storage.write(manifest_path(number), manifest.to_json())
    return path


def test_a_quarter_of_a_million_videos_open_in_about_a_second_and_300_megabytes(wide: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    output = subprocess.run([sys.executable, "-c", OPEN, wide], cwd=root, capture_output=True, check=True).stdout
    videos, rows, seconds, megabytes, _ = json.loads(output)
    assert videos == SHARDS * VIDEOS
    assert rows == 300
    assert seconds < 4  # about 1 on a quiet machine
    assert megabytes < 300


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
