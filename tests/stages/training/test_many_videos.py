"""What training costs before its first step does not grow with what the videos hold, and memory hardly with their
number; a video is looked at when it is first drawn."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.moving_dot import make_data, make_store
from tests.stages.training.test_training import RECIPE, _train
from tests.store_tools import describe
from tinyhd_pipe.stages import student_train as student
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.training.history import StepReport
from tinyhd_pipe.stages.training.validation import leave_out
from tinyhd_pipe.stages.video import index
from tinyhd_pipe.stages.video.sources import VideoSource, digest, find_videos
from tinyhd_pipe.store import create_or_open
from tinyhd_pipe.store.manifest import LevelFile, Manifest, VideoRow, data_path, manifest_path, metadata_path

SHARDS, VIDEOS = 100, 500
LEVELS = {"final": (12, 16)}
BEGIN = """
import json, pathlib, sys, time
from tinyhd_pipe.stages.networks.network import scaling_for
from tinyhd_pipe.stages.student_train import _digest_of_all, stored_videos
from tinyhd_pipe.stages.training.dataset import ClipDataset, Sampling
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.training.validation import leave_out
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import open_store

def megabytes():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024

def begin(many):
    before, start = megabytes(), time.process_time()
    targets = Targets.of([open_store(sys.argv[1])])
    sources = [VideoSource(video, pathlib.Path(sys.argv[1]) / video) for video in targets.videos[:many]]
    learned, _ = leave_out(stored_videos(targets, sources, []), 0.1)
    data = ClipDataset(learned, scaling=scaling_for("tinyhd", (32, 64)), sampling=Sampling(outputs=1, seed=0))
    keys = data.epoch_keys(0, 1)
    data.describe(keys[0])
    _digest_of_all(learned)
    return len(learned), time.process_time() - start, megabytes() - before

begin(100)
print(json.dumps([begin(5_000), begin(50_000)]))
"""


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a store of 50,000 videos says of them; of maps, files of a few bytes, and of videos nothing."""
    path = tmp_path_factory.mktemp("wide") / "maps.zarr"
    create_or_open(path, describe(levels=LEVELS))
    for number in range(SHARDS):
        rows = [
            VideoRow(
                f"{number:03}/{place:06}.mp4",
                f"{number * VIDEOS + place:064x}",
                300,
                256,
                340,
                "25",
                0,
                300,
                304 * place,
            )
            for place in range(VIDEOS)
        ]
        files = dict.fromkeys(LEVELS, LevelFile(4, "0" * 64))
        for name in (data_path(number, "final"), metadata_path(number, "final")):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(b"maps")
        (path / manifest_path(number)).write_bytes(Manifest.of_rows(number, rows, 304 * VIDEOS, files, ()).to_json())
    return path


@pytest.mark.slow
def test_fifty_thousand_videos_are_drawn_from_in_seconds_and_a_kilobyte_or_two_each(wide: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    output = subprocess.run([sys.executable, "-c", BEGIN, wide], cwd=root, capture_output=True, check=True).stdout
    (few, seconds_few, _), (many, seconds, megabytes) = json.loads(output)
    assert (few, many) == (4_500, 45_000)
    assert seconds < 8  # about 2 on a quiet machine
    assert seconds < 25 * max(seconds_few, 0.1), "ten times as many cost about ten times as much"
    assert megabytes < 120


def test_leaving_videos_out_takes_every_kth_one_or_the_last() -> None:
    assert leave_out("abcdef", 0.5) == (list("ace"), list("bdf"))
    assert leave_out("abc", 0.1) == (list("ab"), ["c"])
    assert leave_out("aaab", 0.25) == (list("aaa"), ["b"]), "by place, not by what is equal"


def test_only_videos_that_are_drawn_are_looked_at_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_data(tmp_path, videos=12, frames=16, labelled=1)
    sources = find_videos([tmp_path / "video"])
    store = make_store(tmp_path / "maps.zarr", sources, frames=16)
    looked: Counter[str] = Counter()

    def counted(source: VideoSource) -> str:
        looked[source.id] += 1
        return digest(source)

    def stop(step: StepReport) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(index, "digest", counted)
    with pytest.raises(KeyboardInterrupt):
        _train(store, sources, tmp_path / "run", replace(RECIPE, validation_share=0.1), step_done=stop)
    assert 0 < len(looked) < len(sources)
    assert set(looked.values()) == {1}


def test_a_weights_file_lists_its_videos_while_they_are_few(
    store: object, sources: list[VideoSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_weights(_train(store, sources, tmp_path / "few").best).facts["learned_from"] == ["001", "003", "004"]
    monkeypatch.setattr(student, "LISTED", 2)
    facts = read_weights(_train(store, sources, tmp_path / "many").best).facts
    assert facts["learned_from"] == "3 videos"
    assert facts["videos_sha256"]
