"""Exported files: every runtime gives the network's maps, and whoever has the file alone predicts as we do."""

import json
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from tests.lively_networks import lively
from tests.warm_command import ROOT
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.export import Wanted, export
from tinyhd_pipe.stages.exports import check
from tinyhd_pipe.stages.exports.check import checked, windows_of
from tinyhd_pipe.stages.exports.facts import facts_of
from tinyhd_pipe.stages.exports.graph import Graph, traced
from tinyhd_pipe.stages.exports.onnx_files import OnnxNetwork, onnx_model, write_onnx
from tinyhd_pipe.stages.exports.openvino_files import OpenVinoNetwork, openvino_model, write_openvino
from tinyhd_pipe.stages.exports.torch_files import TorchNetwork, write_torch
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.levels import CONSPICUITY
from tinyhd_pipe.stages.networks.network import Network, load_student, ready
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store.errors import SettingError, TinyHDError, WeightsError

SIZE = (32, 64)
ALL = ("final", *CONSPICUITY, "d2", "d3")
Runs = Callable[[NDArray[Any]], Mapping[str, NDArray[np.float32]]]


def _small(**settings: Any) -> Network:
    return ready("tinyhd", lively(7, **{"decoders": ("d3",), "reduction": 4, **settings}), size=SIZE)


def _predicted_by_facts(run: Runs, facts: dict[str, Any], pictures: list[NDArray[np.uint8]]) -> dict[int, Any]:
    """Final maps of a video, by what the file says of itself and nothing else: absolute frame -> map."""
    taken, window = facts["input"], facts["window"]
    assert window["head"] == "repeat"
    maps: dict[int, Any] = {}
    for end in range(window["first_ends_at"], len(pictures), window["stride"]):
        places = [max(0, end - window["frames"] + 1 + place) for place in range(window["frames"])]
        seen = np.stack([pictures[place] for place in places])[None]
        if taken["axes"] != "B T Y X C":
            assert taken["axes"] == "B C T Y X"
            pixels = torch.from_numpy(seen[0]).permute(0, 3, 1, 2).float()
            pixels = F.interpolate(pixels, size=taken["shape"][-2:], mode="bilinear", align_corners=False)
            scaled = (pixels - torch.tensor(taken["mean"]).view(3, 1, 1)) / torch.tensor(taken["std"]).view(3, 1, 1)
            seen = scaled.transpose(0, 1)[None].contiguous().numpy()
        (final,) = (output for output in facts["outputs"] if output["name"] == "final")
        answered = run(seen)["final"][0].reshape(len(final["frames"]), *facts["size"])
        for place, saliency in zip(final["frames"], answered, strict=True):
            maps[end - window["frames"] + 1 + place] = saliency  # frames before the start are nobody's
    return maps


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize(("weights", "all_maps"), [("d123s_rc4_rc1T.pth", False), ("d123m_rc4_rc1T.pth", True)])
def test_the_published_students_give_their_maps_in_every_format(
    tmp_path: Path, shared: Path, weights: str, all_maps: bool
) -> None:
    """S takes scaled clips and gives its final map; M takes frames as decoded and gives all of its maps."""
    network = load_student(shared / "reference/weights" / weights)
    graph = Graph(network, ALL if all_maps else ["final"], takes_frames=all_maps)
    program = traced(graph)
    model = onnx_model(graph, program)
    facts = facts_of(network, graph, graph(graph.example()), versions={})
    write_onnx(model, facts, tmp_path / "n.onnx")
    write_openvino(openvino_model(model), facts, tmp_path / "n.xml")
    write_torch(program, facts, tmp_path / "n.pt2")
    assert {path.suffix for path in tmp_path.iterdir()} == {".onnx", ".xml", ".bin", ".pt2"}, "and no other file"
    loaded = [OnnxNetwork(tmp_path / "n.onnx"), OpenVinoNetwork(tmp_path / "n.xml"), TorchNetwork(tmp_path / "n.pt2")]
    natural = shared / "data/videos/natural"
    windows = [(name, some[1:3]) for name, some in windows_of(find_videos([natural / "0068.AVI"]))]
    for runtime in loaded:
        assert runtime.facts == facts
        found = checked(network, runtime, windows, takes_frames=all_maps)
        assert set(found.differences) == set(graph.levels)
        assert found.largest < 5e-5
    pictures = list(islice(decode(*find_videos([natural / "rabbit320.mp4"])), 17))
    by_facts = _predicted_by_facts(loaded[0], loaded[0].facts, [p for p in pictures if p is not None])
    for frame, saliency in islice(network.predict(natural / "rabbit320.mp4"), 17):
        np.testing.assert_allclose(by_facts[frame], saliency, atol=1e-4)
    for path in tmp_path.iterdir():
        assert str(ROOT).encode() not in path.read_bytes(), "no folder of whoever exported it"


