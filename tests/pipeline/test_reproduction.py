"""`make run` and `dvc repro` in a plain copy without git: what is needed runs, once, and nothing is lost by a kill."""

import time
from pathlib import Path

import pytest

from tests.dvc_copies import MAKE_RUN, TINY, copy_project, kill_all, output_of, stages_run_by, start, write_settings
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.stages.sample_data import make_sample_data
from tinyhd_pipe.stages.settings.sample_data import SampleOptions
from tinyhd_pipe.store import open_store

REPRO = ("dvc", "repro")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_project(tmp_path_factory.mktemp("copy") / "tinyhd-pipe")


def _sealed(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.glob("data/maps.zarr/shards/*/zarr.json")}


@pytest.mark.slow
def test_killed_in_the_dump_it_goes_on_where_it_was_and_then_there_is_nothing_left_to_do(copy: Path) -> None:
    process = start(copy, *MAKE_RUN)
    deadline = time.monotonic() + 200
    while len(_sealed(copy)) < 2:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    kill_all(process)
    finished = _sealed(copy)
    times = {path: path.stat().st_mtime_ns for path in finished}
    assert not (copy / "runs" / "student").exists(), "it was killed too late to mean anything"

    assert stages_run_by(copy, *REPRO) == {"teacher_dump", "student_train", "evaluate", "report"}
    assert {path: path.stat().st_mtime_ns for path in finished} == times
    assert len(_sealed(copy)) > len(finished)
    *said, last = output_of(copy, *MAKE_RUN).splitlines()
    assert not [line for line in said if line.startswith("Running stage")], "there is nothing left to do"
    assert last.endswith(str(copy / "runs" / "report.html"))
    assert "How good it is" in (copy / "runs" / "report.html").read_text()


@pytest.mark.slow
def test_one_number_reruns_only_what_depends_on_it(copy: Path) -> None:
    settings = {**TINY, "evaluate": {"every": 8}}
    write_settings(copy, settings)
    assert stages_run_by(copy, *REPRO) == {"evaluate", "report"}
    settings["student_train"] = {**TINY["student_train"], "seed": 1}
    write_settings(copy, settings)
    assert stages_run_by(copy, *REPRO) == {"student_train", "evaluate", "report"}


@pytest.mark.slow
def test_another_teacher_makes_its_own_maps_of_the_same_clips(copy: Path) -> None:
    write_settings(copy, {**TINY, "teacher_train": {**TINY["teacher_train"], "seed": 1}})
    assert stages_run_by(copy, *REPRO) == {"teacher_train", "teacher_dump", "student_train", "evaluate", "report"}
    teacher = read_weights(copy / "runs" / "teacher" / "best.safetensors").sha256
    assert open_store(copy / "data" / "maps.zarr").info()["teacher"]["weights_sha256"] == teacher


@pytest.mark.slow
def test_ones_own_clips_and_teacher_are_used_by_naming_them_in_the_settings(tmp_path: Path) -> None:
    mine = tmp_path / "my data"
    make_sample_data(mine, SampleOptions(seed=5, train=2, heldout=1, unlabelled=1, frames=32, size=(32, 64)))
    (mine / "train").rename(mine / "DHF1K")
    write_weights(mine / "hd2s.safetensors", HD2S(width=0.0625).state_dict(), {"kind": "hd2s", "size": [32, 64]})
    copy = copy_project(tmp_path / "copy")
    paths = {
        "labelled": mine / "DHF1K",
        "unlabelled": mine / "unlabelled",
        "heldout": mine / "heldout",
        "teacher_weights": mine / "hd2s.safetensors",
        "store": mine / "maps.zarr",
        "student_store": mine / "maps.zarr",
    }
    write_settings(copy, {**TINY, "data": {**{name: str(path) for name, path in paths.items()}, "assistant": []}})
    output_of(copy, "dvc", "config", "--local", "core.no_scm", "true")
    assert stages_run_by(copy, *REPRO, "evaluate") == {"teacher_dump", "student_train", "evaluate"}
    store = open_store(mine / "maps.zarr")
    assert len(store.videos) == 3
    assert store.info()["teacher"]["weights_sha256"] == read_weights(mine / "hd2s.safetensors").sha256
    assert not (copy / "data").exists()

    others = {"sample_data", "teacher_train", "report"}
    assert stages_run_by(copy, *REPRO) == others, "who asks for all gets all, and none fitted"
    assert not (copy / "runs" / "teacher" / "history.csv").exists()
    clips = sorted((mine / "heldout" / "video").iterdir())
    clips[0].write_bytes(sorted((mine / "unlabelled").iterdir())[0].read_bytes())
    assert stages_run_by(copy, *REPRO) == {"evaluate", "report"}
