"""One run in several processes, started by torchrun: they share out the batches of every step.

The law that this keeps: N processes do what one does that takes the same batches in turn (`accumulate`), weights,
statistics and losses alike, but for rounding. So the batch that batch norm sees is that of one forward pass, as in the
published training on several GPUs; its running statistics are put together in the order of the batches; and a run may
go on with another number of processes.

The decision that is not obvious: gradients are summed by one plain all-reduce, not by DistributedDataParallel, which
takes the mean over processes. Here the last batches of an epoch may be smaller, or fewer than the processes, and what
no term of the loss reaches must stay without a gradient, because the optimisers let it decay otherwise. Cost: the
gradients once over the wire a step (10 MB for S), after the backward pass instead of beside it.

Nobody is left waiting: processes meet in `exchanged` alone, and what one of them has met with, an error or a signal, is
told there to all, so that all end at the same step.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tinyhd_pipe.stages.training.signals import Hold
from tinyhd_pipe.store.errors import SettingError, TrainingError

Value = TypeVar("Value")
PATIENCE = timedelta(days=1)
"""The first process may validate for hours while the others wait; one that dies is noticed at once all the same."""


@dataclass(frozen=True)
class _Word:
    """What a process has to say when all of them meet."""

    value: Any
    failure: str | None
    signal: int | None


class Processes:
    """The processes of one run, seen from one of them."""

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count
        self._hold = Hold() if count > 1 else None
        self._agreed: int | None = None  # a signal that all know of
        self._may_meet = True  # until all know of a failure, or one has died

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes, validates and speaks."""
        return self.rank == 0

    def share_of(self, batches: Sequence[Value], accumulate: int) -> Sequence[Value]:
        """This process's part of the batches of a step, of which there are `accumulate`, or fewer at the end."""
        each = accumulate // self.count
        return batches[self.rank * each : (self.rank + 1) * each]

    def exchanged(self, value: Any) -> list[Any]:
        """What every process gives here, by rank.

        Raises TrainingError where one of them has failed, or has ended without a word.
        """
        if self.count == 1:
            return [value]
        words = self._met(_Word(value, None, self._hold.waiting if self._hold else None))
        self._agreed = self._agreed or next((word.signal for word in words if word.signal), None)
        if failures := [f"{word.failure} (process {rank})" for rank, word in enumerate(words) if word.failure]:
            self._may_meet = False
            raise TrainingError(failures[0])
        return [word.value for word in words]

    def obey(self) -> None:
        """Let a signal that any process has got do what it does, here and in all others."""
        if self._agreed is not None and self._hold:
            self._hold.waiting = self._agreed
            self._hold.release()

    def from_first(self, make: Callable[[], Value]) -> Value:
        """What the first process makes, there and in all others; these wait for it."""
        return cast(Value, self.exchanged(make() if self.is_first else None)[0])

    def combined(self, module: nn.Module, gradients: Callable[[], dict[str, float]], passes: int) -> dict[str, float]:
        """Do this process's part of a step, of so many forward passes, and bring all parts together.

        `gradients` leaves those of its part, and returns its share of every loss term. Afterwards every process has the
        gradients, running statistics and terms of the whole step.
        """
        if self.count == 1:
            return gradients()
        before = _statistics(module)
        parts = self.exchanged((gradients(), passes))
        _sum_gradients(module)
        _join_statistics(module, before, [count for _, count in parts], self.rank)
        whole: dict[str, float] = {}
        for terms, _ in parts:
            for name, share in terms.items():
                whole[name] = whole.get(name, 0.0) + share
        return whole

    def _met(self, word: _Word) -> list[_Word]:
        words: list[Any] = [None] * self.count
        self._may_meet = False
        with _as_one_line():
            dist.all_gather_object(words, word)
        self._may_meet = True
        return words

    def _leave(self, error: BaseException | None) -> None:
        """Meet for the last time, with what went wrong here, unless all know of it."""
        if error is None:
            self.exchanged(None)
        elif self._may_meet and not isinstance(error, KeyboardInterrupt):
            with suppress(TrainingError):
                self._met(_Word(None, str(error), None))

    def _let_go(self) -> None:
        if self._hold:
            self._hold.release()


ALONE = Processes()


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that torchrun has started for this run; one alone where it has not.

    Meanwhile Ctrl-C and SIGTERM wait until all processes can heed them at the same step (`obey`). Raises SettingError
    where they do not find each other.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    # Words go by the processor, tensors by what connects the devices that they are on.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise SettingError(
            f"WORLD_SIZE = {count}, but the processes do not find each other ({reason}): let torchrun start them"
        ) from error
    processes = Processes(dist.get_rank(), count)
    try:
        yield processes
        processes._leave(None)
    except BaseException as error:
        processes._leave(error)
        raise
    finally:
        dist.destroy_process_group()
        processes._let_go()


@contextmanager
def _as_one_line() -> Iterator[None]:
    """Say of a process that has died what that means for this one."""
    try:
        yield
    except RuntimeError as error:
        raise TrainingError(
            "another process of this run has ended without a word: the last checkpoint is kept; go on with --resume"
        ) from error


def _sum_gradients(module: nn.Module) -> None:
    """Give every process the sum of all gradients; what has none in any of them keeps none."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    gradients = [parameter.grad for parameter in parameters]
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
    reached = parts[0].new_tensor([gradient is not None for gradient in gradients])
    flat = torch.cat([*(part.flatten() for part in parts), reached])
    with _as_one_line():
        dist.all_reduce(flat)
    *summed, reached = torch.split(flat, [*(part.numel() for part in parts), len(parts)])
    for parameter, part, total, count in zip(parameters, parts, summed, reached.tolist(), strict=True):
        parameter.grad = part.copy_(total.view_as(part)) if count else None


def _join_statistics(module: nn.Module, before: Tensor, passes: Sequence[int], rank: int) -> None:
    """Make of the running statistics what they were had one process taken all batches in turn, by rank.

    `before` is what they were before the step, `passes` how many forward passes each process has made of it. One that
    makes k passes turns statistics s into m^k s + c, with m = 1 - momentum and a c that s does not enter: so what it
    made of `before` tells what it would have made of those that the processes before it leave.
    """
    after = _statistics(module)
    made = [torch.empty_like(after) for _ in passes]
    with _as_one_line():
        dist.all_gather(made, after)
    kept, joined = _kept(module), before
    for theirs, count in zip(made, passes, strict=True):
        joined = theirs + kept**count * (joined - before)
    _set_statistics(module, joined, more_passes=sum(passes) - passes[rank])


def _norms(module: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]


def _statistics(module: nn.Module) -> Tensor:
    """All running means and variances, one after the other, (n,)."""
    return torch.cat([values for norm in _norms(module) for values in _of(norm)])


def _kept(module: nn.Module) -> Tensor:
    """For each of them, how much of it one forward pass keeps: 1 - momentum."""
    return torch.cat([torch.full_like(values, 1 - _momentum(norm)) for norm in _norms(module) for values in _of(norm)])


def _set_statistics(module: nn.Module, values: Tensor, *, more_passes: int) -> None:
    norms = _norms(module)
    places = [place for norm in norms for place in _of(norm)]
    for place, part in zip(places, torch.split(values, [place.numel() for place in places]), strict=True):
        place.copy_(part)
    for norm in norms:
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += more_passes


def _of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var


def _momentum(norm: _BatchNorm) -> float:
    assert norm.momentum is not None, "a cumulative mean is not put together this way"
    return norm.momentum
