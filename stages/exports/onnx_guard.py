"""An ONNX file of somebody else, looked at before a runtime is given it: where its weights lie, operators, sizes.

ONNX runs no code of its own, but a file can name other files to read (external data) and tensors that no memory holds.
The decision that is not obvious: sizes are inferred on the graph before it is loaded, with a batch of one, since ONNX
Runtime folds constants, and so would already make such a tensor while it loads. Cost: a tenth of a second.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyhd_pipe.stages.exports.packages import needed
from tinyhd_pipe.store.errors import WeightsError

LARGEST = 2**31
"""Elements of the largest tensor that a graph may have."""
KNOWN = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}
"""Domains of operators that ONNX Runtime has by itself."""


@dataclass(frozen=True)
class Looked:
    """What was found in a file that may be loaded."""

    sha256: str
    """Hexadecimal digest of the file and of the data beside it."""
    files: tuple[Path, ...]
    """The file, and those in which its weights lie."""


def look_at(path: Path) -> Looked:
    """Raise WeightsError, in one line, for a file that should not be given to a runtime."""
    onnx = needed("onnx", path.name)
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise WeightsError(f"{path}: is a folder; name the .onnx in it") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # protobuf's DecodeError, which has moved between packages
        raise WeightsError(f"{path}: not an ONNX file, or damaged; export it again") from error
    if not model.graph.node:
        raise WeightsError(f"{path}: not an ONNX file, or an empty one; export it again")
    beside = _external(path, model.graph)
    own = {function.domain for function in model.functions}
    for node in _nodes(model):
        if node.domain not in KNOWN | own:
            raise WeightsError(
                f"{path}: operator {node.domain}.{node.op_type} is of a domain that ONNX Runtime does not have; "
                "export it with standard operators"
            )
    _refuse_huge(path, onnx, model)
    digest = hashlib.sha256(path.read_bytes())
    for file in beside:
        digest.update(file.read_bytes())
    return Looked(digest.hexdigest(), (path, *beside))


def _external(path: Path, graph: Any) -> tuple[Path, ...]:
    """Files beside this one in which weights lie. Raises WeightsError for one that is elsewhere or missing."""
    folder = path.resolve().parent
    files: dict[Path, None] = {}
    for tensor in _tensors(graph):
        where = {entry.key: entry.value for entry in tensor.external_data}.get("location")
        if where is None:
            continue
        file = folder / where
        if Path(where).is_absolute() or not file.resolve().is_relative_to(folder):
            raise WeightsError(f"{path}: refused, its tensor {tensor.name!r} lies outside of its folder, at {where}")
        if not file.is_file():
            raise WeightsError(f"{path}: its weights lie in {where}, which is not beside it; copy both files")
        files[file] = None
    return tuple(files)


def _tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _tensors(inner)


def _nodes(model: Any) -> Iterator[Any]:
    waiting = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    while waiting:
        node = waiting.pop()
        yield node
        for attribute in node.attribute:
            waiting += attribute.g.node
            waiting += [inner for graph in attribute.graphs for inner in graph.node]


def _refuse_huge(path: Path, onnx: Any, model: Any) -> None:
    inputs = onnx.ModelProto()
    inputs.CopyFrom(model)
    for given in inputs.graph.input:
        for size in given.type.tensor_type.shape.dim:
            if not size.HasField("dim_value"):
                size.dim_value = 1
    try:
        graph = onnx.shape_inference.infer_shapes(inputs, data_prop=True).graph
    except Exception:  # of a damaged graph the runtime says more
        graph = inputs.graph
    declared = [
        (one.name, [size.dim_value or 1 for size in one.type.tensor_type.shape.dim])
        for one in (*graph.input, *graph.output, *graph.value_info)
    ]
    for name, shape in (*declared, *((tensor.name, list(tensor.dims)) for tensor in _tensors(graph))):
        if math.prod(shape) > LARGEST:
            size = "x".join(map(str, shape))
            raise WeightsError(f"{path}: refused, its tensor {name!r} of {size} is larger than {LARGEST:,} elements")
