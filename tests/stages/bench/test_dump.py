"""The dump's benchmark: maps are compared before anything is timed, and maps that are not the same end it."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stages.test_teacher_dump import _clip, _teacher
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.bench import dump as bench_dump
from tinyhd_pipe.stages.bench.dump import Agreement
from tinyhd_pipe.stages.networks import inference
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import TinyHDError


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "a.mp4", _clip(30, 0))
    _teacher(folder)  # passes its own rounding on a hundredfold, as stand-ins do
    write_weights(folder / "calm.safetensors", HD2S(width=0.0625).state_dict(), {"kind": "hd2s", "size": [32, 64]})
    return folder


def _bench(place: Path, weights: str, *options: str) -> int:
    command = ["bench", "dump", "--weights", str(place / f"{weights}.safetensors"), "--videos", str(place / "videos")]
    return run([*command, "--frames", "20", "--rounds", "1", *options])


def test_both_ways_make_the_same_maps_and_are_timed_in_turn(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _bench(place, "calm", "--precision", "float32", "--json") == 0
    measured = json.loads(capsys.readouterr().out)
    assert [way["name"] for way in measured["ways"]] == [
        "published",
        "ours, float32, one window at a time",
        "ours, float32",
        "teacher alone, float32",
    ]
    assert [agreement["difference"] < 1e-5 for agreement in measured["agreements"]] == [True]
    assert measured["ways"][0]["ratio"] == 1
    assert measured["ways"][2]["ratio"] > 1, "one window for each frame and no more"
    assert measured["share"] > 0
    assert (measured["frames"], measured["size"]) == (20, [32, 64])
    assert {"processor", "threads", "torch"} <= measured["machine"].keys()


def test_a_window_in_the_wrong_order_ends_it_before_anything_is_timed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clips_of = inference.clips_of
    monkeypatch.setattr(
        "tinyhd_pipe.stages.networks.teacher_maps.clips_of", lambda several: clips_of([seen[::-1] for seen in several])
    )
    monkeypatch.setattr(bench_dump, "published_way", _never)
    assert _bench(place, "calm", "--precision", "float32") == 1
    assert "our float32 maps are not the published ones" in capsys.readouterr().err


def _never(*arguments: Any) -> float:
    raise AssertionError("timed although maps differ")


def test_stand_in_weights_are_timed_and_fitted_ones_judged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = place / "calm.safetensors"
    assert _bench(place, "teacher0", "--trained", str(trained), "--precision", "float32", "--json") == 0
    judged = [Path(agreement["weights"]).stem for agreement in json.loads(capsys.readouterr().out)["agreements"]]
    assert judged == ["calm", "teacher0"]


@pytest.mark.parametrize(
    ("found", "trained", "agrees"),
    [
        (Agreement("float32", "w", difference=9e-6, kl=0, cc=1), True, True),
        (Agreement("float32", "w", difference=2e-5, kl=0, cc=1), True, False),
        (Agreement("float32", "w", difference=1e-3, kl=1e-8, cc=1), False, True),
        (Agreement("float32", "w", difference=1e-3, kl=1e-5, cc=1), False, False),
        (Agreement("bfloat16", "w", difference=0.02, kl=4e-4, cc=0.9996), True, True),
        (Agreement("bfloat16", "w", difference=0.02, kl=6e-4, cc=0.9996), True, False),
        (Agreement("bfloat16", "w", difference=0.02, kl=4e-4, cc=0.9994), True, False),
        (Agreement("bfloat16", "w", difference=0.02, kl=float("nan"), cc=1), True, False),
    ],
)
def test_maps_agree_within_the_bounds_and_not_beyond(found: Agreement, trained: bool, agrees: bool) -> None:
    if agrees:
        bench_dump._refuse_other_maps(found, trained=trained)
    else:
        with pytest.raises(TinyHDError, match="nothing was timed"):
            bench_dump._refuse_other_maps(found, trained=trained)
