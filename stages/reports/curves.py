"""Curves of a training as plain geometry, which the page's template draws as inline SVG.

Small multiples: every term of the loss has a panel of its own and all have the same axes, so that heights can be
compared. Losses span decades, so the axis is logarithmic where the largest figure is ten times the smallest. Cost:
nothing; the page's size grows by some 15 bytes a point, and more than `POINTS` of them are thinned out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tinyhd_pipe.stages.reports.axes import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Point, Scale, Tick
from tinyhd_pipe.stages.reports.words import figure
from tinyhd_pipe.stages.training.history import EpochReport

POINTS = 400


@dataclass(frozen=True)
class Line:
    """One series of a panel."""

    name: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """As SVG's `points`."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)


@dataclass(frozen=True)
class Panel:
    """A small chart of one term over epochs."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    best: float | None
    """Where the epoch lies whose weights were kept."""
    last: str
    """The last figure of each line, in words."""
    width: int = WIDTH
    height: int = HEIGHT


def panels(history: Sequence[EpochReport], best_epoch: int | None) -> list[Panel]:
    """A panel for every term of the loss, and one for the learning rate; none of an empty history."""
    if not history:
        return []
    epochs = Scale(1, max(len(history), 2), LEFT, WIDTH - RIGHT)
    names = dict.fromkeys(name for epoch in history for name in (*epoch.loss, *(epoch.validation or {})))
    learned = {name: [(e.epoch + 1, e.loss[name]) for e in history if name in e.loss] for name in names}
    left_out = {
        name: [(e.epoch + 1, e.validation[name]) for e in history if e.validation and name in e.validation]
        for name in names
    }
    figures = [value for of in (learned, left_out) for points in of.values() for _, value in points if value > 0]
    scale = _axis(figures)
    best = epochs(best_epoch + 1) if best_epoch is not None else None
    drawn = [
        _panel(name, {"learned": learned[name], "left out": left_out[name]}, epochs, scale, best)
        for name in sorted(names, key=lambda name: (name != "density", name != "final", name))
    ]
    rates = [(epoch.epoch + 1, epoch.learning_rate) for epoch in history]
    rate_scale = Scale(0.0, max(value for _, value in rates) or 1.0, HEIGHT - BOTTOM, TOP)
    rate = _panel("learning rate", {"rate": rates}, epochs, rate_scale, best)
    return [*drawn, replace(rate, last=f"from {rates[0][1]:.2g} to {rates[-1][1]:.2g}")]


def _panel(name: str, series: Mapping[str, Sequence[Point]], epochs: Scale, scale: Scale, best: float | None) -> Panel:
    lines = tuple(
        Line(of, tuple((epochs(x), scale(y)) for x, y in _thinned(points))) for of, points in series.items() if points
    )
    told = ", ".join(f"{of} {figure(points[-1][1])}" for of, points in series.items() if points)
    return Panel(
        title=name.replace("_", " "),
        lines=lines,
        x_ticks=tuple(Tick(epochs(value), f"{value:.0f}") for value in epochs.ticks(5)),
        y_ticks=tuple(Tick(scale(value), f"{value:g}") for value in scale.ticks()),
        best=best,
        last=told,
    )


def _axis(figures: Sequence[float]) -> Scale:
    """One axis for all terms."""
    low, high = (min(figures), max(figures)) if figures else (0.0, 1.0)
    if high > 10 * low:
        return Scale(low * 0.9, high * 1.1, HEIGHT - BOTTOM, TOP, is_log=True)
    return Scale(0.0, high * 1.05, HEIGHT - BOTTOM, TOP)


def _thinned(points: Sequence[Point]) -> Sequence[Point]:
    """At most `POINTS` of them, the last among them."""
    every = -(-len(points) // POINTS)
    return [*points[:-1:every], points[-1]]
