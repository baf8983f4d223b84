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
from typing import Any

import torch

from tinyhd_pipe.stages.exports.check import Checked, Runs, checked, compared, windows_of
from tinyhd_pipe.stages.exports.facts import facts_of
from tinyhd_pipe.stages.exports.graph import Graph, traced
from tinyhd_pipe.stages.exports.int8 import Int8, Loss, judged, quantised, split
from tinyhd_pipe.stages.exports.packages import NEEDED, Format, needed
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import SettingError

SUFFIXES: Mapping[Format, tuple[str, ...]] = {"onnx": (".onnx",), "openvino": (".xml", ".bin"), "torch": (".pt2",)}
"""What a file of each format ends with; OpenVINO's is two."""


@dataclass(frozen=True)
class Wanted:
    """What is exported."""

    format: Format = "onnx"
    all_maps: bool = False
    """The maps of the decoders, too, behind `final`."""
    with_preprocessing: bool = False
    """The graph takes uint8 frames of any size, and scales them itself."""
    int8: Int8 | None = None
    """A student in 8 bits, for OpenVINO."""


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
    loss: Loss | None = None
    """What 8 bits cost."""


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
    _check_wanted(wanted, network)
    if out.exists() and not out.is_dir():
        raise SettingError(f"{out}: is a file; expected a folder for the exported file")
    places = tuple(out / f"{name}{suffix}" for suffix in SUFFIXES[wanted.format])
    if (there := next((place for place in places if place.exists()), None)) and not overwrite:
        raise SettingError(f"{there}: is there already; give another --out, or --overwrite")
    windows = windows_of(sources)
    out.mkdir(parents=True, exist_ok=True)
    report(0, 3, "tracing")
    graph = Graph(network, _levels(network, wanted), takes_frames=wanted.with_preprocessing)
    program = traced(graph)
    report(1, 3, "converting")
    with tempfile.TemporaryDirectory(dir=out, prefix=".export-") as folder:
        beside = tuple(Path(folder, place.name) for place in places)
        written = _WRITERS[wanted.format](network, graph, program, beside[0])
        report(2, 3, "comparing maps")
        found = checked(network, written.run, windows, takes_frames=wanted.with_preprocessing)
        if wanted.int8 is not None:
            report(2, 3, "quantising")
            written, found = _in_8_bits(network, graph, written, wanted.int8, beside[0])
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
        loss=written.loss,
    )


def _check_wanted(wanted: Wanted, network: Network) -> None:
    for package in NEEDED[wanted.format]:
        needed(package, f"--format {wanted.format}")
    if wanted.int8 is None:
        return
    if wanted.format != "openvino" or network.kind != "tinyhd":
        raise SettingError(
            f"--int8: of a student with --format openvino only, not of {network.kind} with {wanted.format}: "
            "ONNX Runtime computes 3D convolutions of 8 bits in one thread"
        )
    needed("nncf", "--int8")
    split(wanted.int8)


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
    model: Any = None
    """OpenVINO's, to quantise."""
    loss: Loss | None = None


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
    return _Written(loaded.facts, loaded, openvino_files.operators(model), model=model)


def _in_8_bits(network: Network, graph: Graph, written: _Written, wanted: Int8, path: Path) -> tuple[_Written, Checked]:
    """The same file in 8 bits, judged and written again with what it costs; and how far its maps are."""
    from tinyhd_pipe.stages.exports import openvino_files

    calibrated, held_out = split(wanted)
    model = quantised(written.model, network, calibrated, takes_frames=graph.takes_frames)
    facts = {**written.facts, "precision": "int8"}
    openvino_files.write_openvino(model, facts, path)
    loss = judged(network, openvino_files.OpenVinoNetwork(path), wanted, takes_frames=graph.takes_frames)
    openvino_files.write_openvino(model, {**facts, "int8": loss.facts()}, path)
    loaded = openvino_files.OpenVinoNetwork(path)
    found = compared(network, loaded, windows_of(held_out), takes_frames=graph.takes_frames)
    return _Written(loaded.facts, loaded, openvino_files.operators(model), loss=loss), found


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
