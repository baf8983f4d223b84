"""`student-train --online`: the teacher in the loop, by itself or beside the store of its maps."""

from pathlib import Path

import pytest

from tests.small_dumps import OPTIONS, write_videos
from tests.stages.dump.test_store_check import _shifted
from tests.stages.test_teacher_dump import _teacher
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.teacher_dump import teacher_dump
from tinyhd_pipe.stages.video.sources import find_videos

SETTINGS = ["size=[32,64]", "epochs=1", "reduction=4", "validation_clips=1", "decoders=[d1,d2]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, a teacher, the store of its maps, and one in which they are a frame late."""
    root = tmp_path_factory.mktemp("online")
    teacher, sources = _teacher(root), find_videos([write_videos(root / "videos", {"a.mp4": 20, "b.mp4": 18})])
    teacher_dump(sources, str(root / "maps.zarr"), teacher, OPTIONS)
    _shifted(str(root / "maps.zarr"), str(root / "late.zarr"), 1)
    return root


def _train(place: Path, out: str, *more: object) -> int:
    where = ["--videos", place / "videos", "--out", place / out, "--teacher-weights", place / "teacher0.safetensors"]
    sets = [f"student_train.{setting}" for setting in SETTINGS]
    return run(["student-train", "--online", *map(str, [*where, *more]), "--set", *sets, "teacher_dump.batch=4"])


def test_without_a_store_the_teacher_makes_every_map(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _train(place, "alone") == 0
    said = capsys.readouterr().err
    assert "online: hd2s at 32x64 in float32 makes its maps anew for every sample" in said
    assert "decoding videos: " in said
    facts = read_weights(place / "alone/best.safetensors").facts
    assert facts["online"] is True
    assert facts["teacher"]["kind"] == "hd2s"


def test_beside_its_store_both_ways_are_compared_before_the_first_step(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(place, "both", "--store", place / "maps.zarr") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "both ways agree within what storing explains; cosine of their gradients 0.99" in said
    assert "conspicuity_2" in said


def test_a_store_that_is_a_frame_late_is_refused_before_anything_is_trained(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(place, "late", "--store", place / "late.zarr") == 1
    said = capsys.readouterr().err.splitlines()
    assert "its maps are not what this teacher makes now of these videos; dump them again" in said[-1]
    assert not (place / "late/last.safetensors").exists()
