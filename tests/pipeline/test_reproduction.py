"""`dvc repro` in a plain copy without git: it runs what is needed, once, and loses nothing when it is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
TINY = {
    "sample_data": {"train": 4, "heldout": 1, "unlabelled": 2, "frames": 32, "size": [32, 64]},
    "teacher_train": {"width": 0.0625, "size": [32, 64], "epochs": 1, "accumulate": 1, "validation_clips": 1},
    "teacher_dump": {"fidelity": 0.01, "shard_megabytes": 0.05, "precision": "float32"},
    "student_train": {"reduction": 4, "size": [32, 64], "epochs": 1, "validation_clips": 1},
    "evaluate": {"every": 16},
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as somebody without git has it, with settings that take seconds."""
    folder = tmp_path_factory.mktemp("copy") / "tinyhd-pipe"
    kept = ("store", "stages", "pipeline", ".dvc/config", ".dvc/.gitignore", "dvc.yaml", ".dvcignore")
    for name in kept:
        source, target = PROJECT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (folder / "params.yaml").write_text(yaml.safe_dump(TINY))
    return folder


def _repro(folder: Path) -> subprocess.Popen[str]:
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    return subprocess.Popen(
        [scripts / "dvc", "repro"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _ran(process: subprocess.Popen[str]) -> set[str]:
    """The stages that ran; the run must have succeeded."""
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")}


def _sealed(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("data/maps.zarr/shards/*/zarr.json")}


@pytest.mark.slow
def test_killed_in_the_dump_it_goes_on_where_it_was_and_then_there_is_nothing_left_to_do(copy: Path) -> None:
    process = _repro(copy)
    deadline = time.monotonic() + 200
    while len(_sealed(copy)) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    finished = _sealed(copy)
    times = {path: path.stat().st_mtime_ns for path in finished}
    assert not (copy / "runs" / "student").exists(), "it was killed too late to mean anything"

    assert _ran(_repro(copy)) == {"teacher_dump", "student_train", "evaluate"}
    assert {path: path.stat().st_mtime_ns for path in finished} == times
    assert len(_sealed(copy)) > len(finished)
    assert _ran(_repro(copy)) == set()


@pytest.mark.slow
def test_one_number_reruns_only_what_depends_on_it(copy: Path) -> None:
    settings = {**TINY, "evaluate": {"every": 8}}
    (copy / "params.yaml").write_text(yaml.safe_dump(settings))
    assert _ran(_repro(copy)) == {"evaluate"}
    settings["student_train"] = {**TINY["student_train"], "seed": 1}
    (copy / "params.yaml").write_text(yaml.safe_dump(settings))
    assert _ran(_repro(copy)) == {"student_train", "evaluate"}
