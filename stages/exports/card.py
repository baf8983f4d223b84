"""The model card of a network, and the folder that a model hub expects: what it is, what it costs, under which terms.

Everything in a card comes from the weights file's own facts, from the network itself and from an evaluation that is
given; what none of them says is said to be unknown. The text stands in card.md, which Hugging Face's own library fills
in and whose head it writes.

The decision that is not obvious: terms are given as one identifier of the hub's list where all sources have one or the
strictest is clear, and as `other` wherever any of them states none; a student of HD2S inherits CC BY-NC. Nothing is
uploaded, and no address is asked. Cost: one window of the network, to count its operations.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from tinyhd_pipe.stages.exports.facts import window_in_words
from tinyhd_pipe.stages.exports.metrics_files import Metrics
from tinyhd_pipe.stages.exports.packages import needed
from tinyhd_pipe.stages.networks.licence import AND, PUBLISHED
from tinyhd_pipe.stages.networks.network import Network, as_published
from tinyhd_pipe.stages.networks.weights import Weights, write_weights
from tinyhd_pipe.stages.video.clips import WINDOW
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.whole_file import write_whole

TEMPLATE = Path(__file__).parent / "card.md"
IDENTIFIERS = {
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC0-1.0": "cc0-1.0",
    "CC0 1.0": "cc0-1.0",
    "Apache-2.0": "apache-2.0",
    "BSD-3-Clause": "bsd-3-clause",
    "MIT": "mit",
}
"""How terms begin, and what the hub calls them."""
PERMISSIVE = frozenset({"apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "mit"})
"""Terms beside which those of another source hold for the whole."""
HUB_WEIGHTS, HUB_FACTS, HUB_CARD = "model.safetensors", "config.json", "README.md"


@dataclass(frozen=True)
class Described:
    """What a card is written of."""

    name: str
    network: Network
    weights: Weights
    """The file that the network was loaded from."""
    facts: Mapping[str, Any]
    """Of the exported file (exports/facts.py)."""
    files: tuple[Path, ...]
    """What was exported."""
    checked: str
    """How near the exported file's maps are, as a sentence."""
    metrics: Metrics | None = None


@dataclass(frozen=True)
class Terms:
    """The terms of a network as the hub lists them."""

    licence: str
    """An identifier of its list, or `other`."""
    name: str | None
    """What `other` is."""
    in_words: str


def terms_of(licence: str) -> Terms:
    """What a `licence` fact means for whoever takes the network away."""
    each = licence.split(AND)
    known = {one: next((IDENTIFIERS[start] for start in IDENTIFIERS if _begins(one, start)), None) for one in each}
    strict = {identifier for identifier in known.values() if identifier not in PERMISSIVE}
    taught_by_hd2s = PUBLISHED["tinyhd"] in each
    non_commercial = taught_by_hd2s or any(identifier and "-nc" in identifier for identifier in strict)
    words = []
    if non_commercial:
        words.append(
            "**Not for commercial use.** Terms follow the weights: a network that was made of another one's weights or "
            "maps inherits them, so what is made of this one is non-commercial, too."
        )
    if taught_by_hd2s:
        words.append("The published TinyHD students were taught by HD2S, whose code and weights are CC BY-NC 4.0.")
    if None in strict:
        unstated = [one for one, identifier in known.items() if identifier is None]
        words.append(
            f"For {' and '.join(unstated)} there are no terms that we know: without any, all rights are reserved. "
            "Ask the owner before handing this on."
        )
    words.append("The videos and recordings that it learned from have terms of their own.")
    if None in strict or len(strict) > 1:
        return Terms("other", "non-commercial-see-card" if non_commercial else "see-card", " ".join(words))
    return Terms(next(iter(strict), None) or str(known[each[0]]), None, " ".join(words))


def gflop_of(network: Network) -> float:
    """Thousands of millions of operations for one window, as torch counts those of convolutions: a multiplication and
    an addition are two."""
    y, x = network.scaling.size
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        as_published(network).module(torch.zeros(1, 3, WINDOW, y, x))
    return float(counter.get_total_flops()) / 1e9


