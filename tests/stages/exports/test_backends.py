"""Backends and exported files: the same maps as the network's own, whoever runs it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.lively_networks import lively
from tests.small_dumps import clip
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.export import Wanted, export
from tinyhd_pipe.stages.exports import backends
from tinyhd_pipe.stages.exports.backends import choose_backend, load_exported, with_backend
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.layers.kernels import Kernels
from tinyhd_pipe.stages.networks.network import Network, load_student, ready
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import SettingError, TinyHDError, WeightsError

SIZE = (32, 64)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a student with 16 outputs, and a video."""
    folder = tmp_path_factory.mktemp("place")
    _write_student(folder / "m.safetensors", seed=7)
    write_video(folder / "v.mp4", clip(21, 0))
    return folder


def _write_student(path: Path, seed: int) -> None:
    state = lively(seed, decoders=("d3",), reduction=4, outputs=16).state_dict()
    write_weights(path, state, {"kind": "tinyhd", "size": list(SIZE)})


def _maps(network: Network, place: Path) -> np.ndarray[Any, Any]:
    found = list(network.predict(place / "v.mp4"))
    assert [frame for frame, _ in found] == list(range(21))
    return np.stack([saliency for _, saliency in found])


@pytest.mark.slow
def test_each_backend_gives_the_maps_of_the_network_and_is_converted_once(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    student = load_student(place / "m.safetensors")
    expected = _maps(student, place)
    assert expected.std() > 0.01
    onnx = with_backend(student, "onnx")
    (kept,) = (tmp_path / "tinyhd-pipe").glob("*.onnx")
    monkeypatch.setattr(backends, "traced", None)  # nothing is traced again
    for network in (onnx, with_backend(student, "openvino"), with_backend(student, "torch")):
        np.testing.assert_allclose(_maps(network, place), expected, atol=1e-3)
        assert network.identity == student.identity, "a rerun by another backend goes on"
    _write_student(tmp_path / "other.safetensors", seed=8)
    with pytest.raises(TypeError, match="not callable"):  # other weights are another file
        with_backend(load_student(tmp_path / "other.safetensors"), "onnx")
    kept.write_bytes(b"damaged")
    with pytest.raises(WeightsError, match=r"\.onnx: not an ONNX file"):
        with_backend(student, "onnx")


def test_an_exported_file_predicts_as_the_weights_that_it_was_made_of(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    student = load_student(place / "m.safetensors")
    export(student, tmp_path, "m", Wanted("torch"))
    loaded = load_exported(tmp_path / "m.pt2")
    assert loaded.identity == student.identity
    np.testing.assert_allclose(_maps(loaded, place), _maps(student, place), atol=1e-3)
    command = f"predict {place}/v.mp4 --weights {tmp_path}/m.pt2 --out {tmp_path}/maps"
    assert run(command.split()) == 0
    assert len(list((tmp_path / "maps/v.mp4").iterdir())) == 21
    for option, line in (
        ("--backend onnx", "m.pt2 is run by torch; leave --backend out"),
        ("--device cuda", "m.pt2 runs on the CPU; leave --device out"),
        ("--weights gone.onnx", "gone.onnx: no such file"),
    ):
        assert run(f"{command} {option}".split()) in (1, 2)
        assert line in capsys.readouterr().err.splitlines()[-1]


def test_a_runtime_that_gives_other_maps_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = load_student(place / "m.safetensors")

    class Late:
        """Sees its frames the other way round."""

        def __init__(self, path: Path) -> None:
            self.facts: dict[str, Any] = {}

        def __call__(self, seen: np.ndarray[Any, Any]) -> dict[str, Any]:
            import torch

            return {"final": student(torch.from_numpy(seen).flip(2))["final"].numpy()}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(backends, "OnnxNetwork", Late)
    kept = backends._kept_at(student)
    kept.parent.mkdir(parents=True)
    kept.touch()
    with pytest.raises(TinyHDError, match="final: maps of the exported file differ"):
        with_backend(student, "onnx")


def test_a_file_that_scales_frames_itself_is_no_network_here(place: Path, tmp_path: Path) -> None:
    export(load_student(place / "m.safetensors"), tmp_path, "m", Wanted("torch", with_preprocessing=True))
    with pytest.raises(WeightsError, match=r"m\.pt2: expected a student without preprocessing in its file"):
        load_exported(tmp_path / "m.pt2")


def test_auto_is_a_rule(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = load_student(place / "m.safetensors")
    assert choose_backend("auto", student).backend == "torch"
    monkeypatch.setattr(backends, "kernels", lambda: Kernels(None, "there is no C compiler"))
    chosen = choose_backend("auto", student)
    assert (chosen.backend, chosen.reason) == (
        "openvino",
        "our fused kernels do not run here: there is no C compiler",
    )
    monkeypatch.setattr(backends, "find_spec", lambda package: None)
    assert choose_backend("auto", student).backend == "torch"
    teacher = ready("hd2s", HD2S(width=0.0625), size=SIZE)
    assert choose_backend("auto", teacher).backend == "torch"
    with pytest.raises(SettingError, match="runs students in float32 on the CPU, and this is hd2s"):
        choose_backend("onnx", teacher)
