"""An evaluation scores what can be scored, and says of the rest why it could not."""

import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from torch import nn

from tests.moving_dot import SIZE, dot, make_data
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.evaluate import evaluate
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.label_files import read_fixation_file
from tinyhd_pipe.stages.gaze.truth import Gaze
from tinyhd_pipe.stages.networks import prediction
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import as_published, load_student, ready
from tinyhd_pipe.stages.networks.prediction import fastest, predict, predict_still
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.predictions.contender import Contender, centre_prior, of_network, with_baselines
from tinyhd_pipe.stages.settings.evaluate import Baselines, EvaluateOptions
from tinyhd_pipe.stages.video.clips import student_window, teacher_window
from tinyhd_pipe.stages.video.decoding import Decoding
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError

BASELINES: tuple[Baselines, ...] = get_args(Baselines)


def _student(path: Path, outputs: int = 16) -> Path:
    write_weights(path, TinyHD(reduction=4, outputs=outputs).state_dict(), {"kind": "tinyhd", "size": list(SIZE)})
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
    expected = evaluate(alone, [of_network("student", load_student(weights))])
    assert scored["mean"]["student"]["KLD"] == pytest.approx(expected.mean["student"]["KLD"])
    assert {name: list(videos) for name, videos in scored["videos"].items()} == {
        name: ["001"] for name in scored["mean"]
    }
    assert (tmp_path / "out/comparison.png").exists()
    assert (tmp_path / "out/comparison.webp").exists()


def test_a_video_that_ends_early_is_scored_as_far_as_it_goes_and_listed(tmp_path: Path) -> None:
    annotated = make_data(tmp_path / "dots", videos=1)
    (tmp_path / "dots/video/001/0020.png").write_bytes(b"no picture")
    student = load_student(_student(tmp_path / "student.safetensors"))
    scored = evaluate(annotated, [of_network("student", student)])
    assert scored.problems == {"001": "1 of 24 pictures are broken or of another size, 0020.png the first"}
    assert scored.frames == 24


def test_broken_and_empty_maps_cost_their_frames_and_are_counted(tmp_path: Path) -> None:
    make_data(tmp_path / "dots", videos=2)
    maps = tmp_path / "dots/annotation/0001/maps"
    (maps / "0003.png").write_bytes(b"no picture")
    (maps / "0005.png").write_bytes(b"no picture")
    Image.new("L", SIZE[::-1]).save(maps / "0007.png")
    scored = evaluate(find_annotated_videos(tmp_path / "dots").videos, [centre_prior()])
    assert scored.problems == {}
    assert scored.frames == 24 + 21
    broken, empty = map(str, scored.left_out)
    assert re.fullmatch(
        r"001: 2 of 24 annotated frames are left out: .*0003\.png: cannot be read as a picture.*", broken
    )
    assert empty == "001: 1 of 24 annotated frames are left out: their density map is zero everywhere"


def test_where_no_frame_can_be_compared_the_first_reason_is_told(tmp_path: Path) -> None:
    make_data(tmp_path / "dots", videos=1)
    _break_pictures(tmp_path / "dots/annotation/0001/maps")
    with pytest.raises(DataError, match=r"1 videos: 001: 24 of 24 annotated frames are left out: .*0001\.png: cannot"):
        evaluate(find_annotated_videos(tmp_path / "dots").videos, [centre_prior()])


@pytest.mark.shared
def test_maps_without_a_frame_are_in_no_row_and_counted(shared: Path) -> None:
    data = shared / "data/cases/more_maps_than_frames"
    scored = evaluate(find_annotated_videos(data).videos, [centre_prior()])
    assert scored.frames == 20
    assert [str(left_out) for left_out in scored.left_out] == [
        "001.mp4: 25 of 45 annotated frames are left out: the video has 20 frames, and none of that number"
    ]


