"""torch.export: one .pt2 file, which torch runs without this package.

The decision that is not obvious: no example inputs go with it, which torch would pickle; what is left is tensors and
JSON. Cost: as long as a trace takes, 5 s.
"""

import io
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tinyhd_pipe.stages.exports.facts import KEY, as_text, from_text
from tinyhd_pipe.stages.exports.torch_guard import safe_archive
from tinyhd_pipe.store.errors import WeightsError
from tinyhd_pipe.store.whole_file import write_whole

FACTS = f"{KEY}.json"
"""The name of the facts inside the archive."""


def write_torch(program: torch.export.ExportedProgram, facts: Mapping[str, Any], path: Path) -> None:
    """One file; `facts` lie in it as an extra file."""
    program.example_inputs = None
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # where in whose folder it was traced
    archive = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what torch calls by names that it will rename
        torch.export.save(program, archive, extra_files={FACTS: as_text(facts)})
    write_whole(path, archive.getvalue())


def operators(program: torch.export.ExportedProgram) -> dict[str, int]:
    """How often each operator occurs, the most frequent first."""
    called = (str(node.target) for node in program.graph.nodes if node.op == "call_function")
    return dict(Counter(called).most_common())


class TorchNetwork:
    """A file that is ready to answer, and what it says of itself.

    Raises WeightsError for a file that is not of torch.export, that would run code or that says nothing of itself.
    """

    def __init__(self, path: Path) -> None:
        extra = {FACTS: ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.load(safe_archive(path), extra_files=extra)
        except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
            said = " ".join(str(error).split())[:160]
            raise WeightsError(f"{path}: not a file of torch.export ({said}); export it again") from error
        self.facts = from_text(extra[FACTS], path)
        self.module = program.module()

    def __call__(self, seen: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Level -> maps in [0, 1]; input and outputs as the facts say."""
        with torch.inference_mode():
            maps = self.module(torch.from_numpy(seen))
        names = [output["name"] for output in self.facts["outputs"]]
        return {name: one.numpy() for name, one in zip(names, maps, strict=True)}
