"""Files of strangers: what would run code, leave its folder or fill the memory is refused in a line, before it does."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from tests.exported_networks import SIZE, Told, mean_onnx, write_onnx, write_pt2
from tinyhd_pipe.stages.exports.graph_files import OnnxGraph, TorchGraph
from tinyhd_pipe.stages.exports.onnx_guard import look_at
from tinyhd_pipe.stages.exports.torch_files import TorchNetwork
from tinyhd_pipe.stages.exports.torch_guard import safe_archive
from tinyhd_pipe.store.errors import WeightsError


class Touches:
    """Unpickled, it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    layer = torch.nn.Conv2d(3, 1, 3, padding=1)

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer
            self.register_buffer("gain", torch.full((1,), 2.0))

        def forward(self, clip: torch.Tensor) -> torch.Tensor:
            return (self.layer(clip[:, :, -1])[:, 0] * self.get_buffer("gain")).sigmoid()

    return write_pt2(tmp_path_factory.mktemp("good") / "good.pt2", Net(), (3, 4, *SIZE))


def _changed(good: Path, path: Path, change: Callable[[dict[str, bytes]], None]) -> Path:
    """The same archive with some of its parts changed; names are without the root."""
    with zipfile.ZipFile(good) as archive:
        root = archive.namelist()[0].split("/")[0]
        parts = {name.removeprefix(f"{root}/"): archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in parts.items():
            archive.writestr(name if name.startswith(("/", "..")) else f"{root}/{name}", content)
    return path


def _in_model(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(parts: dict[str, bytes]) -> None:
        model = json.loads(parts["models/model.json"])
        change(model)
        parts["models/model.json"] = json.dumps(model).encode()

    return apply


def _graph(model: Any) -> Any:
    return model["graph_module"]["graph"]


def test_a_good_file_gives_what_torch_gives_and_its_example_inputs_are_never_read(good: Path, tmp_path: Path) -> None:
    given = torch.rand(3, 3, 4, *SIZE)
    expected = torch.export.load(good).module()(given)
    torch.testing.assert_close(TorchGraph(good).run({"clip": given})["0"], expected)
    mark = tmp_path / "ran"

    def change(parts: dict[str, bytes]) -> None:
        assert parts["data/sample_inputs/model.pt"], "torch.export.save leaves them there"
        parts["data/sample_inputs/model.pt"] = pickle.dumps(Touches(mark))

    path = _changed(good, tmp_path / "hostile.pt2", change)
    torch.testing.assert_close(TorchGraph(path).run({"clip": given})["0"], expected)
    assert not mark.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011
        torch.export.load(path)
    assert mark.exists(), "torch's own loader runs it"


def _pickled_weight(parts: dict[str, bytes]) -> None:
    config = json.loads(parts["data/weights/model_weights_config.json"])
    next(iter(config["config"].values()))["use_pickle"] = True
    parts["data/weights/model_weights_config.json"] = json.dumps(config).encode()


def _no_bytes(parts: dict[str, bytes]) -> None:
    parts["data/weights/weight_0"] = b""


def _opaque(parts: dict[str, bytes]) -> None:
    config = {
        "config": {"it": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": False, "tensor_meta": None}}
    }
    parts["data/constants/model_constants_config.json"] = json.dumps(config).encode()
    parts["data/constants/opaque_obj_0"] = pickle.dumps(1)


def _expression(model: Any) -> None:
    sizes = _graph(model)["tensor_values"]["clip"]["sizes"]
    sizes[0] = {"as_expr": {"expr_str": "__import__('os').system('true')", "hint": {"as_int": 2}}}


def _parameter(model: Any) -> Any:
    specs = model["graph_module"]["signature"]["input_specs"]
    return next(spec["parameter"] for spec in specs if "parameter" in spec)


def _huge(model: Any) -> None:
    _graph(model)["tensor_values"]["clip"]["sizes"][1] = {"as_int": 10**12}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_pickled_weight, "a pickle, the weight"),
        (_opaque, "a pickle, the constant it"),
        (_no_bytes, "no bytes"),
        (lambda parts: parts.update({"data/weights/model.pt": b"x"}), "a pickle, data/weights/model.pt"),
        (lambda parts: parts.update({"data/aotinductor/model/x.so": b"x"}), "compiled library"),
        (lambda parts: parts.update({"../../out": b"x"}), "lead out of the archive"),
        (lambda parts: parts.update({"/etc/out": b"x"}), "lead out of the archive"),
        (lambda parts: parts.pop("models/model.json"), "not a file of torch.export"),
        (lambda parts: parts.update({"models/model.json": b"{"}), "damaged"),
        (lambda parts: parts.update({"models/model.json": b"[" * 5000}), "damaged"),
        (_in_model(lambda model: _graph(model)["nodes"][0].update(target="torch.os.system")), "'torch.os.system'"),
        (
            _in_model(lambda model: _graph(model)["nodes"][0].update(target="torch.ops.aten.from_file.default")),
            "from_file",
        ),
        (_in_model(lambda model: _graph(model)["nodes"][0].update(target="torch.ops.mine.op.default")), "mine.op"),
        (
            _in_model(lambda model: _graph(model)["inputs"][0]["as_tensor"].update(name="a=print()")),
            "a name that is none",
        ),
        (_in_model(lambda model: _parameter(model).update(parameter_name='x"),print(),("')), "a name that is none"),
        (
            _in_model(lambda model: _graph(model).update(custom_obj_values={"x": {"class_fqn": "os.system"}})),
            "an object",
        ),
        (_in_model(_expression), "an expression"),
        (_in_model(_huge), "more than 2,147,483,648 elements"),
    ],
)
def test_a_pt2_that_is_more_than_tensors_and_their_operators_is_refused(
    good: Path, tmp_path: Path, change: Callable[[dict[str, bytes]], Any], says: str
) -> None:
    path = _changed(good, tmp_path / "hostile.pt2", change)
    for load in (TorchGraph, TorchNetwork, safe_archive):
        with pytest.raises(WeightsError, match=says) as refused:
            load(path)
        assert "\n" not in str(refused.value)


