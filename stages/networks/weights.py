"""Weights files: published `.pth` checkpoints and our own `.safetensors`.

The decision that is not obvious: a file is known by its first bytes, not by its name, and its digest is
taken of the very bytes that were parsed, so a digest in a store can never belong to a file that was swapped
in between. Pickles are read with `weights_only=True`: a file that needs more than tensors and plain
containers is refused, not run. Cost: the file is in memory once beside its tensors (119 MB for HD2S).
"""

import hashlib
import io
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor, nn

from tinyhd_pipe.stages.video.sources import is_lfs_pointer
from tinyhd_pipe.store.errors import WeightsError
from tinyhd_pipe.store.whole_file import write_whole

STATE_KEYS = ("state_dict", "model_state_dict", "model", "student_model", "teacher_model", "module", "net")
"""Where training scripts put the weights inside a checkpoint, the likeliest first."""


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weights file holds."""

    state: dict[str, Tensor]
    """Parameters and buffers by name, on the CPU, without DataParallel's `module.` prefix."""
    facts: dict[str, Any]
    """What the file says of itself as plain data; empty for published checkpoints."""
    sha256: str
    """Hexadecimal digest of the whole file."""

    def __repr__(self) -> str:
        return f"Weights({len(self.state)} tensors, facts={sorted(self.facts)}, sha256={self.sha256[:12]})"


def read_weights(path: str | Path) -> Weights:
    """Read `.pth`, `.pt`, `.pth.tar` or `.safetensors`; nothing in the file is executed.

    A checkpoint may be a bare state dict, or hold one under one of `STATE_KEYS`.

    Raises WeightsError for a file that is missing, empty, cut short, without weights, or that would run code.
    """
    path = Path(path)
    content = _content(path)
    if path.suffix == ".onnx" or (content.startswith(b"PK\x03\x04") and b"models/model.json" in content):
        kind = "onnx" if path.suffix == ".onnx" else "torch"
        raise WeightsError(f"{path}: a whole network, not weights; teacher-dump takes it with --teacher {kind}")
    if content[8:9] == b"{":
        state, facts = _safetensors(path, content)
    elif content.startswith((b"PK\x03\x04", b"\x80")):
        state, facts = _state_dict(path, _unpickled(path, content)), {}
    else:
        raise WeightsError(f"{path}: not a weights file; expected a torch checkpoint (.pth, .pt) or .safetensors")
    if not state:
        raise WeightsError(f"{path}: holds no tensors; expected a network's state dict")
    return Weights(state, facts, hashlib.sha256(content).hexdigest())


def write_weights(path: str | Path, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `state` and `facts` as safetensors: beside, then renamed, so that `path` is never half a file.

    The same tensors and facts give the same bytes, whatever their order and memory layout. `facts` are plain
    JSON data with string keys.

    Raises WeightsError where the file cannot be written.
    """
    path = Path(path)
    # One metadata entry only: safetensors keeps several in no fixed order.
    metadata = {"facts": json.dumps(dict(facts), sort_keys=True, allow_nan=False)}
    # A copy each: safetensors refuses tensors that share memory, and means row-major order.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    content = format_safetensors(tensors, metadata)
    try:
        write_whole(path, content)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror}); give another place") from error


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load `state` into `module`, every key and every shape; `what` names the network in the message.

    Raises WeightsError that counts what is missing, unexpected or of another shape, with the first of each;
    `module` is then unchanged.
    """
    expected = module.state_dict()
    problems = [
        f"{len(keys)} {complaint} (first {keys[0]})"
        for complaint, keys in (
            ("keys missing", [key for key in expected if key not in state]),
            ("keys unexpected", [key for key in state if key not in expected]),
        )
        if keys
    ]
    reshaped = [key for key in expected if key in state and state[key].shape != expected[key].shape]
    if reshaped:
        first = reshaped[0]
        problems.append(
            f"{len(reshaped)} of another shape (first {first}: {tuple(state[first].shape)}, "
            f"expected {tuple(expected[first].shape)})"
        )
    if problems:
        raise WeightsError(f"weights do not fit {what}: {'; '.join(problems)}; are they of another network?")
    module.load_state_dict(state, strict=True)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file") from None
    except IsADirectoryError:
        raise WeightsError(f"{path}: is a folder; name the weights file in it") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    if not content:
        raise WeightsError(f"{path}: is empty; download or write it again")
    if is_lfs_pointer(path):
        raise WeightsError(f"{path}: a Git LFS pointer, not the weights themselves; run git lfs pull")
    return content


def _safetensors(path: Path, content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Layout of the format: header length (uint64, little endian), JSON header, tensor bytes."""
    try:
        state = parse_safetensors(content)
        (header_bytes,) = struct.unpack_from("<Q", content)
        metadata = json.loads(content[8 : 8 + header_bytes]).get("__metadata__", {})
        facts = json.loads(metadata.get("facts", "{}"))
    except (SafetensorError, ValueError) as error:
        raise WeightsError(f"{path}: damaged or cut short ({_line(error)}); download or write it again") from error
    if not isinstance(facts, dict):
        raise WeightsError(f"{path}: its facts are not a JSON object; was it written by another tool?")
    return state, facts


def _unpickled(path: Path, content: bytes) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickle protocols before it fails or succeeds
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise WeightsError(f"{path}: not a weights file, or damaged; download or write it again") from error
        raise WeightsError(
            f"{path}: refused, since reading it would run {wanted[1]}; save its state dict alone and use that"
        ) from error
    except Exception as error:  # whatever torch's parsers raise: RuntimeError, EOFError, KeyError, ...
        raise WeightsError(f"{path}: damaged or cut short ({_line(error)}); download or write it again") from error


def _state_dict(path: Path, checkpoint: Any) -> dict[str, Tensor]:
    if not isinstance(checkpoint, Mapping):
        raise WeightsError(f"{path}: holds a {type(checkpoint).__name__}; expected a network's state dict")
    state = _tensors(checkpoint)
    if not state:
        inside = [_tensors(checkpoint[key]) for key in STATE_KEYS if isinstance(checkpoint.get(key), Mapping)]
        state = next((tensors for tensors in inside if tensors), {})
    if not state:
        found = ", ".join(sorted(map(str, checkpoint))[:5]) or "nothing"
        raise WeightsError(f"{path}: holds no tensors (found: {found}); expected one of {', '.join(STATE_KEYS)}")
    if all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {str(name): value.detach() for name, value in values.items() if isinstance(value, Tensor)}


def _line(error: Exception) -> str:
    """The first line of an error, short enough to stand inside another one."""
    return (str(error) or type(error).__name__).splitlines()[0][:120]
