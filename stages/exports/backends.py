"""Students run by ONNX Runtime or OpenVINO, and exported files as networks: whoever asks for maps sees no difference.

    network = with_backend(load_student("best.safetensors"), "openvino")
    network = load_exported("best.int8.xml")

The decision that is not obvious is `auto`. It is a rule, since maps of one video should not change their last bits with
what else the machine was doing: torch wherever our fused kernels run (networks/fused.py; on two cores with AVX-512 they
take about half of OpenVINO's time and a quarter of ONNX Runtime's), and on every device but a CPU; without a C compiler
OpenVINO, where it is installed. `bench predict` times all of them. Cost: 20 s for the first use of weights by a
runtime; the ONNX file that both runtimes read is kept in the user's cache folder.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor

from tinyhd_pipe.stages.exports.check import checked, windows_of
from tinyhd_pipe.stages.exports.facts import facts_of
from tinyhd_pipe.stages.exports.graph import Graph, traced
from tinyhd_pipe.stages.exports.onnx_files import OnnxNetwork, onnx_model, write_onnx
from tinyhd_pipe.stages.exports.onnx_guard import look_at
from tinyhd_pipe.stages.exports.openvino_files import OpenVinoNetwork
from tinyhd_pipe.stages.exports.packages import NEEDED, Format, needed
from tinyhd_pipe.stages.exports.torch_files import TorchNetwork
from tinyhd_pipe.stages.networks.layers.kernels import kernels
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.networks.network import Network, Scaling
from tinyhd_pipe.stages.networks.overlap import cores
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.store.errors import SettingError, WeightsError

SMALLEST = 1e-12
"""Maps are taken for logits from here on, as a network gives them."""
Runtime = OnnxNetwork | OpenVinoNetwork | TorchNetwork


@dataclass(frozen=True)
class Choice:
    """A backend, and in one line why it is this one."""

    backend: Format
    reason: str


def choose_backend(wanted: Literal["auto", "torch", "onnx", "openvino"], network: Network) -> Choice:
    """The backend that is meant by `auto`, torch, onnx or openvino.

    Raises SettingError where it does not run this network, or a package is missing.
    """
    if wanted == "onnx" or wanted == "openvino":
        if network.kind != "tinyhd" or network.device.type != "cpu" or network.precision != "float32":
            raise SettingError(
                f"--backend {wanted}: runs students in float32 on the CPU, and this is {network.kind} in "
                f"{network.precision} on {network.device}; use --backend torch"
            )
        for package in NEEDED[wanted]:
            needed(package, f"--backend {wanted}")
        return Choice(wanted, "as asked for")
    if wanted == "torch":
        return Choice("torch", "as asked for")
    return _by_rule(network)


def _by_rule(network: Network) -> Choice:
    if network.kind != "tinyhd" or network.device.type != "cpu" or network.precision != "float32":
        return Choice("torch", f"the only one for {network.kind} in {network.precision} on {network.device}")
    found = kernels()
    if found.library is not None:
        return Choice("torch", "our fused kernels run here")
    if all(find_spec(package) for package in NEEDED["openvino"]):
        return Choice("openvino", f"our fused kernels do not run here: {found.told}")
    return Choice("torch", f"OpenVINO is not installed, and our fused kernels do not run here: {found.told}")


def backends_here(wanted: Sequence[str] | None) -> tuple[Format, ...]:
    """Those backends, or all whose packages are installed. Raises SettingError for one that is not known."""
    if wanted is None:
        return tuple(each for each, packages in NEEDED.items() if all(find_spec(package) for package in packages))
    if unknown := [each for each in wanted if each not in NEEDED]:
        raise SettingError(f"--backend {unknown[0]}: expected torch, onnx or openvino")
    return tuple(cast(Format, each) for each in dict.fromkeys(wanted))


def with_backend(network: Network, backend: Format) -> Network:
    """The same network, run by a backend; its maps are the same but for rounding, and have been compared.

    Arguments:
        network: a student in float32 on the CPU, except for torch.

    Raises TinyHDError where the runtime does not give the network's maps, SettingError where a package is missing.
    """
    if backend == "torch":
        return network
    path = _kept_at(network)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        graph = Graph(network, [FINAL], takes_frames=False)
        program = traced(graph)
        facts = facts_of(network, graph, graph(graph.example()), versions={"onnx": version("onnx")})
        write_onnx(onnx_model(graph, program), facts, path)
    found = OnnxNetwork(path) if backend == "onnx" else OpenVinoNetwork(path, at_once=cores())
    checked(network, found, windows_of([]), takes_frames=False)
    return replace(network, module=cast(TinyHD, _Answers(found)), fast_layout=False)


def load_exported(path: str | Path) -> Network:
    """A network out of a file that `export` has made: .onnx, .xml or .pt2.

    Raises WeightsError for a file that is something else, takes frames as decoded, or is of HD2S, whose windows are
    made here by its own layers alone; SettingError where a package is missing.
    """
    path = Path(path)
    found = _opened(path)
    facts = found.facts
    if facts["kind"] != "tinyhd" or facts["input"]["preprocessing"] != "outside":
        raise WeightsError(
            f"{path}: expected a student without preprocessing in its file, found {facts['kind']} that takes "
            f"{facts['input']['name']}; give the weights that it was made of"
        )
    taken = facts["input"]
    scaling = Scaling(tuple(taken["mean"]), tuple(taken["std"]), tuple(facts["size"]))
    return Network(
        kind="tinyhd",
        module=cast(TinyHD, _Answers(found)),
        scaling=scaling,
        precision="float32",
        device=torch.device("cpu"),
        fast_layout=False,
        facts={
            "kind": "tinyhd",
            "weights_sha256": facts["weights_sha256"],
            "preprocessing": scaling.facts(),
            "precision": facts["precision"],
            "precision_chosen": "as exported",
            "batch": 1,
            "torch": torch.__version__,
            "licence": facts["licence"],
        },
    )


class _Answers:
    """Stands where a network's module does."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.outputs = len(runtime.facts["window"]["answers"])

    def __call__(self, clip: Tensor) -> dict[str, Tensor]:
        """Logits of what the file gives, each (B, y, x) or (B, 16, y, x)."""
        maps = self.runtime(clip.contiguous().numpy())
        return {level: torch.from_numpy(one).logit(SMALLEST) for level, one in maps.items()}

    def native_logits(self, clip: Tensor) -> dict[str, Tensor]:
        return self(clip)


def _opened(path: Path) -> Runtime:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    if path.suffix == ".onnx":
        look_at(path)
        return OnnxNetwork(path)
    return OpenVinoNetwork(path, at_once=cores()) if path.suffix == ".xml" else TorchNetwork(path)


def _kept_at(network: Network) -> Path:
    """In the cache, under a digest of all that the file follows from."""
    facts = {**network.identity, "topology": repr(cast(TinyHD, network.module).topology)}
    facts |= {"unshown": [cast(TinyHD, network.module).d1_outputs, cast(TinyHD, network.module).fusion_order]}
    facts |= {package: version(package) for package in ("torch", "onnx", "onnxscript")}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    here = Path(__file__).parent
    written_by = [here / name for name in ("graph.py", "facts.py", "onnx_files.py")]
    for source in sorted([*written_by, *(here.parent / "networks").rglob("*.py")]):
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tinyhd-pipe" / f"student-{digest.hexdigest()[:16]}.onnx"
