"""Exported graphs as they are, whoever made them: named inputs and outputs, run by ONNX Runtime or torch.

    graph = OnnxGraph(Path("net.onnx"))       graph = TorchGraph(Path("net.pt2"))
    graph.run({"clip": clip})                 level maps, states and whatever else it gives, by name

The decision that is not obvious: outputs of a torch graph are named by the keys of the dict that it returns, and by
their places, `0`, `1`, where it returns a tuple; ONNX has names. A file is looked at before it is loaded
(onnx_guard.py, torch_guard.py). Cost: one thread an answer, so that a map has the same bits on any number of cores.
"""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export.passes import move_to_device_pass

from tinyhd_pipe.stages.exports.facts import KEY, from_text
from tinyhd_pipe.stages.exports.onnx_guard import look_at
from tinyhd_pipe.stages.exports.packages import needed
from tinyhd_pipe.stages.exports.torch_guard import safe_archive
from tinyhd_pipe.stages.networks.precision import keep_float32
from tinyhd_pipe.store.errors import SettingError, WeightsError


@dataclass(frozen=True)
class Port:
    """An input of a graph."""

    name: str
    shape: tuple[int | None, ...]
    """None: any length."""
    dtype: str
    """As NumPy calls it."""


class OnnxGraph:
    """An .onnx file that is ready to run.

    Raises WeightsError for a file that is not one or not to be trusted, SettingError where a package is missing.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        looked = look_at(path)
        runtime = needed("onnxruntime", path.name)
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session = runtime.InferenceSession(str(path), options, providers=_providers(runtime, device))
        except Exception as error:  # ONNX Runtime has a family of its own, and RuntimeError
            raise WeightsError(f"{path}: ONNX Runtime does not take it ({_said(error)}); export it again") from error
        self.path = path
        self.sha256 = looked.sha256
        self.versions = {"onnxruntime": str(runtime.__version__)}
        self.inputs = [
            Port(
                one.name,
                tuple(size if isinstance(size, int) else None for size in one.shape),
                _ONNX.get(one.type, one.type),
            )
            for one in self._session.get_inputs()
        ]
        self.outputs = [one.name for one in self._session.get_outputs()]
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        self.facts = from_text(text, path) if text else None

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Output by name, on the CPU. Raises WeightsError where the graph does not run with these shapes."""
        try:
            answers = self._session.run(self.outputs, {name: one.numpy() for name, one in given.items()})
        except Exception as error:
            raise WeightsError(f"{self.path}: does not run with {_shapes(given)} ({_said(error)})") from error
        return {name: torch.from_numpy(np.asarray(one)) for name, one in zip(self.outputs, answers, strict=True)}


_ONNX = {
    "tensor(float)": "float32",
    "tensor(uint8)": "uint8",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
}


def _providers(runtime: Any, device: str) -> list[str]:
    if device == "cpu":
        return ["CPUExecutionProvider"]
    if not device.startswith("cuda") or "CUDAExecutionProvider" not in runtime.get_available_providers():
        raise SettingError(
            f"--device {device}: ONNX Runtime here has the CPU alone; use --device cpu, or pip install onnxruntime-gpu"
        )
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]


class TorchGraph:
    """A .pt2 file of torch.export that is ready to run; nothing in it is executed but operators on tensors.

    Raises WeightsError for a file that is not one or that would run code.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        safe = safe_archive(path)
        keep_float32(device)
        extra: dict[str, Any] = {f"{KEY}.json": ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(safe, extra_files=extra)
                if device != "cpu":
                    program = move_to_device_pass(program, device)
                self._module = program.module()
        except Exception as error:  # torch's own families, AssertionError and KeyError among them
            raise WeightsError(f"{path}: torch.export does not load it ({_said(error)}); export it again") from error
        self.path = path
        self.device = device
        self.sha256 = sha256(path.read_bytes()).hexdigest()
        self.versions = {"torch": torch.__version__}
        user = set(program.graph_signature.user_inputs)
        self.inputs = [
            Port(node.name, tuple(_fixed(size) for size in node.meta["val"].shape), _dtype(node.meta["val"].dtype))
            for node in program.graph.nodes
            if node.op == "placeholder" and node.name in user
        ]
        spec = program.call_spec.out_spec
        named = spec is not None and spec.type is dict
        count = len(program.graph_signature.user_outputs)
        self.outputs = [str(name) for name in (spec.context if named else range(count))]
        text = extra[f"{KEY}.json"]
        self.facts = from_text(text, path) if text else None
        if self.facts:
            self.outputs = [output["name"] for output in self.facts["outputs"]]

    def run(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Output by name, on the CPU. Raises WeightsError where the graph does not run with these shapes."""
        try:
            with torch.inference_mode():
                answers = self._module(*(given[port.name].to(self.device) for port in self.inputs))
        except Exception as error:
            raise WeightsError(f"{self.path}: does not run with {_shapes(given)} ({_said(error)})") from error
        several = list(answers.values()) if isinstance(answers, dict) else answers
        several = [several] if isinstance(several, Tensor) else several
        return {name: one.cpu() for name, one in zip(self.outputs, several, strict=True)}


GraphFile = OnnxGraph | TorchGraph


def _fixed(size: Any) -> int | None:
    return size if isinstance(size, int) else None


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shapes(given: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} of {'x'.join(map(str, one.shape))}" for name, one in given.items())


def _said(error: Exception) -> str:
    """In a line what a runtime complains of, without its own preamble."""
    said = " ".join((str(error) or type(error).__name__).split())
    said = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from \S+ failed:)?", "", said)
    return said.removeprefix("This is an invalid model. ")[:160]