@pytest.mark.parametrize(
    "topology",
    [
        {"decoders": ("d3", "d3"), "reduction": 2},
        {"decoders": ("d2", "d1"), "outputs": 16, "d1_outputs": 16, "fusion_order": ("d1", "d2")},
    ],
)
def test_students_of_any_topology_are_exported_with_all_their_maps(tmp_path: Path, topology: dict[str, Any]) -> None:
    network = _small(**topology)
    made = export(network, tmp_path, "it", Wanted("torch", all_maps=True))
    assert made.files == (tmp_path / "it.pt2",)
    assert [path.name for path in tmp_path.iterdir()] == ["it.pt2"]
    assert made.difference < 1e-4
    with torch.inference_mode():
        answered = network(network.preprocess(np.zeros((16, *SIZE, 3), np.uint8)))
    assert {output["name"]: len(output["axes"].split()) for output in made.facts["outputs"]} == {
        level: maps.ndim for level, maps in answered.items()
    }
    assert made.facts["topology"]["decoders"] == list(topology["decoders"])
    assert TorchNetwork(tmp_path / "it.pt2").facts == made.facts


def test_hd2s_is_exported_too_and_says_how_its_head_is_made(tmp_path: Path) -> None:
    made = export(ready("hd2s", HD2S(width=0.0625), size=SIZE), tmp_path, "teacher", Wanted("torch", all_maps=True))
    assert made.facts["window"]["head"] == "reverse"
    assert made.facts["window"]["answers"] == [15]
    assert sorted(made.differences) == sorted(["final", *CONSPICUITY])


def test_a_file_that_gives_other_maps_is_refused_and_nothing_of_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = TorchNetwork.__call__
    monkeypatch.setattr(TorchNetwork, "__call__", lambda it, seen: answer(it, seen[:, :, ::-1].copy()))
    with pytest.raises(TinyHDError, match=r"final: maps of the exported file differ .* expected 0.001 at most"):
        export(_small(), tmp_path, "late", Wanted("torch"))
    assert list(tmp_path.iterdir()) == []


def test_a_map_that_is_not_a_number_is_refused() -> None:
    network = _small()

    def broken(seen: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return {"final": np.full((len(seen), *SIZE), np.nan, np.float32)}

    with pytest.raises(TinyHDError, match="differ from the network's by nan"):
        checked(network, broken, windows_of([]), takes_frames=False)


def test_a_batch_that_was_traced_as_a_constant_is_found() -> None:
    network, asked = _small(), []

    def note(seen: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        asked.append(len(seen))
        return {"final": network(torch.from_numpy(seen))["final"].numpy()}

    assert checked(network, note, windows_of([]), takes_frames=False).largest == 0
    assert asked == [1, 2]


def test_the_command_says_what_the_file_takes_and_gives_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    network = lively(7, decoders=("d3",), reduction=4)
    write_weights(tmp_path / "best.safetensors", network.state_dict(), {"kind": "tinyhd", "size": list(SIZE)})
    command = f"export --weights {tmp_path}/best.safetensors --format torch --out {tmp_path}/out --json".split()
    assert run([*command, "--with-preprocessing"]) == 0
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["files"] == [f"{tmp_path}/out/best.pt2"]
    assert "takes frames: uint8 (B, 16, Y, X, 3), axes B T Y X C, RGB" in said.err
    assert result["operators"]["aten.conv3d.default"] > 50
    before = (tmp_path / "out/best.pt2").read_bytes()
    for words, code, line in (
        ([], 2, "best.pt2: is there already; give another --out, or --overwrite"),
        (["--format", "onnx"], 2, "--format onnx: the package onnx is missing; pip install 'tinyhd-pipe[export]'"),
        (["--weights", f"{tmp_path}/out/best.pt2"], 1, "best.pt2"),
        (["--videos", f"{tmp_path}/none.mp4", "--overwrite"], 1, "none.mp4: no such file or folder"),
        (["--out", f"{tmp_path}/best.safetensors"], 2, "best.safetensors: is a file; expected a folder"),
    ):
        monkeypatch.setitem(sys.modules, "onnx", None)
        assert run([*command, *words]) == code
        assert line in capsys.readouterr().err.splitlines()[-1]
    assert (tmp_path / "out/best.pt2").read_bytes() == before


def test_a_file_that_is_not_an_export_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    (tmp_path / "text.xml").write_text("not a network")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "weights.pt2")
    again, other = (
        "export it again",
        r"not a file of torch.export \(a checkpoint, .*\); write it with torch.export.save",
    )
    for load, name, said in (
        (OnnxNetwork, "text.onnx", again),
        (OpenVinoNetwork, "text.xml", again),
        (TorchNetwork, "weights.pt2", other),
    ):
        with pytest.raises(WeightsError, match=f"{name}: .*{said}"):
            load(tmp_path / name)


def test_only_float32_is_exported() -> None:
    with pytest.raises(SettingError, match="a network in bfloat16 on cpu: export needs float32"):
        export(ready("tinyhd", lively(7, decoders=("d3",), reduction=4), size=SIZE, precision="bfloat16"), Path(), "x")


def test_windows_stand_for_the_whole_video(shared_video: Path) -> None:
    ((name, windows),) = windows_of(find_videos([shared_video]))
    assert name == shared_video.name
    assert len(windows) == check.WINDOWS
    pictures = list(decode(*find_videos([shared_video])))
    np.testing.assert_array_equal(windows[-1, -1], pictures[-1])


@pytest.fixture
def shared_video(tmp_path: Path) -> Path:
    from tests.small_dumps import clip
    from tinyhd_pipe.stages.video.writing import write_video

    write_video(tmp_path / "v.mp4", clip(40, 0))
    return tmp_path / "v.mp4"
