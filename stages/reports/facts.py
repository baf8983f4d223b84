"""What was trained on what, in rows of a name and a fact: the network, its teachers, data, settings, code and terms.

All of it is what the weights file and `run.json` say of themselves; nothing is guessed, and a fact that is not known is
not in the rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tinyhd_pipe.stages.reports.places import Missing, RunFolder, as_text
from tinyhd_pipe.stages.reports.words import counted, duration, figure, size
from tinyhd_pipe.store.reader import Store

Row = tuple[str, str]
NOT_WEIGHTS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names of tensors that are no parameters."""


@dataclass(frozen=True)
class LevelRow:
    """A level of a store."""

    name: str
    grid: str
    step: str
    kl: str
    flip_error: str
    bytes: str


@dataclass(frozen=True)
class StoreFacts:
    """What a store holds, what that takes, and what storing it has cost in fidelity."""

    url: str
    rows: tuple[Row, ...]
    levels: tuple[LevelRow, ...]
    told: str


def parameters(run: RunFolder) -> int:
    """How many numbers the network has learned."""
    return sum(of.numel() for name, of in run.weights.state.items() if not name.endswith(NOT_WEIGHTS))


def network_name(run: RunFolder) -> str:
    """What the network is, in a few words."""
    facts = run.facts
    if run.is_student:
        kind = "S" if facts.get("outputs", 1) == 1 else "M"
        return f"TinyHD {kind}, channel reduction {facts.get('reduction', '?')}"
    width = facts.get("width", 1.0)
    return "HD2S" if width == 1.0 else f"HD2S, {width:g} of the published width"


def network_rows(run: RunFolder) -> list[Row]:
    """The network itself."""
    facts = run.facts
    rows = [("network", network_name(run))]
    if "decoders" in facts:
        rows.append(("decoders", ", ".join(name.upper() for name in facts["decoders"])))
    if "size" in facts:
        rows.append(("input", f"16 frames of {facts['size'][0]}×{facts['size'][1]} pixels"))
    rows.append(("parameters", f"{parameters(run):,}"))
    rows.append(("weights file", f"{size(run.bytes)}, SHA-256 {run.weights.sha256[:16]}…"))
    if "encoder_weights_sha256" in facts:
        start = facts["encoder_weights_sha256"]
        rows.append(("encoder began with", f"the weights file {start[:16]}…" if start else "random weights"))
    rows.append(("licence of the weights", str(facts.get("licence", "none stated"))))
    return rows


def teacher_rows(run: RunFolder) -> list[Row]:
    """Whom it learned from."""
    teacher = run.facts.get("teacher")
    if not run.is_student:
        return [("learned from", "density maps of where people looked")]
    if "teacher" not in run.facts:
        return [("learned from", "the weights file does not say")]
    if teacher is None:
        return [("learned from", "density maps of where people looked, no teacher")]
    teachers = teacher.get("fused", [teacher])
    return [
        ("teacher" if len(teachers) == 1 else f"teacher {place}", _teacher(of)) for place, of in enumerate(teachers, 1)
    ]


def _teacher(of: Mapping[str, Any]) -> str:
    digest = of.get("weights_sha256")
    told = [{"hd2s": "HD2S", "tinyhd": "TinyHD"}.get(str(of.get("kind")), str(of.get("kind")))]
    if grid := of.get("preprocessing", {}).get("size"):
        told.append(f"at {grid[0]}×{grid[1]}")
    told += [f"in {of['precision']}"] if "precision" in of else []
    return " ".join(told) + (f", weights {digest[:16]}…" if digest else "")


def data_rows(run: RunFolder) -> list[Row]:
    """What it learned on, by what code and where."""
    rows, record, learned = [], run.record, run.facts.get("learned_from")
    if record is not None and record.videos:
        unlabelled = record.videos - record.labelled
        rows.append(("videos learned from", f"{record.labelled:,} labelled, {unlabelled:,} without labels"))
        rows.append(("samples an epoch", f"{record.samples_an_epoch:,}"))
    elif isinstance(learned, list):
        rows.append(("videos learned from", f"{len(learned):,}"))
    elif learned:
        rows.append(("videos learned from", str(learned)))
    if record is not None:
        rows += [(option.replace("_", " "), ", ".join(paths)) for option, paths in record.given.items()]
    rows.append(("code", f"tinyhd-pipe {record.code if record else run.facts.get('code', 'of an unknown version')}"))
    if record is not None:
        rows.append(
            ("machine", f"{record.processor} ({record.device}), {record.threads} threads, torch {record.torch}")
        )
    return rows


def setting_rows(run: RunFolder) -> list[Row]:
    """The recipe, setting by setting."""
    recipe = run.facts.get("recipe", {})
    return [(name.replace("_", " "), as_text(value)) for name, value in sorted(recipe.items())]


def store_facts(stores: Sequence[Store] | Missing) -> list[StoreFacts] | Missing:
    """The same of each store, or why there is none to show."""
    return stores if isinstance(stores, Missing) else [_store_facts(store) for store in stores]


def _store_facts(store: Store) -> StoreFacts:
    info = store.info()
    measured, frames = info["fidelity"]["measured"], info["frames_with_maps"]
    grid = "×".join(map(str, info["teacher_grid"]))
    rows = [
        ("videos", f"{info['videos']:,}"),
        ("frames with maps", f"{frames:,}, {counted(len(store.levels), 'map')} each"),
        ("size", size(info["bytes"])),
        (f"the same as float16 at {grid}", f"{size(info['bytes_as_float16'])}, {_times(info)}"),
        ("licence of the maps", str(info["provenance"].get("licence", "none stated"))),
    ]
    if info["failed_frames"]:
        rows.append(("frames without a valid map", f"{info['failed_frames']:,}"))
    levels = [
        LevelRow(
            name=name.replace("_", " "),
            grid="×".join(map(str, level["grid"])),
            step=figure(level["scale_factor"]),
            kl=_nats(measured.get(name, {}).get("kl")),
            flip_error=_nats(measured.get(name, {}).get("flip_error")),
            bytes=f"{level['bytes'] / frames:,.0f}" if frames else "–",
        )
        for name, level in info["levels"].items()
    ]
    worst = max((of["kl"] for of in measured.values() if "kl" in of), default=None)
    budget = info["fidelity"]["budget"]
    told = f"Declared fidelity: storing costs a mean KL of at most {budget:g} nats on every level" + (
        f"; on the first videos of the dump it was at most {worst:.2g}." if worst is not None else "."
    )
    return StoreFacts(store.url, tuple(rows), tuple(levels), told)


def _times(info: Mapping[str, Any]) -> str:
    return f"{info['bytes_as_float16'] / info['bytes']:.0f} times as much" if info["bytes"] else "nothing is stored yet"


def _nats(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}".replace("e-0", "e−").replace("e+00", "")


def told_seconds(run: RunFolder) -> str | None:
    """How long the training was at work; None where that is not known."""
    return duration(run.record.seconds) if run.record is not None and run.record.seconds else None
