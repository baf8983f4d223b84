"""A page from what was found: everything in the words and places in which the template draws it.

The template (`report.html.j2`) holds all HTML and CSS, and escapes whatever it is given: names of videos come from
people's disks. There is no script in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from PIL import Image

from tinyhd_pipe.stages.gaze.evaluation_file import KeptEvaluation
from tinyhd_pipe.stages.gaze.figures import Evaluation
from tinyhd_pipe.stages.gaze.scoring import METRICS
from tinyhd_pipe.stages.predictions.contender import STILL
from tinyhd_pipe.stages.reports.comparisons import LOWER_IS_BETTER, Scatter, Strip, scatter, strips
from tinyhd_pipe.stages.reports.costs import Costs, costs
from tinyhd_pipe.stages.reports.curves import Panel, panels
from tinyhd_pipe.stages.reports.facts import (
    Row,
    StoreFacts,
    data_rows,
    network_name,
    network_rows,
    parameters,
    setting_rows,
    store_facts,
    teacher_rows,
    told_seconds,
)
from tinyhd_pipe.stages.reports.gallery import Gallery, as_uri, chosen
from tinyhd_pipe.stages.reports.places import Missing, RunFolder
from tinyhd_pipe.stages.reports.words import counted, figure, size
from tinyhd_pipe.stages.settings.report import ReportOptions
from tinyhd_pipe.store.reader import Store

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Cell:
    """A metric of a row."""

    metric: str
    mean: str
    interval: str


@dataclass(frozen=True)
class TableRow:
    name: str
    cells: tuple[Cell, ...]
    is_own: bool


@dataclass(frozen=True)
class DifferenceRow:
    """The run's network against another row in one metric, in pairs of videos."""

    metric: str
    difference: str
    interval: str
    p: str


@dataclass(frozen=True)
class Compared:
    """An evaluation as the page shows it."""

    table: tuple[TableRow, ...]
    strips: tuple[Strip, ...]
    scatter: Scatter | None
    differences: Mapping[str, Sequence[DifferenceRow]]
    """Name of another row -> how the run's network differs from it."""
    told: str
    left_out: tuple[str, ...]
    lower_is_better: tuple[str, ...] = LOWER_IS_BETTER


