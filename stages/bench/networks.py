"""What layout and precision are worth on this machine: equal answers are asserted first, then times are compared.

All variants are timed in turn, several rounds in one run, so that a machine that is busy for a while is unfair to
none of them. Ratios are what to look at; absolute times are this machine's.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.dump.fidelity import kl_of
from tinyhd_pipe.stages.networks.network import Network, Precision, Size, as_published, load_teacher, precision_by_rule
from tinyhd_pipe.stages.networks.precision import Choice
from tinyhd_pipe.stages.video.clips import WINDOW
from tinyhd_pipe.store.errors import TinyHDError

ROUNDS = 5
FLOAT32_TOLERANCE = 1e-4
"""Largest difference between maps in two layouts."""
BFLOAT16_KL = 5e-4
"""Largest mean KL(float32 ‖ bfloat16), nats."""
CLEARLY = 0.75
"""Share of its float32 time in which a window must be done for bfloat16 to be advised: less is within the noise."""


@dataclass(frozen=True)
class Variant:
    """One way to run the same network."""

    name: str
    seconds: float
    """Median time of one window."""
    spread: float
    """(slowest - fastest) / median over the rounds."""
    ratio: float
    """How many times as fast as the first variant."""
    kl: float
    """Mean KL(first variant ‖ this one) over all levels, nats."""


@dataclass(frozen=True)
class Benchmark:
    """A comparison, and what it was made on."""

    variants: tuple[Variant, ...]
    agree: bool
    """Whether every variant gives the maps of the first one, within the bounds above."""
    by_rule: Choice
    """What `auto` takes on this machine."""
    advice: str
    """One line where the times would have it otherwise, for a new store; empty where rule and times agree."""
    machine: Mapping[str, str]


def bench_networks(
    kind: str,
    weights: Path,
    clip: np.ndarray,
    *,
    size: Size | None = None,
    device: str = "cpu",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Benchmark:
    """Compare contiguous float32 (as published), channels-last float32 and channels-last bfloat16.

    Arguments:
        clip: 16 RGB frames, uint8 (frame, y, x, 3).

    Raises TinyHDError when the two float32 layouts do not give the same maps: then no time is worth a look. Reduced
    precision is judged on trained weights only; where it does not agree, the result says so.
    """
    variants: list[tuple[str, Precision, bool]] = [
        ("float32, contiguous", "float32", False),
        ("float32, channels-last", "float32", True),
        ("bfloat16, channels-last", "bfloat16", True),
    ]
    load = partial(load_teacher, kind, weights=weights, size=size, device=device)
    networks = {
        name: load(precision=precision) if fast else as_published(load(precision=precision))
        for name, precision, fast in variants
    }
    maps = {name: network(network.preprocess(clip[:WINDOW])) for name, network in networks.items()}
    first, second = (maps[name] for name, _, _ in variants[:2])
    worst = max(float((first[level] - second[level]).abs().max()) for level in first)
    if worst > FLOAT32_TOLERANCE:
        raise TinyHDError(f"{weights}: maps differ by {worst:.1e} between layouts, expected {FLOAT32_TOLERANCE:g}")
    costs = {name: _kl(first, answer) for name, answer in maps.items()}
    seconds = _timed(networks, clip, report)
    base = float(np.median(seconds[variants[0][0]]))
    found = tuple(_variant(name, seconds[name], base, costs[name]) for name, _, _ in variants)
    agree = costs[variants[2][0]] <= BFLOAT16_KL
    choice = precision_by_rule(networks[variants[0][0]].module, device)
    return Benchmark(
        variants=found,
        agree=agree,
        by_rule=choice,
        advice=advice(choice.precision, found[2].seconds / found[1].seconds, agree=agree),
        machine=machine(device),
    )


def advice(chosen: Precision, share: float, *, agree: bool) -> str:
    """Where another precision than the chosen one would be faster: one line, else nothing.

    Arguments:
        share: time of a window in bfloat16 as a share of its time in float32.
        agree: whether bfloat16 keeps the maps; it is not advised otherwise.
    """
    if chosen == "float32" and share < CLEARLY and agree:
        better, found = "bfloat16", f"takes {share:.2f} of the time"
    elif chosen == "bfloat16" and share > 1:
        better, found = "float32", f"takes {1 / share:.2f} of the time"
    else:
        return ""
    return f"{better} {found} here: for a new store, teacher_dump.precision={better} may be worth setting"


def _kl(live: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    return float(
        np.mean(
            [
                kl_of(
                    live[level].cpu().logit(1e-7).reshape(-1, *live[level].shape[-2:]),
                    other[level].cpu().logit(1e-7).reshape(-1, *live[level].shape[-2:]),
                    (live[level].shape[-2], live[level].shape[-1]),
                )
                for level in live
            ]
        )
    )


def _timed(
    networks: Mapping[str, Network], clip: np.ndarray, report: Callable[[int, int], None]
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for done in range(ROUNDS):
        for name, network in networks.items():
            window = network.preprocess(clip[:WINDOW])
            started = time.perf_counter()
            network(window)["final"].cpu()
            seconds[name].append(time.perf_counter() - started)
        report(done + 1, ROUNDS)
    return seconds


def _variant(name: str, seconds: list[float], base: float, kl: float) -> Variant:
    median = float(np.median(seconds))
    return Variant(name, median, (max(seconds) - min(seconds)) / median, base / median, kl)
