"""8 bits: judged on clips that were not calibrated on, refused where they cost too much, and the cost in the file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.lively_networks import lively
from tests.small_dumps import write_videos
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.export import Wanted, export
from tinyhd_pipe.stages.exports.backends import load_exported
from tinyhd_pipe.stages.exports.int8 import Int8, judged, split
from tinyhd_pipe.stages.networks.network import Network, load_student, ready
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.errors import SettingError, TinyHDError

SIZE = (32, 64)
CALIBRATED = ("0068.AVI", "car-detection.mp4", "elf.webm", "kinetics_pool_test.mp4")
JUDGED = ("dog_eating_854132.mp4", "rabbit320.mp4", "test1.mp4")


@pytest.mark.shared
@pytest.mark.slow
def test_a_published_student_loses_little_on_clips_that_were_not_calibrated_on(tmp_path: Path, shared: Path) -> None:
    natural = shared / "data/videos/natural"
    calibrate, judge = (find_videos([natural / name for name in names]) for names in (CALIBRATED, JUDGED))
    student = load_student(shared / "reference/weights/d123s_rc4_rc1T.pth")
    made = export(student, tmp_path, "s.int8", Wanted("openvino", int8=Int8(calibrate, judge)))
    assert made.loss is not None
    assert 1e-5 < made.loss.kl < 0.02
    assert made.loss.cc > 0.98
    assert made.loss.nss == pytest.approx(made.loss.nss_float32, rel=0.1)
    assert set(made.loss.judged_on) == set(JUDGED)
    assert made.operators["FakeQuantize"] > 100
    loaded = load_exported(tmp_path / "s.int8.xml")
    assert loaded.facts["precision"] == "int8"
    assert loaded.identity != student.identity, "maps of 8 bits are not mixed with others"
    assert made.facts["int8"]["kl"] == made.loss.kl


def _sources(tmp_path: Path, count: int) -> list[VideoSource]:
    return find_videos([write_videos(tmp_path / "videos", {f"{number}.mp4": 20 for number in range(count)})])


@pytest.mark.parametrize(("count", "held_out"), [(2, ["1.mp4"]), (3, ["2.mp4"]), (8, ["3.mp4", "7.mp4"])])
def test_every_fourth_clip_is_judged_on_and_none_that_was_calibrated_on(
    tmp_path: Path, count: int, held_out: list[str]
) -> None:
    sources = _sources(tmp_path, count)
    calibrated, judge = split(Int8(sources))
    assert [source.id for source in judge] == held_out
    assert sorted(source.id for source in [*calibrated, *judge]) == sorted(source.id for source in sources)
    calibrated, judge = split(Int8(sources, judge=sources[:1]))
    assert [source.id for source in judge] == ["0.mp4"]
    assert "0.mp4" not in [source.id for source in calibrated]


def test_a_clip_alone_cannot_be_both(tmp_path: Path) -> None:
    sources = _sources(tmp_path, 1)
    for wanted in (Int8(sources), Int8(sources, judge=sources)):
        with pytest.raises(SettingError, match="no video is left that is not judged on; give two or more"):
            split(wanted)


def _student() -> Network:
    return ready("tinyhd", lively(7, decoders=("d3",), reduction=4), size=SIZE)


def test_what_costs_more_than_allowed_is_refused_and_what_costs_nothing_says_so(tmp_path: Path) -> None:
    student, sources = _student(), _sources(tmp_path, 2)

    def exact(seen: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
        return {"final": student(torch.from_numpy(seen))["final"].numpy()}

    loss = judged(student, exact, Int8(sources), takes_frames=False)
    assert loss.kl == pytest.approx(0, abs=1e-9)
    assert loss.cc == pytest.approx(1)
    assert loss.nss == pytest.approx(loss.nss_float32)
    assert loss.nss > 0.5, "its own peaks lie high"

    def flat(seen: NDArray[Any]) -> Mapping[str, NDArray[np.float32]]:
        return {"final": exact(seen)["final"] * 0.2 + 0.5}

    with pytest.raises(TinyHDError, match=r"--int8: costs 0\.\d+ nats on 1\.mp4, expected 0\.0001 at most"):
        judged(student, flat, Int8(sources, max_loss=1e-4), takes_frames=False)


def test_mistakes_cost_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = lively(7, decoders=("d3",), reduction=4).state_dict()
    write_weights(tmp_path / "s.safetensors", state, {"kind": "tinyhd", "size": list(SIZE)})
    videos = write_videos(tmp_path / "videos", {"a.mp4": 20, "b.mp4": 20})
    command = f"export --weights {tmp_path}/s.safetensors --out {tmp_path}/out --format openvino"
    for options, line in (
        ("--int8", "--int8 and --calibrate: one says what is wanted, the other on which clips; give both"),
        (f"--calibrate {videos}/a.mp4", "give both"),
        (f"--int8 --calibrate {videos}/a.mp4", "no video is left that is not judged on"),
        (f"--int8 --calibrate {videos} --format onnx", "--int8: of a student with --format openvino only"),
    ):
        assert run([*command.split(), *options.split()]) == 2
        assert line in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()