@dataclass(frozen=True)
class Page:
    """All that a page shows."""

    title: str
    folder: str
    summary: str
    keys: tuple[Row, ...]
    """A figure and what it is: the few that one looks for first."""
    facts: tuple[tuple[str, tuple[Row, ...]], ...]
    settings: tuple[Row, ...]
    panels: tuple[Panel, ...] | Missing
    learning: str
    """What the curves say."""
    picture: str | Missing
    compared: Compared | Missing
    gallery: Gallery | Missing
    stores: list[StoreFacts] | Missing
    costs: Costs | Missing

    @staticmethod
    def of(
        run: RunFolder,
        kept: KeptEvaluation | Missing,
        stores: list[Store] | Missing,
        gallery: Gallery | Missing,
        options: ReportOptions,
    ) -> "Page":
        best = run.facts.get("epoch")
        drawn = tuple(panels(run.history, best))
        own = "" if isinstance(kept, Missing) else kept.row_of(run.weights.sha256) or ""
        compared = kept if isinstance(kept, Missing) else _compared(kept.scored, own)
        return Page(
            title=network_name(run),
            folder=str(run.path),
            summary=_summary(run, kept, own),
            keys=tuple(_keys(run, kept, own, stores)),
            facts=(
                ("Network", tuple(network_rows(run))),
                ("Teacher, data and code", (*teacher_rows(run), *data_rows(run))),
            ),
            settings=tuple(setting_rows(run)),
            panels=drawn or Missing("No curves: the run has no history.jsonl; its weights were taken as they are."),
            learning=_learning(run, best),
            picture=_picture(run),
            compared=compared,
            gallery=gallery,
            stores=store_facts(stores),
            costs=costs(run, stores, gallery, options.price),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """The sentences that stand in the place of something."""
        parts = (self.panels, self.picture, self.compared, self.gallery, self.stores, self.costs)
        without = [self.gallery.without] if isinstance(self.gallery, Gallery) and self.gallery.without else []
        return tuple([part.why for part in parts if isinstance(part, Missing)] + without)


def render(page: Page) -> str:
    """The page as one HTML document."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.tests["missing"] = lambda part: isinstance(part, Missing)
    text = files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(text).render(page=page, metrics=METRICS)


def _summary(run: RunFolder, kept: KeptEvaluation | Missing, own: str) -> str:
    """What a colleague is told first."""
    said = [f"{network_name(run)}, {counted(parameters(run), 'parameter')}"]
    if run.history:
        said.append(f"trained for {counted(len(run.history), 'epoch')}")
    if run.record is not None and run.record.videos:
        said.append(f"on {counted(run.record.videos, 'video')}")
    first = " ".join([said[0] + ",", *said[1:]]) if len(said) > 1 else said[0]
    if isinstance(kept, Missing):
        return f"{first}."
    scored = kept.scored
    rows = {name: of for name, of in scored.mean.items() if name != own and not name.endswith(STILL.format(""))}
    others = "; ".join(f"{name} {figure(of['CC'])}" for name, of in rows.items())
    videos = counted(len(scored.videos[own]), "video")
    data = ", ".join(kept.setting.given.get("data", ["a data set"]))
    return (
        f"{first}. On {videos} of {data} its maps correlate with where people looked by CC "
        f"{figure(scored.mean[own]['CC'])}{_interval(scored, own, 'CC', ' [{}, {}]')}"
        + (f" ({others})." if others else ".")
    )


def _keys(run: RunFolder, kept: KeptEvaluation | Missing, own: str, stores: list[Store] | Missing) -> list[Row]:
    keys: list[Row] = []
    if not isinstance(kept, Missing):
        mean = kept.scored.mean[own]
        keys += [(figure(mean[metric]), metric) for metric in ("CC", "NSS") if math.isfinite(mean[metric])]
    keys.append((f"{parameters(run) / 1e6:.2f} M", "parameters"))
    keys.append((size(run.bytes), "weights file"))
    if (seconds := told_seconds(run)) is not None:
        keys.append((seconds, "of training"))
    if not isinstance(stores, Missing):
        keys.append((size(sum(store.info()["bytes"] for store in stores)), "of teacher maps"))
    return keys


def _learning(run: RunFolder, best: int | None) -> str:
    validated = [epoch for epoch in run.history if epoch.validation]
    if not validated or best is None:
        return "Losses by epoch."
    last, at = validated[-1], next((epoch for epoch in validated if epoch.epoch == best), validated[-1])
    name, score = next(iter((at.validation or {}).items()))
    end = next(iter((last.validation or {}).values()))
    after = (
        "the last one: more epochs may help"
        if at is last
        else f"after it the clips left out got no better, and ended at {end:.3g}"
    )
    return (
        f"On the clips left out, {name.replace('_', ' ')} is lowest in epoch {best + 1}, at {score:.3g} nats, which is "
        f"what was kept; {after}."
    )


def _picture(run: RunFolder) -> str | Missing:
    if run.picture is None:
        return Missing("No picture of clips left out: the run has no validation.png; picture_every draws it.")
    with Image.open(run.picture) as picture:
        return as_uri(picture.convert("RGB"))


def _compared(scored: Evaluation, own: str) -> Compared:
    ids = {video: which for which, video in chosen(scored, own).items()}
    others = [name for name in scored.mean if name != own and scored.videos[name].keys() == scored.videos[own].keys()]
    reference = next(iter(others), None)
    return Compared(
        table=tuple(
            TableRow(name, tuple(_cell(scored, name, metric) for metric in METRICS), name == own)
            for name in scored.mean
        ),
        strips=tuple(strips(scored, own)),
        scatter=scatter(scored, own, reference, ids) if reference is not None else None,
        differences=_differences(scored, own),
        told=(
            f"{counted(len(scored.videos[own]), 'video')}, {counted(scored.frames, 'frame')}; protocol "
            f"{scored.protocol}, postprocessing {scored.postprocessing}. Below each mean its 95 % interval over videos."
        ),
        left_out=(*map(str, scored.left_out), *(f"{video}: {why}" for video, why in scored.problems.items())),
    )


def _cell(scored: Evaluation, name: str, metric: str) -> Cell:
    return Cell(metric, figure(scored.mean[name][metric]), _interval(scored, name, metric, "{} – {}"))


def _interval(scored: Evaluation, name: str, metric: str, form: str) -> str:
    ends: Sequence[float] = scored.intervals.get(name, {}).get(metric, (math.nan, math.nan))
    return form.format(*(figure(end, 2) for end in ends)) if all(map(math.isfinite, ends)) else ""


def _differences(scored: Evaluation, own: str) -> dict[str, list[DifferenceRow]]:
    """Of the run's network from the others, whichever of the two stood first in the evaluation."""
    rows: dict[str, list[DifferenceRow]] = {}
    for of in scored.differences:
        if own not in (of.name, of.other) or of.videos < 2 or of.metric == "saturated":
            continue
        sign, other = (1, of.other) if of.name == own else (-1, of.name)
        ends: list[Any] = sorted(sign * end for end in of.interval)
        interval = " to ".join(_signed(end) for end in ends)
        row = DifferenceRow(of.metric, _signed(sign * of.difference), interval, figure(of.p))
        rows.setdefault(other, []).append(row)
    return rows


def _signed(value: float) -> str:
    return f"+{figure(value)}" if value > 0 else figure(value)
