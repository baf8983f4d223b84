"""A network as a file that others run, without this package: ONNX, OpenVINO or torch.export.

    from tinyhd_pipe.stages.export import Wanted, export
    made = export(load_student("best.safetensors"), Path("out"), "best", Wanted("onnx"))
    made.files, made.facts, made.difference

The decision that is not obvious: a file gets its name when it has been loaded again by its own runtime and has given
the network's maps, window by window; what fails that leaves nothing behind. What it says of itself is in the file
(exports/facts.py), so that nothing else needs to travel with it. Cost: 5 s for torch.export, 20 s for the others.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch

from tinyhd_pipe.stages.exports.check import Runs, checked, windows_of
from tinyhd_pipe.stages.exports.facts import facts_of
from tinyhd_pipe.stages.exports.graph import Graph, traced
from tinyhd_pipe.stages.exports.packages import needed
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import SettingError

Format = Literal["onnx", "openvino", "torch"]
SUFFIXES: Mapping[Format, tuple[str, ...]] = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "torch": (".pt2",)}
"""What a file of each format ends with; OpenVINO's is two."""
NEEDED: Mapping[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}
"""Packages, beside torch."""


@dataclass(frozen=True)
class Wanted:
    """What is exported."""

    format: Format = "onnx"
    all_maps: bool = False
    """The maps of the decoders, too, behind `final`."""
    with_preprocessing: bool = False
    """The graph takes uint8 frames of any size, and scales them itself."""


@dataclass(frozen=True)
class Exported:
    """What an export left."""

    files: tuple[Path, ...]
    bytes: int
    difference: float
    """Largest, of values in [0, 1], from the network's maps."""
    differences: Mapping[str, float]
    """The same of each level."""
    compared_on: str
    opset: int | None
    """Of ONNX."""
    operators: Mapping[str, int]
    """How often each occurs, the most frequent first."""
    facts: Mapping[str, Any]
    """What the file says of itself (exports/facts.py)."""


def export(
    network: Network,
    out: Path,
    name: str,
    wanted: Wanted = Wanted(),
    *,
    sources: Sequence[VideoSource] = (),
    overwrite: bool = False,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Exported:
    """Write a network as one file (OpenVINO: two) in the folder `out`.

    Arguments:
        network: float32, on the CPU.
        name: of the file, without its ending.
        sources: videos on whose windows the file is checked; synthetic frames by default.
        overwrite: replace a file of that name; refused otherwise.
        report: told (steps done, steps in all, what comes next).

    Raises SettingError where a package is missing, the file is there or the network is not float32 on the CPU;
    TinyHDError where the file does not give the network's maps; OSError where it cannot be written.
    """
    if network.precision != "float32" or network.device.type != "cpu":
        raise SettingError(f"a network in {network.precision} on {network.device}: export needs float32 on the CPU")
    for package in NEEDED[wanted.format]:
        needed(package, f"--format {wanted.format}")
    places = tuple(out / f"{name}{suffix}" for suffix in SUFFIXES[wanted.format])
    if (there := next((place for place in places if place.exists()), None)) and not overwrite:
        raise SettingError(f"{there}: is there already; give another --out, or --overwrite")
    windows = windows_of(sources)
    report(0, 3, "tracing")
    graph = Graph(network, _levels(network, wanted), takes_frames=wanted.with_preprocessing)
    program = traced(graph)
    report(1, 3, "converting")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        beside = tuple(Path(folder, place.name) for place in places)
        written = _WRITERS[wanted.format](network, graph, program, beside[0])
        report(2, 3, "comparing maps")
        found = checked(network, written.run, windows, takes_frames=wanted.with_preprocessing)
        for made, place in reversed(list(zip(beside, places, strict=True))):  # the one that names the others last
            made.replace(place)
    report(3, 3, "done")
    return Exported(
        files=places,
        bytes=sum(place.stat().st_size for place in places),
        difference=found.largest,
        differences=found.differences,
        compared_on=f"{found.windows} windows of {found.of}",
        opset=written.opset,
        operators=written.operators,
        facts=written.facts,
    )


def _levels(network: Network, wanted: Wanted) -> list[str]:
    """`final` first: whoever takes one output takes that."""
    if not wanted.all_maps:
        return [FINAL]
    y, x = network.scaling.size
    with torch.inference_mode():
        levels = list(network.module(torch.zeros(1, 3, 16, y, x)))
    return [FINAL, *(level for level in levels if level != FINAL)]


@dataclass(frozen=True)
class _Written:
    """A file, loaded again."""

    facts: Mapping[str, Any]
    run: Runs
    operators: Mapping[str, int]
    opset: int | None = None


def _facts(network: Network, graph: Graph, *packages: str) -> dict[str, Any]:
    with torch.inference_mode():
        answers = graph(graph.example())
    return facts_of(network, graph, answers, versions={package: version(package) for package in packages})


def _onnx(network: Network, graph: Graph, program: torch.export.ExportedProgram, path: Path) -> _Written:
    from tinyhd_pipe.stages.exports import onnx_files

    model = onnx_files.onnx_model(graph, program)
    facts = _facts(network, graph, "onnx", "onnxruntime")
    onnx_files.write_onnx(model, facts, path)
    loaded = onnx_files.OnnxNetwork(path)
    return _Written(loaded.facts, loaded, onnx_files.operators(model), onnx_files.OPSET)


def _openvino(network: Network, graph: Graph, program: torch.export.ExportedProgram, path: Path) -> _Written:
    from tinyhd_pipe.stages.exports import onnx_files, openvino_files

    model = openvino_files.openvino_model(onnx_files.onnx_model(graph, program))
    openvino_files.write_openvino(model, _facts(network, graph, "openvino"), path)
    loaded = openvino_files.OpenVinoNetwork(path)
    return _Written(loaded.facts, loaded, openvino_files.operators(model))


def _torch(network: Network, graph: Graph, program: torch.export.ExportedProgram, path: Path) -> _Written:
    from tinyhd_pipe.stages.exports import torch_files

    torch_files.write_torch(program, _facts(network, graph), path)
    loaded = torch_files.TorchNetwork(path)
    return _Written(loaded.facts, loaded, torch_files.operators(program))


_WRITERS: Mapping[Format, Callable[[Network, Graph, torch.export.ExportedProgram, Path], _Written]] = {
    "onnx": _onnx,
    "openvino": _openvino,
    "torch": _torch,
}