def test_a_checkpoint_and_a_compressed_archive_are_no_pt2(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"a checkpoint.*torch\.export\.save"):
        safe_archive(tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "bomb.pt2", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/models/model.json", b"0" * 10**6)
    with pytest.raises(WeightsError, match="compressed entries"):
        safe_archive(tmp_path / "bomb.pt2")
    (tmp_path / "empty.pt2").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"not a file of torch\.export"):
        safe_archive(tmp_path / "empty.pt2")


def _external(path: Path, where: str) -> Path:
    mean_onnx(path)
    model = onnx.load(path)
    tensor = model.graph.initializer.add(name="beside", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=where)
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_lie_in_the_file_or_beside_it_and_nowhere_else(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "net.data").write_bytes(bytes(16))
    path = folder / "net.onnx"
    for where in ("../secret", str(tmp_path / "secret"), "link"):
        with pytest.raises(WeightsError, match="lies outside of its folder"):
            OnnxGraph(_external(path, where))
    with pytest.raises(WeightsError, match="is not beside it; copy both files"):
        OnnxGraph(_external(path, "net2.data"))
    before = look_at(_external(path, "net.data"))
    assert len(before.files) == 2
    (folder / "net.data").write_bytes(b"1" * 16)
    assert look_at(path).sha256 != before.sha256, "another teacher, though the .onnx is the same"


def _one(path: Path, node: Any, **more: Any) -> Path:
    return write_onnx(path, [node], {"clip": ["B", 3, 4, *SIZE]}, {"final": ["B", *SIZE]}, **more)


def test_operators_and_sizes_that_cannot_be_run_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    unknown = _one(path, helper.make_node("Evil", ["clip"], ["final"], domain="mine"), domains=["mine"])
    with pytest.raises(WeightsError, match=r"operator mine\.Evil is of a domain"):
        OnnxGraph(unknown)
    with pytest.raises(WeightsError, match=r"ONNX Runtime does not take it .*Nonsense"):
        OnnxGraph(_one(path, helper.make_node("Nonsense", ["clip"], ["final"])))
    huge = helper.make_node("ConstantOfShape", ["shape"], ["final"])
    with pytest.raises(WeightsError, match="'final' of 1000000x1000000x8 is larger"):
        OnnxGraph(
            write_onnx(
                path,
                [huge],
                {"clip": [1, 3, *SIZE]},
                {"final": ["a", "b", "c"]},
                {"shape": np.array([10**6, 10**6, 8])},
            )
        )
    with pytest.raises(WeightsError, match="is larger"):
        OnnxGraph(
            write_onnx(
                path,
                [helper.make_node("Identity", ["clip"], ["final"])],
                {"clip": [2**20, 2**20]},
                {"final": [2**20, 2**20]},
            )
        )


@pytest.mark.parametrize("content", [b"", b"not a network", bytes(range(256)) * 8])
def test_what_is_no_onnx_file_says_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not an ONNX file") as refused:
        OnnxGraph(path)
    assert "\n" not in str(refused.value)
    for other in (tmp_path, tmp_path / "missing.onnx"):
        with pytest.raises(WeightsError, match=r"is a folder|no such file"):
            OnnxGraph(other)


def test_a_network_that_only_looks_odd_is_taken(tmp_path: Path) -> None:
    path = write_pt2(
        tmp_path / "odd.pt2",
        Told(lambda clip: (clip[:, :, -1].mean(1) if clip.shape[0] > 1 else clip.mean((1, 2))).abs()),
        (3, 4, *SIZE),
    )
    assert TorchGraph(path).outputs == ["0"]
    assert isinstance(safe_archive(path), io.BytesIO)
