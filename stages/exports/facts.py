"""What an exported file says of itself, so that whoever runs it needs nothing else: plain data, JSON in the file.

    version            of these facts, 1
    kind, topology     tinyhd: decoders, reduction, outputs, d1_outputs, fusion_order; hd2s: width
    input              name, dtype, axes, shape, colours, mean, std, resize
    window             frames, stride; which frames of it are answered; how the head of a video is made
    outputs            for each: name, axes, and the frames of the window that its maps answer for
    values             probabilities: in [0, 1], each pixel by itself; they do not sum to 1
    weights_sha256, licence, size, precision, versions

The decision that is not obvious: a map belongs to frames by their place in the window, counted from 0, in the order in
which the window is fed; an output without an axis T that names 16 frames has one map for all of them. Cost: 2 kB.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from tinyhd_pipe.stages.exports.graph import Graph
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.video.clips import WINDOW
from tinyhd_pipe.store.errors import WeightsError

KEY = "tinyhd_pipe"
"""Under this name the facts stand in a file's metadata."""
VERSION = 1
HEADS = {
    "repeat": "frame 0 repeats before the start of the video",
    "reverse": "the first 15 frames see the window that begins with them, reversed in time",
}
"""How the head of a video is made, where no whole window lies behind a frame."""


def facts_of(
    network: Network, graph: Graph, answers: Sequence[Tensor], *, versions: Mapping[str, str]
) -> dict[str, Any]:
    """The facts of a graph.

    Arguments:
        answers: what the graph gave for some input, in the order of its levels.
        versions: of what wrote the file, beside our own and torch's.
    """
    repeats = network.kind == "tinyhd"
    return {
        "version": VERSION,
        "kind": network.kind,
        "topology": _topology(network),
        "input": _input(graph),
        "window": {
            "frames": WINDOW,
            "stride": network.outputs,
            "answers": _answered(network.outputs),
            "head": "repeat" if repeats else "reverse",
            "head_in_words": HEADS["repeat" if repeats else "reverse"],
            # As published, the first window of 16 outputs ends at frame 0 and the next at 16; it answers for 1 to 16.
            "first_ends_at": 0,
        },
        "outputs": [
            {
                "name": level,
                "axes": "B T Y X" if maps.ndim == 4 else "B Y X",
                "frames": _answered(network.outputs),
            }
            for level, maps in zip(graph.levels, answers, strict=True)
        ],
        "values": "probabilities",
        "size": list(network.scaling.size),
        "precision": "float32",
        "weights_sha256": network.facts.get("weights_sha256"),
        "licence": network.facts.get("licence"),
        "versions": {"tinyhd-pipe": version("tinyhd-pipe"), "torch": torch.__version__, **versions},
    }


def window_in_words(facts: Mapping[str, Any]) -> str:
    """How often a window is given, and what the first one of a video sees."""
    window = facts["window"]
    often = "for every frame" if window["stride"] == 1 else f"every {window['stride']} frames"
    return f"a window {often}; the head: {window['head_in_words']}"


def as_text(facts: Mapping[str, Any]) -> str:
    """The facts as they are written into a file."""
    return json.dumps(facts, sort_keys=True, allow_nan=False)


def from_text(text: str | None, path: object) -> dict[str, Any]:
    """The facts of a file. Raises WeightsError where it has none, or of a version that is not known here."""
    try:
        facts = json.loads(text or "")
    except ValueError as error:
        raise WeightsError(f"{path}: says nothing of itself under {KEY!r}; give a file that export has made") from error
    if not isinstance(facts, dict) or facts.get("version") != VERSION:
        found = facts.get("version") if isinstance(facts, dict) else facts
        raise WeightsError(f"{path}: its facts are of version {found}, not {VERSION}; export it again")
    return facts


def _topology(network: Network) -> dict[str, Any]:
    module = network.module
    if isinstance(module, HD2S):
        return {"width": module.width}
    unshown = {"d1_outputs": module.d1_outputs, "fusion_order": list(module.fusion_order)}
    return {**asdict(module.topology), "decoders": list(module.decoders), **unshown}


def _input(graph: Graph) -> dict[str, Any]:
    scaling, (y, x) = graph.scaling, graph.scaling.size
    shape = ["B", WINDOW, "Y", "X", 3] if graph.takes_frames else ["B", 3, WINDOW, y, x]
    return {
        "name": graph.input_name,
        "dtype": "uint8" if graph.takes_frames else "float32",
        "axes": "B T Y X C" if graph.takes_frames else "B C T Y X",
        "shape": shape,
        "colours": "RGB",
        # What is done to a pixel of 0 to 255 after the resize; it is in the graph where that takes frames.
        "mean": list(scaling.mean),
        "std": list(scaling.std),
        "resize": "bilinear, half-pixel centres, no antialiasing",
        "preprocessing": "inside" if graph.takes_frames else "outside",
    }


def _answered(outputs: int) -> list[int]:
    return list(range(WINDOW - outputs, WINDOW))
