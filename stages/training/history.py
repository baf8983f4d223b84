"""What a run tells of itself: one report a step, and one an epoch, as lines of JSON for resuming and as a table.

Nothing in it depends on a clock, so that a run that was killed and resumed leaves the same history as one that was
not; how fast it went is for those who listen to say (pipeline/training_progress.py, tensorboard.py).
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class StepReport:
    """What one step did."""

    done: int
    """Steps of the whole run that are done, this one among them."""
    total: int
    """Steps of the whole run, if it does not end early."""
    epoch: int
    """The epoch at work, counted from 0."""
    epochs: int
    loss: Mapping[str, float]
    """Mean of every loss term over the step's samples, in nats."""
    learning_rate: float
    samples: int

    @property
    def of_epoch(self) -> int:
        """Steps of its epoch that are done."""
        return self.done - self.epoch * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        return self.total // self.epochs


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did."""

    epoch: int
    loss: Mapping[str, float]
    """Mean of every loss term over the epoch's samples, in nats."""
    validation: Mapping[str, float] | None
    """Scores on the videos left out, lower is better; None where this epoch was not validated."""
    learning_rate: float


def as_lines(history: Sequence[EpochReport]) -> str:
    """One JSON object a line and an epoch; floats keep every digit."""
    return "".join(json.dumps(asdict(epoch)) + "\n" for epoch in history)


def read_lines(lines: str) -> list[EpochReport]:
    """The same back."""
    return [EpochReport(**json.loads(line)) for line in lines.splitlines()]


def as_table(history: Sequence[EpochReport]) -> str:
    """The history as CSV, a row an epoch counted from 1; terms are in nats, `loss` is the sum that was minimised.

    Validation terms stand empty where an epoch was not validated.
    """
    rows = [
        {"epoch": epoch.epoch + 1, "learning_rate": epoch.learning_rate, "loss": sum(epoch.loss.values())}
        | {f"loss_{name}": value for name, value in epoch.loss.items()}
        | {f"validation_{name}": value for name, value in (epoch.validation or {}).items()}
        for epoch in history
    ]
    text = io.StringIO()
    table = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()
