"""A run for TensorBoard: every loss term, rate and speed a step; validation and its picture an epoch.

All of it lies on one axis, the steps of the whole run, so a run that goes on from step n withdraws what a killed one
logged after it, and no step is there twice. The log is written out before every checkpoint, so none is missing either.
Cost: microseconds a step; the package `tensorboard` is imported only where it is asked for.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tinyhd_pipe.stages.training.history import EpochReport, StepReport
from tinyhd_pipe.store.errors import SettingError


class Log:
    """What goes to TensorBoard; without a writer, nothing does."""

    def __init__(self, writer: Any, done: int) -> None:
        self._writer = writer
        self._step = done
        self._before = time.monotonic()

    def step(self, step: StepReport) -> None:
        """Every loss term and their sum, the rate, and samples a second since the step before."""
        now = time.monotonic()
        speed = step.samples / max(now - self._before, 1e-9)
        self._before, self._step = now, step.done
        figures = {"learning_rate": step.learning_rate, "samples_a_second": speed}
        self._scalars({**figures, **_with_sum("loss", step.loss)})

    def epoch(self, epoch: EpochReport, picture: Path | None) -> None:
        """Means over the epoch, validation and its picture where there were any, at the epoch's last step."""
        self._scalars({**_with_sum("epoch_loss", epoch.loss), **_named("validation", epoch.validation or {})})
        if self._writer is not None and picture is not None:
            pixels = np.asarray(Image.open(picture))
            self._writer.add_image("validation", pixels, self._step, dataformats="HWC")
        self._before = time.monotonic()  # validation is no part of a step

    def flush(self) -> None:
        """Write out what is logged, so that a kill does not lose it."""
        if self._writer is not None:
            self._writer.flush()

    def _scalars(self, figures: Mapping[str, float]) -> None:
        if self._writer is not None:
            for tag, figure in figures.items():
                self._writer.add_scalar(tag, figure, self._step)


@contextmanager
def tensorboard(folder: Path, *, done: int, wanted: bool) -> Iterator[Log]:
    """The log in `folder` of a run of which `done` steps are done; one that takes nothing where it is not `wanted`.

    Raises SettingError where TensorBoard is not installed.
    """
    if not wanted:
        yield Log(None, done)
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise SettingError(
            "--tensorboard: the package tensorboard is missing; pip install 'tinyhd-pipe[tensorboard]', or leave it out"
        ) from error
    with SummaryWriter(str(folder), purge_step=done + 1) as writer:
        yield Log(writer, done)


def _with_sum(group: str, terms: Mapping[str, float]) -> dict[str, float]:
    return _named(group, {**terms, "sum": sum(terms.values())})


def _named(group: str, terms: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in terms.items()}