@pytest.mark.shared
def test_fixations_of_another_size_are_moved_as_points(shared: Path) -> None:
    (video,) = find_annotated_videos(shared / "data/cases/fixations_of_another_size").videos
    gaze = Gaze.of([video], seed=0)
    (left_out,) = gaze.comparable(video, np.arange(20)).left_out
    assert (
        str(left_out)
        == "001.mp4: 20 of 20 annotated frames have fixations of 192x256, moved to the 96x128 of their density map"
    )
    large = read_fixation_file(video.folder / video.fixations[3])
    small = gaze.fixations("001.mp4", 3, (96, 128))
    assert small is not None
    assert large.shape == (192, 256)
    assert np.array_equal(np.argwhere(small), np.unique(np.argwhere(large) // 2, axis=0))


def test_a_frame_without_a_map_is_left_out_of_every_row(tmp_path: Path) -> None:
    annotated = make_data(tmp_path / "dots", videos=1)
    few = Contender("few", {}, lambda source, frames: ((frame, dot(frame)) for frame in sorted(frames)[:-5]))
    scored = evaluate(annotated, [few, centre_prior()], EvaluateOptions(every=2))
    assert scored.frames == 7
    assert [str(left_out) for left_out in scored.left_out] == [
        "001: 5 of 12 annotated frames are left out: few has no map of them"
    ]
    first = evaluate(annotated, [centre_prior()], EvaluateOptions(every=2, first=14))
    assert first.frames == 5


def test_a_map_is_scored_against_the_frame_of_its_number(tmp_path: Path) -> None:
    annotated = make_data(tmp_path / "dots", videos=1)

    def shown(lag: int) -> Contender:
        return Contender(
            str(lag), {}, lambda source, frames: ((f, dot(max(0, f - lag), row=12)) for f in sorted(frames))
        )

    scored = evaluate(annotated, [shown(lag) for lag in (-1, 0, 1)])
    assert scored.mean["0"]["CC"] > 0.999
    assert max(scored.mean["-1"]["CC"], scored.mean["1"]["CC"]) < 0.9


def test_networks_run_side_by_side_answer_as_one_window_at_a_time(tmp_path: Path) -> None:
    (video,) = make_data(tmp_path / "dots", videos=1, labelled=1)
    for outputs in (1, 16):
        weights = _student(tmp_path / f"{outputs}.safetensors", outputs=outputs)
        network = load_student(weights)
        answers = dict(predict(network, video.source, (0, 7, 20, 23, 99)))
        assert list(answers) == [0, 7, 20, 23]
        # 16 outputs: the head repeats frame 0, as published, so that windows end at 0, 16 and, with the video, 23.
        ends = (0, 7, 20, 23) if outputs == 1 else (0, 16, 23, 23)
        for (frame, ours), end in zip(answers.items(), ends, strict=True):
            clip = network.preprocess(read_frames(video.source, student_window(end)))
            expected = network(clip)["final"][0].numpy()
            expected = expected if outputs == 1 else expected[frame - end - 1]
            assert np.abs(ours - expected).max() < 1e-6


def test_a_network_made_fastest_answers_alike_and_one_in_the_published_layout_is_left_as_it_is(tmp_path: Path) -> None:
    (video,) = make_data(tmp_path / "dots", videos=1, labelled=1)
    network = load_student(_student(tmp_path / "student.safetensors", outputs=16))
    fast = fastest(network)
    assert fast.identity == network.identity
    assert not any(isinstance(layer, nn.BatchNorm3d) for layer in fast.module.modules())
    for (frame, quick), (same, plain) in zip(predict(fast, video.source), predict(network, video.source), strict=True):
        assert frame == same
        assert np.abs(quick - plain).max() < 1e-3 * plain.std()
    published = as_published(network)
    assert fastest(published) is published


def test_nothing_is_decoded_behind_the_last_frame_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (video,) = make_data(tmp_path / "dots", videos=1, labelled=1)
    network = load_student(_student(tmp_path / "student.safetensors", outputs=1))
    seen: list[Decoding] = []

    def noted(source: VideoSource) -> Decoding:
        seen.append(Decoding(source))
        return seen[-1]

    monkeypatch.setattr(prediction, "decode", noted)
    for make in (predict, predict_still):
        assert [frame for frame, _ in make(network, video.source, (1, 3))] == [1, 3]
    assert [decoding.frames for decoding in seen] == [5, 5], "up to the first frame that is past the last one"


def test_a_teacher_sees_the_head_reversed_and_still_frames_are_one_frame_sixteen_times(tmp_path: Path) -> None:
    (video,) = make_data(tmp_path / "dots", videos=1, labelled=1)
    network = ready("hd2s", HD2S(width=0.0625, seed=1), size=SIZE)
    moving, still = (dict(make(network, video.source, (2, 3, 20))) for make in (predict, predict_still))
    for frame in (2, 3, 20):
        window = read_frames(video.source, teacher_window(frame, 24))
        assert np.abs(moving[frame] - network(network.preprocess(window))["final"][0].numpy()).max() < 1e-5
        standing = network(network.preprocess(np.repeat(window[-1:], 16, axis=0)))["final"][0].numpy()
        assert np.abs(still[frame] - standing).max() < 1e-5


def test_still_frames_are_a_row_where_they_are_asked_for(tmp_path: Path) -> None:
    network = load_student(_student(tmp_path / "student.safetensors"))
    names = {which: [c.name for c in with_baselines({"student": network}, (), which)] for which in BASELINES}
    assert names == {
        "none": ["student"],
        "centre": ["student", "centre prior"],
        "still": ["student", "student, still frames", "centre prior"],
    }
