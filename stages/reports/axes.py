"""Axes of small charts: from figures to places in the units of a viewBox, and round numbers along them."""

import math
from dataclasses import dataclass
from itertools import pairwise

from tinyhd_pipe.stages.reports.words import figure

WIDTH, HEIGHT = 320, 170
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 24
"""Size and margins of a chart, in the units of its viewBox: pixels of a screen where it is drawn at full width."""
Point = tuple[float, float]


@dataclass(frozen=True)
class Tick:
    """A number along an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Scale:
    """From figures to places."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (math.log(v) if self.is_log else v for v in (self.low, self.high, max(value, self.low)))
        return self.start + (at - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self, count: int = 4) -> list[float]:
        """Round numbers along it, some `count` of them; 1, 2 and 5 of each decade where it is logarithmic."""
        if not self.is_log:
            return round_ticks(self.low, self.high, count)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1,) if len(decades) > 4 else (1, 2, 5)
        found = [step * 10.0**decade for decade in decades for step in steps]
        return [value for value in found if self.low <= value <= self.high]


def tick_labels(values: list[float]) -> list[str]:
    """Round numbers with as many digits as tell them apart, two at least."""
    step = min((later - earlier for earlier, later in pairwise(values)), default=1.0)
    digits = max(2, math.ceil(-math.log10(step) - 1e-9))
    return [figure(value, digits) for value in values]


def round_ticks(low: float, high: float, count: int) -> list[float]:
    """At most about `count` round numbers from low to high."""
    rough = (high - low) / count or 1
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(step * place, 10) for place in range(first, math.floor(high / step + 1e-9) + 1)]
