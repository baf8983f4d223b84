"""An evaluation as plain geometry, which the page's template draws as inline SVG: intervals, and videos one by one.

Every metric has a strip of its own, rows in the same places in all of them, so that one looks down a column to compare.
Cost: nothing; a dot of 700 videos takes 100 bytes of the page.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tinyhd_pipe.stages.gaze.figures import Evaluation
from tinyhd_pipe.stages.gaze.scoring import METRICS
from tinyhd_pipe.stages.reports.axes import BOTTOM, LEFT, RIGHT, TOP, WIDTH, Point, Scale, Tick, tick_labels
from tinyhd_pipe.stages.reports.words import figure

ROW = 24
"""Height of a row of a strip."""
LOWER_IS_BETTER = ("KLD", "saturated")


@dataclass(frozen=True)
class Mark:
    """A row's mean and its interval."""

    name: str
    y: float
    mean: float
    low: float | None
    high: float | None
    told: str
    is_own: bool


@dataclass(frozen=True)
class Strip:
    """One metric: every row's mean on one axis, with its interval."""

    metric: str
    better: str
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    height: int
    width: int = WIDTH


def strips(scored: Evaluation, own: str) -> list[Strip]:
    """A strip for every metric that exists; `own` is the row that the page is about."""
    return [
        _strip(scored, metric, own)
        for metric in METRICS
        if metric != "saturated" and any(math.isfinite(of[metric]) for of in scored.mean.values())
    ]


def _strip(scored: Evaluation, metric: str, own: str) -> Strip:
    means = {name: of[metric] for name, of in scored.mean.items() if math.isfinite(of[metric])}
    ends = {name: scored.intervals.get(name, {}).get(metric, (math.nan, math.nan)) for name in means}
    known = [value for name in means for value in (means[name], *ends[name]) if math.isfinite(value)]
    low, high = min(known), max(known)
    room = (high - low or 1) * 0.06
    scale = Scale(low - room, high + room, 112, WIDTH - RIGHT)
    marks, ticks = [], scale.ticks(5)
    for place, (name, mean) in enumerate(means.items()):
        start, end = (scale(bound) if math.isfinite(bound) else None for bound in ends[name])
        interval = f" [{figure(ends[name][0])}, {figure(ends[name][1])}]" if start is not None else ""
        told = f"{name}: {metric} {figure(mean)}{interval}"
        marks.append(Mark(_short(name), 16 + ROW * place, scale(mean), start, end, told, name == own))
    return Strip(
        metric=metric,
        better="lower is better" if metric in LOWER_IS_BETTER else "higher is better",
        marks=tuple(marks),
        ticks=tuple(Tick(scale(value), label) for value, label in zip(ticks, tick_labels(ticks), strict=True)),
        height=ROW * len(marks) + 26,
    )


def _short(name: str, longest: int = 17) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


@dataclass(frozen=True)
class Dot:
    """A video: how well each of two rows does on it."""

    x: float
    y: float
    told: str
    label: str
    """Shown beside it; empty of most."""


@dataclass(frozen=True)
class Scatter:
    """CC of one row against another's, video by video."""

    x_name: str
    y_name: str
    dots: tuple[Dot, ...]
    ticks: tuple[tuple[Tick, Tick], ...]
    """The same figures along both sides: (x, y) of each."""
    above: int
    """Videos above the diagonal."""
    size: int = WIDTH


def scatter(scored: Evaluation, own: str, other: str, labels: Mapping[str, str]) -> Scatter | None:
    """The videos of both rows; `labels` names some of them. None where fewer than two videos have a CC in both."""
    pairs = {
        video: (scored.videos[other][video]["CC"], figures["CC"])
        for video, figures in scored.videos[own].items()
        if video in scored.videos[other]
    }
    pairs = {video: pair for video, pair in pairs.items() if all(map(math.isfinite, pair))}
    if len(pairs) < 2:
        return None
    low, high = _ends(pairs.values())
    across, up = Scale(low, high, LEFT, WIDTH - RIGHT), Scale(low, high, WIDTH - BOTTOM, TOP)
    dots = tuple(
        Dot(across(x), up(y), f"{video}: {figure(y)}, {other} {figure(x)}", labels.get(video, ""))
        for video, (x, y) in pairs.items()
    )
    ticks = tuple(
        (Tick(across(value), label), Tick(up(value), label))
        for value, label in zip(across.ticks(), tick_labels(across.ticks()), strict=True)
    )
    return Scatter(other, own, dots, ticks, above=sum(y > x for x, y in pairs.values()))


def _ends(pairs: Iterable[Point]) -> Point:
    values = [value for pair in pairs for value in pair]
    room = (max(values) - min(values) or 0.1) * 0.1
    return min(values) - room, max(values) + room