def card_of(described: Described, *, weights: str, files: Sequence[tuple[str, str]] | None = None) -> str:
    """The card as Markdown with a head of YAML.

    Arguments:
        weights: the weights file, as the card's readers will call it.
        files: (name, what it is) of what lies beside the card; what was exported by default.

    Raises SettingError where huggingface_hub is missing.
    """
    hub = needed("huggingface_hub", "a model card")
    network, facts = described.network, described.weights.facts
    licence = str(network.facts["licence"])
    terms = terms_of(licence)
    student = network.kind == "tinyhd"
    card = hub.ModelCard.from_template(
        hub.ModelCardData(
            license=terms.licence,
            license_name=terms.name,
            library_name="tinyhd-pipe",
            tags=["video-saliency", "saliency-prediction", "eye-fixation", *(["knowledge-distillation"] * student)],
            model_name=described.name,
            eval_results=_eval_results(hub, described.metrics),
        ),
        template_path=str(TEMPLATE),
        name=described.name,
        summary=_summary(network, facts),
        licence=licence,
        terms=terms.in_words,
        network=_network_rows(described),
        files=files or [(path.name, _size(path)) for path in described.files],
        checked=described.checked,
        weights=weights,
        kind_option="" if student else f" --teacher {network.kind}",
        loader="load_student" if student else "load_teacher",
        loaded=f'"{weights}"' if student else f'"{network.kind}", weights="{weights}"',
        input=_input_in_words(described.facts),
        learned=_learned(facts),
        figures=_figures(described.metrics, weights),
    )
    return str(card)


def write_card(described: Described, path: Path, *, weights: str) -> Path:
    """Leave the card beside what was exported. Raises as `card_of`, OSError where it cannot be written."""
    write_whole(path, card_of(described, weights=weights).encode())
    return path


def check_hub_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises SettingError where a hub folder cannot be laid out there."""
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"--hub-folder {folder}: is a file; give a folder")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise SettingError(f"--hub-folder {folder}: is not empty; give another one, or --overwrite")


def lay_out(described: Described, folder: Path, facts: Mapping[str, Any]) -> tuple[Path, ...]:
    """Lay out a folder as the hub expects it: card, weights with their facts, what the network is, what was exported.

    Arguments:
        facts: what the weights file says, or what can be said of it (exports/published.py).

    Raises as `write_card`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / HUB_WEIGHTS, described.weights.state, facts)
    write_whole(folder / HUB_FACTS, (json.dumps(described.facts, indent=2, sort_keys=True) + "\n").encode())
    for path in described.files:
        write_whole(folder / path.name, path.read_bytes())
    files = [
        (HUB_WEIGHTS, f"weights for this package, with their facts; {_size(folder / HUB_WEIGHTS)}"),
        (HUB_FACTS, "what the network takes and gives"),
        *((path.name, _size(path)) for path in described.files),
    ]
    write_whole(folder / HUB_CARD, card_of(described, weights=HUB_WEIGHTS, files=files).encode())
    return tuple(folder / name for name in (HUB_CARD, *(name for name, _ in files)))


def _begins(terms: str, start: str) -> bool:
    return re.match(rf"{re.escape(start)}(?![\w.-])", terms) is not None


def _summary(network: Network, facts: Mapping[str, Any]) -> str:
    what = "where people look in each frame of a video, as one map in [0, 1] for a frame"
    if network.kind == "hd2s":
        return f"HD2S, a video-saliency network: {what}."
    taught = _teachers(facts)
    learned = f", distilled from {' and '.join(sorted(set(taught)))}" if taught else ""
    return f"A TinyHD student{learned}: {what}."


def _network_rows(described: Described) -> list[tuple[str, str]]:
    network, facts = described.network, described.facts
    topology, gflop = facts["topology"], gflop_of(described.network)
    y, x = network.scaling.size
    answered = network.outputs
    if network.kind == "hd2s":
        rows = [("network", f"HD2S of width {topology['width']:g}")]
    else:
        alone = ", D1 one for the clip" if answered > 1 and topology["d1_outputs"] == 1 else ""
        rows = [
            ("network", f"TinyHD, {'M' if answered > 1 else 'S'}"),
            ("decoders", " ".join(topology["decoders"])),
            ("channel reduction", str(topology["reduction"])),
            ("maps of a window", f"{answered}{alone}"),
        ]
    parameters = sum(parameter.numel() for parameter in network.module.parameters())
    return [
        *rows,
        ("parameters", f"{parameters / 1e6:.2f} million"),
        ("GFLOP", f"{gflop:.2f} a window of {WINDOW} frames, {gflop / answered:.3g} a frame"),
        ("input", f"{WINDOW} RGB frames of {y}x{x} (y, x)"),
        *_in_8_bits(facts.get("int8")),
        ("SHA-256 of the weights", f"`{described.weights.sha256}`"),
    ]


