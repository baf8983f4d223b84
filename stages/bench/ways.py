"""Ways to do the same, timed in turn: what a benchmark says of each of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Way:
    """One way, over several rounds."""

    name: str
    frames_a_second: float
    """Median over the rounds; a frame is all that is made of it, be it five maps or eight metrics."""
    spread: float
    """(fastest - slowest) / median over the rounds."""
    ratio: float
    """How many times as fast as the way that all are compared with: median of the ratios within a round."""


def way_of(name: str, speeds: Sequence[float], base: Sequence[float]) -> Way:
    """A way by its frames a second in each round, and those of the way that it is compared with."""
    median = float(np.median(speeds))
    return Way(name, median, (max(speeds) - min(speeds)) / median, float(np.median(np.divide(speeds, base))))


def in_turn(
    ways: Mapping[str, Callable[[], float]], rounds: int, report: Callable[[int, int, str], None]
) -> dict[str, list[float]]:
    """Frames a second of every way in each round, all timed in turn: a machine that is busy for a while is unfair to
    none of them alone.

    `report` is told (steps done, steps in all, what comes next), where comparing maps was the first step.
    """
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for done in range(rounds):
        for name, way in ways.items():
            report(done + 1, rounds + 1, f"round {done + 1}: {name}")
            speeds[name].append(way())
    report(rounds + 1, rounds + 1, "")
    return speeds
