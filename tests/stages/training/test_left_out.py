"""What a training was given and does not learn from is said in a line each, counted in its result, and ends nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.moving_dot import SIZE, make_data, make_store
from tests.stages.training.test_training import RECIPE
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.settings.training import TeacherRecipe
from tinyhd_pipe.stages.student_train import student_train
from tinyhd_pipe.stages.teacher_train import teacher_train
from tinyhd_pipe.stages.training.fitting import Run
from tinyhd_pipe.stages.training.labelled import learnable
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store.errors import DataError

TEACHER = TeacherRecipe(size=SIZE, epochs=1, milestones=(), width=0.0625, validation_share=0.5, validation_clips=1)
STUDENT = replace(RECIPE, epochs=1, milestones=())


def damaged(root: Path) -> tuple[AnnotatedVideo, ...]:
    """Six labelled videos of 18 frames, four of which have something that nobody can learn from."""
    make_data(root, videos=6, frames=18, labelled=6)
    maps = root / "annotation"
    black = Image.fromarray(np.zeros(SIZE, np.uint8))
    black.save(maps / "0001/maps/0003.png")
    (maps / "0002/maps/0004.png").write_bytes(b"no picture")
    for number in (19, 20):
        Image.fromarray(np.full(SIZE, 9, np.uint8)).save(maps / f"0002/maps/{number:04d}.png")
    for path in (root / "video/003").iterdir():
        path.write_bytes(b"no picture")
    for path in (maps / "0004/maps").iterdir():
        black.save(path)
    return find_annotated_videos(root).videos


def test_only_frames_with_a_map_that_says_something_are_targets(tmp_path: Path) -> None:
    videos = damaged(tmp_path)
    found = learnable(videos)
    assert [video.source.id for video in found.videos] == ["001", "002", "005", "006"]
    missing = {v.source.id: np.flatnonzero(~v.usable).tolist() for v in found.videos if v.usable is not None}
    assert missing == {"001": [2], "002": [3], "005": [], "006": []}
    counts, problems = found.left_out[:3], found.left_out[3:]
    assert sorted(counts) == [
        "1 density maps that cannot be read, in 002",
        "19 density maps that are black, in 001, 004",
        "2 density maps of frames that are not there, in 002",
    ]
    assert "003: none of its pictures decodes" in problems[0]
    assert problems[1].endswith("004: no frame has a density map to learn from")
    assert all("\n" not in line for line in found.left_out)


def test_a_teacher_learns_from_the_rest_and_tells(tmp_path: Path) -> None:
    videos = damaged(tmp_path / "data")
    told: list[str] = []
    fitted = teacher_train(videos, TEACHER, Run(tmp_path / "run", left_out=told.append))
    assert tuple(told) == fitted.left_out == learnable(videos).left_out
    assert np.isfinite(fitted.history[0].loss["density"])


def test_of_good_videos_nothing_is_left_out_and_labels_are_all_learned(tmp_path: Path) -> None:
    videos = make_data(tmp_path, videos=2, frames=18)
    assert learnable(videos).left_out == ()
    for video in videos:
        usable = learnable([video]).videos[0].usable
        assert usable is not None
        assert usable.all()


def test_a_student_tells_which_videos_have_no_maps_which_labels_no_video_and_which_maps_are_broken(
    tmp_path: Path,
) -> None:
    annotated = make_data(tmp_path / "data", videos=5, frames=18, labelled=4)
    sources = find_videos([tmp_path / "data/video"])
    store = make_store(tmp_path / "maps.zarr", sources[:3], frames=18)
    for path in (tmp_path / "data/annotation/0001/maps").iterdir():
        path.write_bytes(b"no picture")
    told: list[str] = []
    recipe = replace(STUDENT, clips_per_video=2)
    without_4 = [source for source in sources if source.id != "004"]
    fitted = student_train(
        Targets.of([store]), without_4, annotated, recipe, Run(tmp_path / "run", left_out=told.append)
    )
    assert fitted.left_out == tuple(told)
    assert told[0] == f"1 video without maps in {tmp_path / 'maps.zarr'}: 005"
    assert told[1] == "1 labelled video not among those given: 004"
    assert "density maps that cannot be read: " in told[2]
    assert len(told) == 3


def test_what_nobody_can_learn_from_is_one_line(tmp_path: Path) -> None:
    videos = [video for video in damaged(tmp_path) if video.source.id in ("003", "004")]
    with pytest.raises(DataError, match="0 video to learn from: two are needed"):
        teacher_train(videos, TEACHER, Run(tmp_path / "run"))
    sources = [video.source for video in videos]
    with pytest.raises(DataError, match="none of 0 videos has a clip with all its targets"):
        student_train(None, sources, videos, replace(STUDENT, learn_from="labels"), Run(tmp_path / "run"))


def test_the_command_says_layout_split_and_what_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged(tmp_path / "data")
    make_data(tmp_path / "more", videos=1, frames=18)
    (tmp_path / "data/annotation/0007").mkdir()
    (tmp_path / "more/annotation/0001/maps").rename(tmp_path / "data/annotation/0007/maps")
    listed = tmp_path / "split.txt"
    listed.write_text("001\n005\n006\n")
    settings = ["teacher_train.epochs=1", "teacher_train.width=0.0625", "teacher_train.validation_clips=1"]
    data = f"teacher-train --data {tmp_path / 'data'} --split {listed} --out {tmp_path / 'run'} --device cpu --json"
    assert run([*data.split(), "--set", f"teacher_train.size=[{SIZE[0]},{SIZE[1]}]", *settings]) == 0
    said = capsys.readouterr()
    assert f"{tmp_path / 'data'}: 3 labelled videos, in the layout dhf1k" in said.err
    lines = ["1 annotation without a video: 0007", "1 density maps that are black, in 001"]
    assert json.loads(said.out)["left_out"] == lines
    for line in lines:
        assert f"left out: {line}" in said.err
    assert run(f"student-train --videos {tmp_path} --store x --out y --split val".split()) == 2
    assert "--layout, --split: are of labelled videos" in capsys.readouterr().err