def _in_8_bits(loss: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What 8 bits cost, of a file that computes in them."""
    if loss is None:
        return []
    return [
        (
            "8 bits cost",
            f"KL {loss['kl']:.4f} nats (mean of final maps; largest {loss['worst_kl']:.4f}), CC {loss['cc']:.4f}, NSS "
            f"{loss['nss']:.2f} for {loss['nss_float32']:.2f}, on {loss['windows']} windows not calibrated on",
        )
    ]


def _input_in_words(facts: Mapping[str, Any]) -> str:
    taken = facts["input"]
    shape = ", ".join(map(str, taken["shape"]))
    scaled = (
        "scaled inside"
        if taken["preprocessing"] == "inside"
        else f"resized ({taken['resize']}) and scaled as (pixel - {taken['mean']}) / {taken['std']}"
    )
    return (
        f"`{taken['name']}` is {taken['dtype']} ({shape}), axes {taken['axes']}, {taken['colours']}, {scaled}; "
        f"{window_in_words(facts)}. The file itself says all of this."
    )


def _teachers(facts: Mapping[str, Any]) -> list[str]:
    """The teachers' kinds, as people know them."""
    teacher = facts.get("teacher") or {}
    each = teacher.get("fused", [teacher]) if isinstance(teacher, dict) else []
    kinds = {"hd2s": "HD2S", "tinyhd": "a TinyHD network"}
    return [kinds.get(one["kind"], str(one["kind"])) for one in each if "kind" in one]


def _learned(facts: Mapping[str, Any]) -> list[str]:
    if "recipe" not in facts:
        return ["The weights file does not say what it learned from."]
    lines = []
    teacher = facts.get("teacher") or {}
    for name, one in zip(_teachers(facts), teacher.get("fused", [teacher]), strict=False):
        lines.append(f"Maps of {name}, weights `{str(one.get('weights_sha256'))[:12]}`.")
    videos = facts.get("learned_from", [])
    count = videos if isinstance(videos, str) else f"{len(videos)} videos"
    digest = facts.get("videos_sha256")
    lines.append(f"{count}{f', by digest `{str(digest)[:12]}`' if digest else ''}.")
    if start := facts.get("encoder_weights_sha256"):
        lines.append(f"Its encoder started from the weights `{str(start)[:12]}`.")
    told = {name: value for name, value in facts["recipe"].items() if value not in (None, [], {})}
    lines.append(f"Recipe: {', '.join(f'{name} {_plain(value)}' for name, value in told.items())}.")
    return [*lines, f"Code: tinyhd-pipe {facts.get('code', 'of an unknown version')}."]


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _figures(metrics: Metrics | None, weights: str) -> str:
    if metrics is None:
        return (
            f"No evaluation was given. `tinyhd-pipe evaluate --weights {weights} --data DIR --json` makes one, and "
            "`export --metrics` writes it here."
        )
    names = list(metrics.rows[metrics.row])
    lines = [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for row, figures in metrics.rows.items():
        shown = [f"{value:.3f}" if (value := figures.get(name)) is not None else "–" for name in names]
        title = f"**{row}** (this network)" if row == metrics.row else row
        lines.append(f"| {title} | {' | '.join(shown)} |")
    return "\n".join([*lines, "", _protocol(metrics)])


def _protocol(metrics: Metrics) -> str:
    if metrics.protocol is None:
        return "The file does not say by which protocol, or on what."
    of = f"{metrics.videos} videos, {metrics.frames:,} frames" if metrics.frames else "videos that are not counted"
    by = f"Protocol {metrics.protocol}, postprocessing {metrics.postprocessing}"
    return f"{by}; {of}. Every row is over the same frames."


def _eval_results(hub: Any, metrics: Metrics | None) -> list[Any] | None:
    if metrics is None:
        return None
    named = {"protocol": metrics.protocol, "postprocessing": metrics.postprocessing, "frames": metrics.frames}
    return [
        hub.EvalResult(
            task_type="video-saliency-prediction",
            dataset_type="unnamed",
            dataset_name=f"{metrics.videos or 'some'} videos with recorded gaze",
            metric_type=re.sub(r"\W+", "-", metric).lower(),
            metric_name=metric,
            metric_value=round(value, 6),
            metric_args={name: fact for name, fact in named.items() if fact is not None},
        )
        for metric, value in metrics.rows[metrics.row].items()
        if value is not None and value == value
    ]


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"
