"""What people see: progress and tables on stderr, results for machines on stdout, one line for an error.

On a terminal, progress is a live bar; elsewhere (a log, DVC in CI) it is a line now and then, so that a log shows
that work goes on without being filled by it.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from tinyhd_pipe.stages.reports.words import duration as duration
from tinyhd_pipe.stages.reports.words import size as size

SECONDS_BETWEEN_LINES = 10.0
err = Console(stderr=True, highlight=False)


def speaks(rank: str = "RANK") -> bool:
    """Whether this is the one that speaks to people of several processes that torchrun has started.

    That is the first of all, or by `LOCAL_RANK` the first of its machine.
    """
    return not are_several() or os.environ.get(rank, "0") == "0"


def are_several() -> bool:
    """Whether torchrun has started this process, and others, for one run."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


class Advance(Protocol):
    """Told how far a piece of work is, with a few words about what is at hand."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def progress(title: str) -> Iterator[Advance]:
    """Show the progress of one piece of work; the value given is called with (done, total, note)."""
    if err.is_terminal:
        with _bar(title) as advance:
            yield advance
    else:
        with _lines(title) as advance:
            yield advance


@contextmanager
def _bar(title: str) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task(title, total=None, note="")

        def advance(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield advance


@contextmanager
def _lines(title: str) -> Iterator[Advance]:
    """A line now and then, and one where the work has ended."""
    started = last = time.monotonic()
    waiting = ""

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal started, last, waiting
        now = time.monotonic()
        if done == 0:  # the work begins now, whatever was waited for before
            started = last = now
            return
        left = (now - started) / done * (total - done)
        waiting = f"{title}: {done} of {total}, {now - started:.0f} s, {left:.0f} s left{', ' + note if note else ''}"
        if now - last >= SECONDS_BETWEEN_LINES:
            say(waiting)
            last, waiting = now, ""

    yield advance
    if waiting:
        say(waiting)


def say(line: str) -> None:
    """One line for people."""
    err.print(line, markup=False, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table for people; the first column is text, the others are right-aligned figures."""
    drawn = Table(title=title, title_justify="left")
    for place, column in enumerate(columns):
        drawn.add_column(column, justify="left" if place == 0 else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    err.print(drawn)


def problems(found: Mapping[str, str], title: str = "did not decode, or not all of it") -> None:
    """The videos that failed, or of which not all decoded, each with its line; nothing where there are none."""
    if found:
        table(title, ("video", "why"), list(found.items()))


def device(wanted: str) -> str:
    """The device that is meant by `--device`, said in one line where it was left to us.

    Of several processes that torchrun has started on a machine, each gets a GPU of its own. Raises SettingError for a
    device that is not known or not there.
    """
    from torch.cuda import device_count  # slow to import

    from tinyhd_pipe.stages.networks.device import choose_device, device_of

    chosen = choose_device(wanted)
    if wanted == "auto":
        say(f"device: {chosen.device} ({chosen.why})")
    return (
        device_of(chosen.device, os.environ.get("LOCAL_RANK", "0"), device_count()) if are_several() else chosen.device
    )


def result(value: Any, *, as_json: bool) -> None:
    """Print a stage's result on stdout for machines, where they asked for it."""
    if as_json and speaks():
        sys.stdout.write(json.dumps(_plain(value), indent=2) + "\n")


def _plain(value: Any) -> Any:
    """Dataclasses, paths and numbers as JSON knows them; a figure that does not exist (NaN) becomes null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and value != value:
        return None
    return value
