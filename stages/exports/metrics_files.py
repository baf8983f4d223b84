"""The figures of an evaluation, read back for those who look at a network: what `evaluate --json` printed.

The decision that is not obvious: an evaluation has a row for each network and baseline, and only its name says which
one is ours; where that is open, whoever asks has to say it. Costs nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyhd_pipe.store.errors import DataError, SettingError

BASELINES = ("centre prior", "still frames")
"""How rows end that are no networks."""


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found."""

    rows: Mapping[str, Mapping[str, float | None]]
    """name -> metric -> mean; None where it does not exist."""
    row: str
    """Which of them is the network."""
    protocol: str | None
    """None of a file that holds means alone."""
    postprocessing: str | None
    videos: int | None
    frames: int | None


def read_metrics(path: Path, *, row: str | None, names: tuple[str, ...]) -> Metrics:
    """Read what `evaluate --json` printed, or one file of its `metrics/`, which does not say the protocol.

    Arguments:
        row: the name of the network's row; found where None.
        names: what that row may be called, the likeliest first.

    Raises DataError for a file that is none of these, SettingError where the row is not there or not known.
    """
    found = _loaded(path)
    means = found.get("mean")
    rows = means if isinstance(means, dict) and means else {path.stem: found}
    if not all(isinstance(figures, dict) and _are_figures(figures) for figures in rows.values()):
        raise DataError(f"{path}: holds no figures; give what 'tinyhd-pipe evaluate --json' printed")
    own = _row(path, list(rows), row, names)
    videos = found.get("videos", {})
    return Metrics(
        rows,
        own,
        found.get("protocol"),
        found.get("postprocessing"),
        len(videos[own]) if isinstance(videos, dict) and own in videos else None,
        found.get("frames"),
    )


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); name the file with the metrics") from error
    except ValueError as error:
        raise DataError(f"{path}: is not JSON; give what 'tinyhd-pipe evaluate --json' printed") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds no figures; give what 'tinyhd-pipe evaluate --json' printed")
    return found


def _are_figures(figures: Mapping[str, Any]) -> bool:
    return bool(figures) and all(value is None or isinstance(value, int | float) for value in figures.values())


def _row(path: Path, rows: list[str], wanted: str | None, names: tuple[str, ...]) -> str:
    there = f"{path} has {', '.join(map(repr, rows))}"
    if wanted is not None:
        if wanted not in rows:
            raise SettingError(f"--row {wanted}: {there}")
        return wanted
    networks = [name for name in rows if not name.endswith(BASELINES)]
    if len(networks) == 1:
        return networks[0]
    known = [name for name in names if name in rows]
    if not known:
        raise SettingError(f"--row: which of its rows is this network? {there}; name it")
    return known[0]
