"""What people see of a training run: where it is, every loss term, validation and the best of it, speed, time left.

On a terminal it is one live block, a bar above a table of the terms. Elsewhere (a log, DVC in CI) it is a line now and
then, never more often than `console.SECONDS_BETWEEN_LINES`, and one at the end. Cost: nothing worth a figure; the
terminal is drawn four times a second, whatever the steps do.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tinyhd_pipe.pipeline import console

if TYPE_CHECKING:
    from tinyhd_pipe.stages.training.fitting import Run
    from tinyhd_pipe.stages.training.history import EpochReport, StepReport


class TrainingProgress:
    """How far one run is; told by the training loop, read by `block` and `line`."""

    def __init__(self, title: str, changed: Callable[[], None] = lambda: None) -> None:
        self._title = title
        self._changed = changed
        self._started = time.monotonic()
        self._first = self._samples = 0
        self._step: StepReport | None = None
        self._seen: tuple[dict[str, float], int] = ({}, 0)  # sums of an epoch's terms, and of how many steps
        self._validated: EpochReport | None = None
        self._best: EpochReport | None = None

    def listening_to(self, run: "Run") -> "Run":
        """The same run, which tells what it does to this."""
        return replace(run, begun=self.begun, step_done=self.step_done, epoch_done=self.epoch_done)

    def begun(self, done: int, history: "Sequence[EpochReport]") -> None:
        """The work begins now, after `done` steps and the epochs of `history`."""
        self._started, self._first = time.monotonic(), done
        for epoch in history:
            self._take(epoch)

    def step_done(self, step: "StepReport") -> None:
        is_new = self._step is None or self._step.epoch != step.epoch
        sums, steps = ({}, 0) if is_new else self._seen
        # Another dict, never a changed one: the terminal is drawn by a thread of its own.
        self._seen = ({**sums, **{name: sums.get(name, 0.0) + term for name, term in step.loss.items()}}, steps + 1)
        self._step = step
        self._samples += step.samples
        self._changed()

    def epoch_done(self, epoch: "EpochReport") -> None:
        self._take(epoch)
        if self._step is not None:  # a run that goes on may have no step left, only the end of an epoch
            self._changed()

    def line(self) -> str:
        """All of it as one line, once there was a step."""
        parts = [f"{self._where()}: loss {_terms(self._means())}"]
        if self._validated and self._best:
            best = f"best {_score(self._best):.3f} at epoch {self._best.epoch + 1}"
            parts.append(f"left out, epoch {self._validated.epoch + 1}: {_terms(self._scores())} ({best})")
        return "; ".join([*parts, self._speed()])

    def block(self) -> Group | Text:
        """All of it as a bar and a table of the loss terms."""
        if self._step is None:
            return Text(f"{self._title}: getting ready")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(self._where(), ProgressBar(self._step.total, self._step.done, width=24), self._speed())
        table = Table(box=None, pad_edge=False, header_style="dim")
        columns = [("loss, nats", self._means())]
        if self._validated and self._best:
            columns.append((f"left out, epoch {self._validated.epoch + 1}", self._scores()))
            columns.append((f"best, epoch {self._best.epoch + 1}", dict(self._best.validation or {})))
        table.add_column("")
        for title, _ in columns:
            table.add_column(title, justify="right")
        for name in dict.fromkeys(name for _, terms in columns for name in terms):
            table.add_row(name, *(f"{terms[name]:.3f}" if name in terms else "" for _, terms in columns))
        return Group(bar, table)

    def _take(self, epoch: "EpochReport") -> None:
        if epoch.validation is None:
            return
        self._validated = epoch
        if self._best is None or _score(epoch) < _score(self._best):
            self._best = epoch

    def _where(self) -> str:
        step = self._step
        assert step is not None
        return f"{self._title}: epoch {step.epoch + 1} of {step.epochs}, step {step.of_epoch} of {step.steps_per_epoch}"

    def _means(self) -> dict[str, float]:
        """Every loss term over those steps of the epoch that were seen."""
        sums, steps = self._seen
        return {name: total / steps for name, total in sums.items()}

    def _scores(self) -> dict[str, float]:
        return dict(self._validated.validation or {}) if self._validated else {}

    def _speed(self) -> str:
        assert self._step is not None
        seconds = time.monotonic() - self._started
        left = seconds / (self._step.done - self._first) * (self._step.total - self._step.done)
        return (
            f"{self._samples / max(seconds, 1e-9):.3g} samples a second, "
            f"{console.duration(seconds)}, {console.duration(left)} left"
        )


@contextmanager
def training_progress(title: str) -> Iterator[TrainingProgress]:
    """Show the progress of a training run while the context lasts."""
    if not console.err.is_terminal:
        yield from _lines(title)
        return
    at = TrainingProgress(title)
    with Live(get_renderable=at.block, console=console.err, refresh_per_second=4):
        yield at


def _lines(title: str) -> Iterator[TrainingProgress]:
    """A line now and then, and one where the work has ended."""
    last, is_said = time.monotonic(), True

    def say_now_and_then() -> None:
        nonlocal last, is_said
        is_said = time.monotonic() - last >= console.SECONDS_BETWEEN_LINES
        if is_said:
            console.say(at.line())
            last = time.monotonic()

    at = TrainingProgress(title, say_now_and_then)
    yield at
    if not is_said:
        console.say(at.line())


def _score(epoch: "EpochReport") -> float:
    """What decides which epoch is best: the first of its validation scores."""
    return next(iter((epoch.validation or {}).values()))


def _terms(terms: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in terms.items())
