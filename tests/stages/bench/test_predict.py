"""The benchmark of predicting: maps are compared before anything is timed, and maps that are not the same end it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lively_networks import lively
from tests.small_dumps import clip
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.bench import predict as bench_predict
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.writing import write_video


@pytest.fixture(scope="module", params=[1, 16])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    state = lively(7, decoders=("d3",), reduction=4, outputs=request.param).state_dict()
    write_weights(folder / "it.safetensors", state, {"kind": "tinyhd", "size": [32, 64]})
    write_video(folder / "v.mp4", clip(40, 0))
    return folder


def _bench(place: Path, *options: str) -> int:
    command = f"bench predict --weights {place}/it.safetensors --video {place}/v.mp4 --backend torch --frames 33"
    return run([*command.split(), "--rounds", "1", *options])


def test_the_published_way_and_ours_stand_beside_their_floors(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _bench(place, "--json") == 0
    measured = json.loads(capsys.readouterr().out)["prediction"]
    assert [way["name"] for way in measured["ways"]] == [
        "published, end to end",
        "published, network alone",
        "torch, end to end",
        "torch, network alone",
        "decoding and scaling alone",
        "pictures alone",
    ]
    assert all(way["frames_a_second"] > 0 for way in measured["ways"])
    assert measured["ways"][0]["ratio"] == 1
    assert measured["differences"]["torch"] < 1e-3
    assert (measured["frames"], measured["size"]) == (33, [32, 64])


def test_maps_that_are_not_the_published_ones_end_it_before_anything_is_timed(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def another(*of: Any) -> Any:
        return ((frame, np.roll(saliency, 1)) for frame, saliency in made(*of))

    made = bench_predict.predicted_maps
    asked: list[Any] = []
    monkeypatch.setattr(
        bench_predict,
        "predicted_maps",
        lambda *of: (asked.append(of), (made if len(asked) == 1 else another)(*of))[1],
    )
    monkeypatch.setattr(bench_predict, "in_turn", None)
    assert _bench(place) == 1
    assert "torch: maps differ from the published ones by" in capsys.readouterr().err


def test_a_video_that_is_too_short_costs_a_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(place / "short.mp4", clip(16, 0))
    assert _bench(place, "--video", f"{place}/short.mp4") == 2
    assert "short.mp4: 16 frames of it decode, expected at least 17" in capsys.readouterr().err


def test_an_unknown_backend_costs_a_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _bench(place, "--backend", "tensorrt") == 2
    assert "--backend tensorrt: expected torch, onnx or openvino" in capsys.readouterr().err
