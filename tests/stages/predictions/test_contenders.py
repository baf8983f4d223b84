"""Whatever has maps is scored alike: stores, folders of pictures and videos meet the frames of their own numbers."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.moving_dot import SIZE, dot, make_data, make_store
from tinyhd_pipe.stages.evaluate import evaluate
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.predictions.contender import Contender, centre_prior, with_baselines
from tinyhd_pipe.stages.predictions.pictures import of_pictures
from tinyhd_pipe.stages.predictions.stores import of_store
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import DataError, SettingError


@pytest.fixture
def dots(tmp_path: Path) -> tuple[AnnotatedVideo, ...]:
    return make_data(tmp_path / "dots", videos=2)


def _picture(frame: int, row: int) -> Image.Image:
    return Image.fromarray((255 * dot(frame, row=row)).astype(np.uint8))


def test_a_store_answers_for_the_frames_that_were_dumped(tmp_path: Path, dots: tuple[AnnotatedVideo, ...]) -> None:
    there = make_store(tmp_path / "maps.zarr", [video.source for video in dots])
    late = make_store(tmp_path / "late.zarr", [video.source for video in dots], slip=1)
    scored = evaluate(dots, [of_store("there", there.url), of_store("late", late.url)])
    assert scored.frames == 48
    # A logit of 8 at its peak is no Gaussian any more, but it is where the dot is.
    assert scored.mean["there"]["CC"] > scored.mean["late"]["CC"] + 0.02
    few = make_store(tmp_path / "few.zarr", [dots[0].source], frames=20)
    assert [frame for frame, _ in of_store("few", few.url).maps(dots[0], range(24))] == list(range(20))
    assert list(of_store("few", few.url).maps(dots[1], range(24))) == []


@pytest.mark.parametrize("name", ["001", "0001", "1", "video 1 is left out"])
def test_pictures_meet_truth_by_the_number_of_video_and_frame(
    tmp_path: Path, dots: tuple[AnnotatedVideo, ...], name: str
) -> None:
    for number, folder in ((1, name), (2, "002")):
        (tmp_path / "maps" / folder).mkdir(parents=True)
        for frame in (3, 10, 11):
            _picture(frame, row=8 + 4 * number).save(tmp_path / "maps" / folder / f"pred_{frame + 1:04d}.png")
    contender = of_pictures("theirs", tmp_path / "maps")
    scored = evaluate(dots, [contender, centre_prior()])
    assert scored.mean["theirs"]["CC"] > 0.9999
    assert scored.frames == (6 if name.isdecimal() else 3)
    reasons = {str(left_out).split(": ", 1)[0]: left_out.count for left_out in scored.left_out}
    assert reasons == {"001": 21 if name.isdecimal() else 24, "002": 21}


def test_a_predicted_video_is_read_frame_by_frame(tmp_path: Path, dots: tuple[AnnotatedVideo, ...]) -> None:
    pictures = [np.repeat((255 * dot(frame, row=12)).astype(np.uint8)[..., None], 3, axis=2) for frame in range(24)]
    (tmp_path / "maps").mkdir()
    write_video(tmp_path / "maps/001.avi", pictures)
    for path in (tmp_path / "maps", tmp_path / "maps/001.avi"):
        scored = evaluate(dots[:1], [of_pictures("theirs", path)])
        assert scored.frames == 24
        assert scored.mean["theirs"]["CC"] > 0.95


def test_maps_that_cannot_be_told_apart_or_are_not_there_are_one_line(
    tmp_path: Path, dots: tuple[AnnotatedVideo, ...]
) -> None:
    for folder in ("01", "0000001"):
        (tmp_path / "maps" / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=r"001: predicted by .*0000001 and .*01; keep one of them"):
        list(of_pictures("theirs", tmp_path / "maps").maps(dots[0], (0,)))
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "gone"):
        with pytest.raises(SettingError, match=r"expected .*DIR/001/0001\.png"):
            of_pictures("theirs", path)
    with pytest.raises(SettingError, match="centre prior: 2 rows would have this name"):
        with_baselines({}, [Contender("centre prior", {}, lambda video, frames: iter(()))], "centre")


def test_maps_that_were_made_anew_are_others(tmp_path: Path) -> None:
    folder = tmp_path / "maps/001"
    folder.mkdir(parents=True)
    Image.new("L", SIZE[::-1]).save(folder / "0001.png")
    before = of_pictures("theirs", tmp_path / "maps").identity
    assert of_pictures("ours", tmp_path / "maps").identity == before
    os.utime(folder / "0001.png", ns=(1, 1))
    assert of_pictures("theirs", tmp_path / "maps").identity != before
