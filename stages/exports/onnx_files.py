"""ONNX: one file with its weights inside, run by ONNX Runtime.

The decision that is not obvious: opset 18, the newest that every runtime of today takes (browsers', OpenVINO's,
TensorRT's), and enough for resizes of five axes with aligned corners, which is what to look at in a runtime that gives
other maps. Cost: about 15 s to export, most of it torch's decomposition of the graph.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tinyhd_pipe.stages.exports.facts import KEY, as_text, from_text
from tinyhd_pipe.stages.exports.graph import Graph
from tinyhd_pipe.stages.exports.packages import needed
from tinyhd_pipe.store.errors import WeightsError
from tinyhd_pipe.store.whole_file import write_whole

OPSET = 18


def onnx_model(graph: Graph, program: torch.export.ExportedProgram) -> Any:
    """The graph as an `onnx.ModelProto`, without facts. Raises SettingError where a package is missing."""
    for package in ("onnx", "onnxscript"):
        needed(package, "--format onnx")
    with _quiet():
        made = torch.onnx.export(
            program,
            (),
            input_names=[graph.input_name],
            output_names=list(graph.levels),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert made is not None
    return made.model_proto


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warnings: that torchvision is not there, and of its own functions that it will rename."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def write_onnx(model: Any, facts: Mapping[str, Any], path: Path) -> None:
    """One file; `facts` go into its metadata."""
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose folder each operator was traced, half of the file
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=as_text(facts))
    model.producer_name, model.producer_version = "tinyhd-pipe", facts["versions"]["tinyhd-pipe"]
    write_whole(path, model.SerializeToString(deterministic=True))


def operators(model: Any) -> dict[str, int]:
    """How often each operator occurs, the most frequent first."""
    return dict(Counter(node.op_type for node in model.graph.node).most_common())


class OnnxNetwork:
    """A file that is ready to answer, and what it says of itself.

    An answer takes one thread, and threads may ask at once. Raises WeightsError for a file that ONNX Runtime does not
    take or that says nothing of itself.
    """

    def __init__(self, path: Path) -> None:
        runtime = needed("onnxruntime", f"{path.name}")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has a family of its own, and RuntimeError
            said = " ".join(str(error).split())[:160]
            raise WeightsError(f"{path}: not an ONNX file that ONNX Runtime takes ({said}); export it again") from error
        self.facts = from_text(self.session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def __call__(self, seen: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Level -> maps in [0, 1]; input and outputs as the facts say."""
        names = [output["name"] for output in self.facts["outputs"]]
        return dict(zip(names, self.session.run(names, {self.facts["input"]["name"]: seen}), strict=True))
