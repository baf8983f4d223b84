"""Networks in files as others export them, so small that what they give is known by arithmetic."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

SIZE = (32, 32)
PIXELS = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
"""Pixels as they are, 0 to 1."""


def grey(value: float, size: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    return np.full((*size, 3), value, np.uint8)


def greys(count: int) -> list[NDArray[np.uint8]]:
    """Frame f is grey, 8 + 8 f."""
    return [grey(8 + 8 * frame) for frame in range(count)]


def value_of(frame: float) -> float:
    """What a pixel of that frame is for a network, 0 to 1."""
    return (8 + 8 * frame) / 255


class Told(nn.Module):
    """A network that is one expression."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, clip: Tensor) -> Any:
        return self.function(clip)


class Carries(nn.Module):
    """The brightest that every pixel of the frames so far has been."""

    def forward(self, clip: Tensor, state_most: Tensor) -> dict[str, Tensor]:
        most = torch.maximum(clip.mean(1), state_most)
        return {"final": most, "next_state_most": most.clone()}


def write_pt2(path: Path, module: nn.Module, *shapes: Sequence[int], free_batch: bool = True) -> Path:
    """As torch.export.save leaves it, example inputs and all."""
    batch = {0: torch.export.Dim("batch", min=1, max=64)} if free_batch else {}
    given = tuple(torch.zeros([2 if free_batch else 1, *shape]) for shape in shapes)
    program = torch.export.export(module, given, dynamic_shapes=tuple(batch for _ in given))
    content = io.BytesIO()
    torch.export.save(program, content)
    path.write_bytes(content.getvalue())
    return path


def write_onnx(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Sequence[Any]],
    outputs: Mapping[str, Sequence[Any]],
    constants: Mapping[str, NDArray[Any]] = {},
    domains: Sequence[str] = (),
) -> Path:
    """A graph of these nodes; axes that are strings have any length."""
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid(domain, 18 if not domain else 1) for domain in ("", *domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def mean_onnx(path: Path, frames: int = 4, size: tuple[int, int] = SIZE) -> Path:
    """(B, T, 3, y, x) -> the mean of all frames and colours."""
    node = helper.make_node("ReduceMean", ["clip", "axes"], ["map"], keepdims=0)
    axes = {"axes": np.array([1, 2], np.int64)}
    return write_onnx(path, [node], {"clip": ["B", frames, 3, *size]}, {"map": ["B", *size]}, axes)


def carries_onnx(path: Path) -> Path:
    """(B, 3, y, x) and the brightest so far -> the brightest so far."""
    nodes = [
        helper.make_node("ReduceMean", ["clip", "axes"], ["now"], keepdims=0),
        helper.make_node("Max", ["now", "state_most"], ["final"]),
        helper.make_node("Identity", ["final"], ["next_state_most"]),
    ]
    states = {"clip": [1, 3, *SIZE], "state_most": [1, *SIZE]}
    outputs = {"final": [1, *SIZE], "next_state_most": [1, *SIZE]}
    return write_onnx(path, nodes, states, outputs, {"axes": np.array([1], np.int64)})
