"""What a run needs to go on as if it had never stopped: written beside and renamed, so the last good one always stays.

A checkpoint stands between two steps. Samples are a function of (seed, epoch, position), so one number, the steps of
the epoch that are done, says which come next; nothing of a random generator or a loader has to be kept. Beside it lie
`last.safetensors` and the history, for people. Cost: one write of weights and optimiser, three times the weights' size
for Adam; a second for the largest student.
"""

import io
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.training.history import EpochReport, as_lines, as_table, read_lines
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.whole_file import write_whole

STATE = "state.pt"


@dataclass
class Stand:
    """Where a run stands."""

    epoch: int = 0
    """The epoch that is at work."""
    step: int = 0
    """Its steps that are done."""
    sums: dict[str, float] = field(default_factory=dict)
    """Mean of every loss term over the whole epoch, as far as its steps have come."""
    best_score: float = math.inf
    best_epoch: int = -1
    history: list[EpochReport] = field(default_factory=list)
    has_ended: bool = False
    """All epochs are done, or nothing better has come for long enough."""


@dataclass(frozen=True)
class Held:
    """What changes while a run goes on: all that a checkpoint keeps."""

    module: nn.Module
    average: AveragedModel | None
    """Moving average of the weights, where it is asked for."""
    optimiser: torch.optim.Optimizer

    @property
    def scored(self) -> nn.Module:
        """The network that is validated and kept: the average where there is one."""
        return self.module if self.average is None else self.average.module

    def state(self) -> dict[str, Any]:
        average = {} if self.average is None else self.average.state_dict()
        return {"module": self.module.state_dict(), "average": average, "optimiser": self.optimiser.state_dict()}

    def take_up(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state["module"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def save(out: Path, facts: Mapping[str, Any], held: Held, stand: Stand) -> None:
    """Write a checkpoint, and what people look at; the file that `take_up` trusts comes last.

    Raises OSError where there is no room; the checkpoint before is then still whole.
    """
    epoch = stand.epoch if stand.step else stand.epoch - 1
    write_weights(out / "last.safetensors", held.module.state_dict(), {**facts, "epoch": epoch})
    write_whole(out / "history.jsonl", as_lines(stand.history).encode())
    write_whole(out / "history.csv", as_table(stand.history).encode())
    stood = {**asdict(stand), "history": as_lines(stand.history)}
    state = {"facts": json.dumps(facts, sort_keys=True), "stand": stood, **held.state()}
    packed = io.BytesIO()
    torch.save(state, packed)
    write_whole(out / STATE, packed.getvalue())


def take_up(out: Path, facts: Mapping[str, Any], held: Held) -> Stand:
    """Put everything back as the checkpoint in `out` has it.

    Raises SettingError, naming the first fact that differs, where it is of another run.
    """
    state = torch.load(out / STATE, weights_only=True, map_location="cpu")
    if difference := first_difference(json.loads(state["facts"]), json.loads(json.dumps(facts))):
        raise SettingError(
            f"{out}: holds a run with other settings: {difference}; give another --out, or add --overwrite"
        )
    held.take_up(state)
    return Stand(**{**state["stand"], "history": read_lines(state["stand"]["history"])})


def has_ended(out: Path) -> bool:
    """Whether the run in `out` was done."""
    stand = torch.load(out / STATE, weights_only=True, map_location="cpu")["stand"]
    return bool(stand.get("has_ended"))


def first_difference(there: Any, now: Any, name: str = "") -> str | None:
    """The first value that differs between two plain trees, as `recipe.seed = 1, not 2`; None where they are equal."""
    if there == now:
        return None
    if isinstance(there, dict) and isinstance(now, dict):
        for key in sorted(there.keys() | now.keys()):
            place = f"{name}.{key}" if name else key
            if difference := first_difference(there.get(key), now.get(key), place):
                return difference
    return f"{name} = {_short(there)}, not {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
