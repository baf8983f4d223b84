"""An evaluation as one file, `evaluation.json`: its figures with their intervals, and what was scored on what.

The tables beside it (figures.py) are for DVC and for spreadsheets, and hold the means alone. This file is for those who
report on an evaluation, so it says of each row whose maps those were, by the digest of the weights: a report must not
show the figures of a student that has been trained anew since.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tinyhd_pipe.stages.gaze.figures import Evaluation
from tinyhd_pipe.stages.gaze.intervals import Difference
from tinyhd_pipe.stages.gaze.truth import LeftOut
from tinyhd_pipe.store.whole_file import write_whole

FILE = "evaluation.json"
VERSION = 1


@dataclass(frozen=True)
class Scored:
    """What a row's figures are of."""

    kind: str
    """hd2s or tinyhd of a network, store, maps, or baseline."""
    path: str = ""
    """Weights file, store or folder of maps, as it was given."""
    sha256: str | None = None
    """Of the weights."""


@dataclass(frozen=True)
class Setting:
    """What was scored on what."""

    rows: Mapping[str, Scored]
    """Name of a row -> what it is; baselines are not in it."""
    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Option -> paths, as they were given."""
    folder: str = ""
    """Where the evaluation was started: paths that are not absolute count from here."""


@dataclass(frozen=True)
class KeptEvaluation:
    """An evaluation as it was read back."""

    scored: Evaluation
    setting: Setting

    def row_of(self, sha256: str) -> str | None:
        """The name of the row whose figures are those of these weights."""
        return next((name for name, of in self.setting.rows.items() if of.sha256 == sha256), None)


def write_evaluation(scored: Evaluation, setting: Setting, out: Path) -> None:
    """Leave `evaluation.json` in a folder, whole or not at all; a figure that does not exist is null in it."""
    plain = _without_nan({"version": VERSION, "setting": asdict(setting), "evaluation": asdict(scored)})
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / FILE, json.dumps(plain, indent=1, allow_nan=False).encode())


def read_evaluation(folder: Path) -> KeptEvaluation | None:
    """What `write_evaluation` left there, or None where there is nothing, or something else."""
    try:
        plain = json.loads((folder / FILE).read_bytes())
        if plain["version"] != VERSION:
            return None
        setting = plain["setting"]
        rows = {name: Scored(**row) for name, row in setting["rows"].items()}
        return KeptEvaluation(_evaluation(plain["evaluation"]), Setting(**{**setting, "rows": rows}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _evaluation(plain: Mapping[str, Any]) -> Evaluation:
    return Evaluation(
        **{
            **plain,
            "mean": {name: _figures(of) for name, of in plain["mean"].items()},
            "videos": {
                name: {video: _figures(of) for video, of in by_video.items()}
                for name, by_video in plain["videos"].items()
            },
            "intervals": {
                name: {metric: _pair(ends) for metric, ends in of.items()} for name, of in plain["intervals"].items()
            },
            "differences": tuple(
                Difference(**{**of, "interval": _pair(of["interval"]), "p": _figure(of["p"])})
                for of in plain["differences"]
            ),
            "left_out": tuple(LeftOut(**of) for of in plain["left_out"]),
            "not_taken": tuple(plain["not_taken"]),
        }
    )


def _figure(value: float | None) -> float:
    return math.nan if value is None else value


def _figures(plain: Mapping[str, float | None]) -> dict[str, float]:
    return {metric: _figure(value) for metric, value in plain.items()}


def _pair(ends: Sequence[float | None]) -> tuple[float, float]:
    low, high = ends
    return _figure(low), _figure(high)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
