"""The teacher in the loop: its maps are those of a dump, and a run with it goes on as any other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.small_dumps import clip
from tests.stages.test_teacher_dump import SIZE, _teacher
from tests.stages.training.test_resuming import RESULTS, _kill_at, _KilledError
from tests.stages.training.test_training import RECIPE
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.teacher_maps import teacher_maps
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.student_train import stored_videos, student_train
from tinyhd_pipe.stages.training.fitting import Run
from tinyhd_pipe.stages.training.live_targets import LiveTargets
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.stages.video.writing import write_video

LENGTHS = (24, 20, 5)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return _teacher(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    folder = tmp_path_factory.mktemp("videos")
    for number, frames in enumerate(LENGTHS):
        write_video(folder / f"{number}.mp4", clip(frames, number))
    (folder / "broken.mp4").write_text("no video")
    return find_videos([folder])


def _with_gaps(folder: Path, gaps: tuple[int, ...]) -> VideoSource:
    folder.mkdir()
    for number, picture in enumerate(clip(24, seed=9)):
        file = folder / f"{number:04}.png"
        if number in gaps:
            file.write_bytes(b"no picture")
        else:
            Image.fromarray(picture).save(file)
    (source,) = find_videos([folder])
    return source


def _apart(teacher: Network, source: VideoSource, wanted: list[int]) -> float:
    """Largest difference between live maps and those of the stream that a dump makes."""
    pieces = list(teacher_maps(teacher, decode(source)))
    live = LiveTargets.of(teacher, [source]).read(source.id, np.array(wanted), size=SIZE)
    apart = []
    for level, maps in live.items():
        streamed = torch.cat([logits[level] for _, logits in pieces])[wanted]
        grown = torch.nn.functional.interpolate(streamed[:, None], size=SIZE, mode="bilinear")[:, 0].sigmoid()
        apart.append(float((torch.from_numpy(maps) - grown).abs().max()))
    assert len(apart) == 5
    return max(apart)


@pytest.mark.parametrize("gaps", [(), (10,), (0, 1, 17, 18, 23)])
def test_live_maps_are_those_of_a_dump_where_frames_do_not_decode_too(
    teacher: Network, tmp_path: Path, gaps: tuple[int, ...]
) -> None:
    source = _with_gaps(tmp_path / "frames", gaps)
    assert _apart(teacher, source, [3, 16, 20, 22]) < 1e-5
    row = LiveTargets.of(teacher, [source]).video(source.id)
    assert (row.frames, row.failed) == (24, gaps)
    assert bool(row.problem) == bool(gaps)


def test_a_gap_that_showed_another_neighbour_would_be_noticed(
    teacher: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _with_gaps(tmp_path / "frames", (10,))
    monkeypatch.setattr(
        "tinyhd_pipe.stages.training.live_targets._shown",
        lambda row: np.where(np.arange(row.frames) == 10, 11, np.arange(row.frames)),
    )
    assert _apart(teacher, source, [16]) > 1e-3


def test_without_a_store_every_frame_is_a_target_and_what_does_not_decode_is_left_out(
    teacher: Network, videos: list[VideoSource]
) -> None:
    live = LiveTargets.of(teacher, videos)
    learned = stored_videos(live, videos, [])
    assert [video.frames for video in learned] == list(LENGTHS)
    assert list(live.problems) == ["broken.mp4"]
    assert live.every == 1


def test_a_student_of_the_live_teacher_resumes_with_the_same_bytes_and_says_whose_it_is(
    teacher: Network, videos: list[VideoSource], tmp_path: Path
) -> None:
    def train(out: str, **run: Any) -> None:
        targets = LiveTargets.of(teacher, videos)
        student_train(targets, videos, [], RECIPE, Run(tmp_path / out, checkpoint_minutes=0, **run))

    train("whole")
    with pytest.raises(_KilledError):
        train("killed", step_done=_kill_at(3))
    train("killed", resume=True)
    for name in RESULTS:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    facts = read_weights(tmp_path / "whole/best.safetensors").facts
    assert facts["online"] is True
    assert facts["teacher"] == teacher.identity
