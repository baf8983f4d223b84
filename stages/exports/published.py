"""What a weights file is: the facts of ours, and those that can be said of a published one; and how that is written.

A published file says nothing of itself: what it is shows in its keys and shapes, or does not show at all. The decision
that is not obvious: facts are given only if the whole network loads from the file, every key and every shape, so that
nothing is called TinyHD or HD2S that is not. Cost: one network beside the tensors.
"""

import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyhd_pipe.stages.networks.hd2s import FUSION_ORDER, HD2S
from tinyhd_pipe.stages.networks.licence import licence_of
from tinyhd_pipe.stages.networks.network import Kind, Unshown, scaling_for
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import Weights
from tinyhd_pipe.store.errors import SettingError, WeightsError
from tinyhd_pipe.store.whole_file import write_whole

FIRST_KEYS: dict[Kind, str] = {"hd2s": "featureExtractor.", "tinyhd": "encoder.encoder."}
"""How the keys of a network begin that no other one has."""
WITHIN: dict[Kind, str | None] = {"hd2s": None, "tinyhd": "student_model"}
"""Below which name the published file has its state dict."""
SIZE = (192, 256)
"""(y, x) at which both networks were published for TinyHD; a published file does not say it."""


def kind_of(file: Path, read: Weights) -> Kind:
    """Which network a file holds, by its keys. Raises WeightsError where it is neither."""
    for kind, beginning in FIRST_KEYS.items():
        if any(name.startswith(beginning) for name in read.state):
            return kind
    raise WeightsError(f"{file}: neither TinyHD nor HD2S (its first key is {next(iter(read.state))}); give one of them")


def facts_of_file(file: Path, read: Weights, kind: Kind, unshown: Unshown) -> tuple[dict[str, Any], HD2S | TinyHD]:
    """What the file says of itself or, where it says nothing, what is to be said of it; and its network.

    The facts of a file of ours are kept as they are, and options must not say otherwise.

    Raises WeightsError where the network does not load from the file, SettingError for options that contradict it.
    """
    if kind == "hd2s" and unshown != Unshown():
        raise SettingError(f"{file}: holds HD2S, whose keys show all of it; d1_outputs and fusion_order are TinyHD's")
    try:
        module = HD2S.from_state_dict(read.state) if kind == "hd2s" else _student(read, unshown)
    except WeightsError as error:
        raise WeightsError(f"{file}: {error}") from error
    licence = licence_of(kind, read, width=module.width if isinstance(module, HD2S) else 1.0)
    shown = {"kind": kind, **_topology(module)}
    said = read.facts or {
        "size": list(SIZE),
        "preprocessing": scaling_for(kind, SIZE).facts(),
        "taken_from_sha256": read.sha256,
        "code": version("tinyhd-pipe"),
    }
    return {**shown, **said, "licence": licence}, module


def published_order(kind: Kind, module: HD2S | TinyHD) -> list[str]:
    """The keys of a network in the order in which the published file has them."""
    names = list(module.state_dict())
    return names if kind == "tinyhd" else sorted(names, key=_place_in_hd2s)


def write_published(path: Path, kind: Kind, state: dict[str, Tensor]) -> None:
    """Write a state dict as the published files of that kind are; torch's zip format, read with `weights_only=True`.

    The same tensors give the same bytes. Raises WeightsError where the file cannot be written.
    """
    # A copy each: torch writes the whole memory that a tensor is a part of.
    own = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    within = WITHIN[kind]
    packed = io.BytesIO()
    torch.save(own if within is None else {within: own}, packed)
    try:
        write_whole(path, packed.getvalue())
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written ({error.strerror}); give another place") from error


def _place_in_hd2s(name: str) -> int:
    """The encoder, then head and decoder of each level, deepest first as they enter the fusion, then the fusion."""
    part = name.partition(".")[0]
    level = next((int(sign) for sign in part if sign.isdigit()), None)
    if level is not None:
        return 1 + FUSION_ORDER.index(level)
    return 0 if part == "featureExtractor" else 1 + len(FUSION_ORDER)


def _topology(module: HD2S | TinyHD) -> dict[str, Any]:
    if isinstance(module, HD2S):
        return {"width": module.width}
    return {
        "decoders": list(module.decoders),
        "reduction": module.reduction,
        "outputs": module.outputs,
        "d1_outputs": module.d1_outputs,
        "fusion_order": list(module.fusion_order),
    }


def _student(read: Weights, unshown: Unshown) -> TinyHD:
    for name, asked in (("d1_outputs", unshown.d1_outputs), ("fusion_order", unshown.fusion_order)):
        said = read.facts.get(name)
        if asked is not None and said is not None and (list(asked) if isinstance(asked, tuple) else asked) != said:
            raise SettingError(f"{name} {asked}: the file itself says {said}; leave it out")
    return TinyHD.from_state_dict(
        read.state,
        d1_outputs=unshown.d1_outputs or read.facts.get("d1_outputs", 1),
        fusion_order=unshown.fusion_order or read.facts.get("fusion_order"),
    )
