"""OpenVINO's intermediate representation: an .xml with the graph and a .bin with the weights, its one form.

The decision that is not obvious: weights stay float32, which OpenVINO would halve when it saves, and inference is asked
to be float32, which it would not be on a processor with units for bfloat16. It is made of the ONNX graph, so that there
is one graph to check. One `Core` serves the whole process (`_core`): otherwise Ctrl-C may end it without a word. Cost:
as long as the ONNX graph takes, and a tenth of a second.
"""

import tempfile
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.exports.facts import KEY, as_text, from_text
from tinyhd_pipe.stages.exports.packages import needed
from tinyhd_pipe.store.errors import WeightsError


def openvino_model(onnx_model: Any) -> Any:
    """An `onnx.ModelProto` as an `openvino.Model`, without facts. Raises SettingError where the package is missing."""
    return _core(needed("openvino", "--format openvino")).read_model(onnx_model.SerializeToString())


@cache
def _core(openvino: Any) -> Any:
    """The one Core of this process, which is never let go.

    OpenVINO's part for CPUs gives the thread that wakes it another stack to take signals on, and frees that stack when
    the last network goes, in whichever thread that is. From another thread, the first one is left with memory that is
    gone, and the next signal that it takes kills the process (2026.4 on Linux).
    """
    return openvino.Core()


def write_openvino(model: Any, facts: Mapping[str, Any], path: Path) -> None:
    """`path` and the .bin beside it; `facts` stand in the .xml."""
    openvino = needed("openvino", "--format openvino")
    model.set_rt_info(as_text(facts), [KEY])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        beside = Path(folder, path.name)
        openvino.save_model(model, beside, compress_to_fp16=False)
        beside.with_suffix(".bin").replace(path.with_suffix(".bin"))
        beside.replace(path)


def operators(model: Any) -> dict[str, int]:
    """How often each operator occurs, the most frequent first."""
    return dict(Counter(node.get_type_name() for node in model.get_ordered_ops()).most_common())


class OpenVinoNetwork:
    """A file that is ready to answer, and what it says of itself.

    Arguments:
        path: an .xml, or an .onnx that has facts.
        at_once: answers that are computed side by side, each by one thread, for threads that ask at once.

    Raises WeightsError for a file that OpenVINO does not take or that says nothing of itself.
    """

    def __init__(self, path: Path, *, at_once: int = 1) -> None:
        core = _core(needed("openvino", path.name))
        try:
            model = core.read_model(path)
            place = [KEY] if path.suffix == ".xml" else ["framework", KEY]
            facts = model.get_rt_info(place).astype(str) if model.has_rt_info(place) else None
        except RuntimeError as error:
            said = " ".join(str(error).split())[:160]
            raise WeightsError(f"{path}: not a file that OpenVINO takes ({said}); export it again") from error
        self.facts = from_text(facts, path)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": at_once,
            "NUM_STREAMS": at_once,
        }
        self.compiled = core.compile_model(model, "CPU", settings)

    def __call__(self, seen: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Level -> maps in [0, 1]; input and outputs as the facts say."""
        answered = self.compiled.create_infer_request().infer({0: seen})
        names = [output["name"] for output in self.facts["outputs"]]
        return {name: answered[place] for place, name in enumerate(names)}
