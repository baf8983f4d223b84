"""An evaluation scores what can be scored, and says of the rest why it could not."""

import json
from pathlib import Path

import pytest

from tests.moving_dot import SIZE, make_data
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.evaluate import evaluate
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.store.errors import DataError


def _student(path: Path) -> Path:
    write_weights(path, TinyHD(reduction=4, outputs=16).state_dict(), {"kind": "tinyhd", "size": list(SIZE)})
    return path


def _break_pictures(folder: Path) -> None:
    for picture in folder.iterdir():
        picture.write_bytes(b"no picture")


def test_a_video_that_cannot_be_read_is_listed_and_the_others_are_scored_as_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = _student(tmp_path / "student.safetensors")
    make_data(tmp_path / "dots", videos=2)
    alone = make_data(tmp_path / "alone", videos=1)
    _break_pictures(tmp_path / "dots/video/002")

    evaluation = f"evaluate --weights {weights} --data {tmp_path / 'dots'} --out {tmp_path / 'out'} --json"
    assert run(evaluation.split()) == 1
    scored = json.loads(capsys.readouterr().out)
    assert list(scored["problems"]) == ["002"]
    assert "none of its pictures decodes" in scored["problems"]["002"]
    expected = evaluate(alone, {"student": load_student(weights)})
    assert scored["mean"]["student"]["KLD"] == pytest.approx(expected.mean["student"]["KLD"])
    assert {name: list(videos) for name, videos in scored["videos"].items()} == {
        name: ["001"] for name in scored["mean"]
    }
    assert (tmp_path / "out/comparison.png").exists()


def test_a_video_that_ends_early_is_scored_as_far_as_it_goes_and_listed(tmp_path: Path) -> None:
    annotated = make_data(tmp_path / "dots", videos=1)
    (tmp_path / "dots/video/001/0020.png").write_bytes(b"no picture")
    scored = evaluate(annotated, {"student": load_student(_student(tmp_path / "student.safetensors"))})
    assert scored.problems == {"001": "1 of 24 pictures are broken or of another size, 0020.png the first"}
    assert scored.frames == 24


def test_annotation_that_cannot_be_read_costs_its_video_and_no_other(tmp_path: Path) -> None:
    student = load_student(_student(tmp_path / "student.safetensors"))
    make_data(tmp_path / "dots", videos=2)
    (tmp_path / "dots/annotation/0001/maps/0003.png").write_bytes(b"no picture")
    scored = evaluate(find_annotated_videos(tmp_path / "dots").videos, {"student": student})
    assert list(scored.problems) == ["001"]
    assert list(scored.videos["student"]) == ["002"]
    _break_pictures(tmp_path / "dots/video/002")
    with pytest.raises(DataError, match=r"2 videos: .*0003\.png: cannot be read as a picture"):
        evaluate(find_annotated_videos(tmp_path / "dots").videos, {"student": student})
