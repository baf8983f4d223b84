"""What storing a map costs, and the smallest grid and coarsest step that cost no more than is declared.

The figure of merit is KL(live ‖ stored) on normalised maps at the teacher's size. Two things spend it: a smaller grid,
and rounding to 8 bits. Rounding to a step s costs .68 s²/24 (measured; s²/24 is the bound), so the step follows from
what the grid leaves of the budget, and only the grids are tried. Nothing is taken on trust: the chosen level is
encoded, decoded and measured again, and the step is tightened until the measured figure keeps the budget.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.networks.divergence import kl_divergence
from tinyhd_pipe.stages.networks.network import Size
from tinyhd_pipe.stages.networks.overlap import cores, in_parallel
from tinyhd_pipe.stages.settings.teacher_dump import StoredLevel
from tinyhd_pipe.store.codec import encode_chunk
from tinyhd_pipe.store.encoding import SMALLEST_STEP, quantise
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.schema import CHUNK_FRAMES, Level

ROUNDING = 0.68 / 24
"""KL that rounding costs, for a step of one logit."""


@dataclass(frozen=True)
class Choice:
    """How one level is stored, and what that was measured to cost on the sample."""

    level: Level
    kl: float
    """Mean KL(live ‖ stored), nats."""
    bytes_per_map: float


def to_grid(logits: Tensor, grid: Size) -> Tensor:
    """Bring logits (frame, y, x) to a grid that divides theirs, such that bilinear upsampling gives them back best.

    The mean over each cell is a first guess; what the upsampled guess misses is added back twice (Landweber steps on
    the upsampling operator), which about halves the error that the mean alone leaves.
    """
    if logits.shape[-2:] == grid:
        return logits
    size = logits.shape[-2:]
    small = F.adaptive_avg_pool2d(logits, grid)
    for _ in range(2):
        small = small + F.adaptive_avg_pool2d(logits - to_size(small, size), grid)
    return small


def to_size(logits: Tensor, size: Size | torch.Size) -> Tensor:
    """Bilinear upsampling of logits (frame, y, x), as the store's readers do it."""
    if logits.shape[-2:] == tuple(size):
        return logits
    return F.interpolate(logits[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def kl_of(live: Tensor, stored: Tensor, size: Size) -> float:
    """Mean KL(live ‖ stored) in nats, both given as logits (frame, y, x), compared at `size`."""
    live, stored = to_size(live, size).double(), to_size(stored, size).double()
    return float(kl_divergence(live.sigmoid(), stored))


@dataclass(frozen=True)
class _Aim:
    """What every level must keep."""

    size: Size
    """The teacher's (y, x)."""
    budget: float
    """Mean KL(live ‖ stored) that a level may cost, nats."""
    top: float | None = None
    """Logit of the last code; None: codes lie around where networks' maps do."""


def choose_levels(
    samples: Mapping[str, Tensor],
    *,
    size: Size,
    budget: float,
    given: Mapping[str, StoredLevel] | None = None,
    top: float | None = None,
) -> list[Choice]:
    """The cheapest way to store each level within the budget; or the given one, measured in the same way.

    Arguments:
        samples: level -> logits (frame, y, x) of consecutive frames, on the smallest grid on which the teacher makes
            them.
        size: the teacher's (y, x).
        budget: mean KL(live ‖ stored) that a level may cost, nats.
        given: level -> grid and step, for levels that are not to be chosen.
        top: logit of the last code, for maps whose highest one is known; others have codes around `CENTRE`.

    Raises SettingError when no 8-bit step keeps the budget, or when what is given does not.
    """
    given, aim = given or {}, _Aim(size, budget, top)
    if unknown := given.keys() - samples.keys():
        raise SettingError(f"level {sorted(unknown)[0]!r} is not known: the levels are {', '.join(samples)}")

    def chosen(named: tuple[str, Tensor]) -> Choice:
        name, logits = named
        if name in given:
            return _measured(name, logits, given[name], aim)
        return _choose(name, logits, aim)

    # One thread each: steps follow from sums, whose last bits differ with the number of threads.
    return list(in_parallel(chosen, iter(samples.items()), cores()))


def _measured(name: str, logits: Tensor, given: StoredLevel, aim: _Aim) -> Choice:
    """What the given grid and step cost. Raises SettingError where that is not what the store would declare."""
    native = (logits.shape[-2], logits.shape[-1])
    if native[0] % given.grid[0] or native[1] % given.grid[1]:
        raise SettingError(f"{name} on {_by(given.grid)}: expected a grid that divides the teacher's {_by(native)}")
    if given.step < SMALLEST_STEP:
        raise SettingError(f"{name} in steps of {given.step:g}: 8 bits need {SMALLEST_STEP:.3f} logits or more")
    choice = _store_sample(given.level(name, aim.top), logits, to_grid(logits, given.grid), aim.size)
    if choice.kl > aim.budget:
        cost = f"{name} on {_by(given.grid)} in steps of {given.step:g} costs {choice.kl:.1e} nats"
        raise SettingError(f"{cost}, more than fidelity {aim.budget:g}: allow more, or give a finer one")
    return choice


def _by(grid: Size) -> str:
    return f"{grid[0]}x{grid[1]}"


def _choose(name: str, logits: Tensor, aim: _Aim) -> Choice:
    native = (logits.shape[-2], logits.shape[-1])
    choices = []
    for divisor in (1, 2, 4):
        if native[0] % divisor or native[1] % divisor:
            continue
        grid = (native[0] // divisor, native[1] // divisor)
        small = to_grid(logits, grid)
        left = aim.budget - kl_of(logits, small, aim.size)
        if left > 0:
            choices.append(_at_grid(name, logits, small, aim, left))
    fitting = [choice for choice in choices if choice is not None]
    if not fitting:
        raise SettingError(f"fidelity {aim.budget:g}: {name} cannot keep it in 8 bits; allow more than {aim.budget:g}")
    return min(fitting, key=lambda choice: choice.bytes_per_map)


def _at_grid(name: str, live: Tensor, small: Tensor, aim: _Aim, left: float) -> Choice | None:
    """The coarsest step on the grid of `small` whose measured cost keeps the budget; None where 8 bits do not reach."""
    for _ in range(6):
        step = math.sqrt(left / ROUNDING)
        if step < SMALLEST_STEP:  # 256 codes would no longer span what other videos may need
            return None
        grid = (small.shape[-2], small.shape[-1])
        choice = _store_sample(StoredLevel(grid, step).level(name, aim.top), live, small, aim.size)
        if choice.kl <= aim.budget:
            return choice
        left *= 0.9 * aim.budget / choice.kl
    return None


def _store_sample(level: Level, live: Tensor, small: Tensor, size: Size) -> Choice:
    """Encode and decode the sample, and compare with the live maps."""
    codes = quantise(small.numpy(), level.scale, level.offset)
    stored = torch.from_numpy(codes.astype(np.float32) * np.float32(level.scale) + np.float32(level.offset))
    return Choice(level, kl_of(live, stored, size), _bytes_per_map(codes))


def _bytes_per_map(codes: NDArray[np.uint8]) -> float:
    whole = len(codes) // CHUNK_FRAMES * CHUNK_FRAMES
    if not whole:
        codes, whole = np.concatenate([codes, np.repeat(codes[-1:], CHUNK_FRAMES - len(codes), 0)]), CHUNK_FRAMES
    chunks = [encode_chunk(codes[start : start + CHUNK_FRAMES]) for start in range(0, whole, CHUNK_FRAMES)]
    return sum(map(len, chunks)) / whole
