"""The network that a command is given: weights, run by the backend that was asked for, or a file that export made."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.networks.network import Network

Wanted = Literal["auto", "torch", "onnx", "openvino"]
EXPORTED = (".onnx", ".xml", ".pt2")
"""Endings of files that are networks by themselves."""


def given_network(weights: Path, kind: str, *, backend: Wanted, precision: Any, device: str) -> "Network":
    """Load a network; says what `auto` has chosen of devices and backends.

    Raises WeightsError for a file of something else, SettingError for a choice that does not go together.
    """
    from tinyhd_pipe.stages.networks.network import load_teacher

    if weights.suffix in EXPORTED:
        return _exported(weights, backend, device)
    network = load_teacher(kind, weights=weights, precision=precision, device=console.device(device))
    if backend == "torch" or (backend == "auto" and network.device.type != "cpu"):
        return network
    from tinyhd_pipe.stages.exports.backends import choose_backend, with_backend

    chosen = choose_backend(backend, network)
    if backend == "auto":
        console.say(f"backend: {chosen.backend} ({chosen.reason})")
    return with_backend(network, chosen.backend)


def _exported(path: Path, backend: str, device: str) -> "Network":
    from tinyhd_pipe.stages.exports.backends import load_exported

    own = {".onnx": "onnx", ".xml": "openvino", ".pt2": "torch"}[path.suffix]
    if backend not in ("auto", own):
        raise SettingError(f"--backend {backend}: {path} is run by {own}; leave --backend out, or give the weights")
    if device not in ("auto", "cpu"):
        raise SettingError(f"--device {device}: {path} runs on the CPU; leave --device out, or give the weights")
    return load_exported(path)
