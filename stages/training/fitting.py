"""The training loop that teacher and student share: it reads from top to bottom, and can be killed anywhere.

After every epoch the whole state (weights, optimiser, history) is written beside and renamed; a run that resumes
draws the same samples and ends with the same weights as one that was never killed. `best.safetensors` holds the
weights with the lowest validation score. Cost: a step is the network's; loading runs in threads beside it, since
decoding, decompression and resizing all release the interpreter's lock.
"""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.layout import channels_last
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, collate
from tinyhd_pipe.store.errors import SettingError

Optimiser = Literal["sgd", "adam", "adamw"]
Schedule = Literal["steps", "cosine"]


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted. The published values are the defaults of params in the command line."""

    epochs: int
    batch: int
    """Samples in one forward pass."""
    accumulate: int
    """Forward passes before the optimiser steps."""
    clips_per_video: int
    """Random clips drawn from every video in one epoch."""
    optimiser: Optimiser
    learning_rate: float
    weight_decay: float
    momentum: float
    """SGD's momentum; the others keep their own defaults."""
    schedule: Schedule
    """`steps`: multiplied by `decay` at each milestone; `cosine`: falling to 0 over all steps."""
    milestones: tuple[int, ...]
    """Epochs at whose beginning the learning rate falls and the best weights so far are taken up again."""
    decay: float
    validate_every: int
    """Epochs between validations; the last epoch is always validated."""
    mixed_precision: bool
    """bfloat16 autocast; on a GPU only: its backward pass corrupts memory on this CPU build."""
    seed: int


@dataclass(frozen=True)
class EpochReport:
    """What one epoch did."""

    epoch: int
    loss: Mapping[str, float]
    """Mean of every loss term over the epoch's samples, in nats."""
    validation: Mapping[str, float] | None
    """Scores on the videos left out, lower is better; None where this epoch was not validated."""
    learning_rate: float


@dataclass(frozen=True)
class Fitted:
    """A finished training run."""

    best: Path
    """Weights with the lowest validation score, `best.safetensors`."""
    best_epoch: int
    history: tuple[EpochReport, ...]
    seconds: float


@dataclass
class _Progress:
    """Where a run stands; what is saved with every epoch."""

    epoch: int = 0
    best_score: float = math.inf
    best_epoch: int = -1


Terms = Callable[[Mapping[str, Tensor], Batch], dict[str, Tensor]]


def fit(
    module: nn.Module,
    *,
    dataset: ClipDataset,
    loss_terms: Terms,
    validate: Callable[[], Mapping[str, float]],
    parameter_groups: Sequence[dict[str, Any]],
    recipe: Recipe,
    facts: Mapping[str, Any],
    out: Path,
    resume: bool,
    overwrite: bool,
    device: torch.device,
    report: Callable[[EpochReport], None],
    step_report: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Fit `module` and leave `best.safetensors`, `last.safetensors` and `history.jsonl` in `out`.

    Arguments:
        loss_terms: (logits, batch) -> named terms; their sum is minimised.
        validate: named scores of the module as it stands; the first one decides which weights are best.
        facts: what the weights file says of itself; a resumed run must have the same.
        resume, overwrite: what to do with a run that `out` holds already: go on with it if its facts are the same;
            begin again. Both: go on if it can be, else begin again. Neither: refuse.
        report, step_report: told of every epoch, and of every (step, steps in all).

    Raises SettingError when `out` holds a run that may not be touched, or mixed precision is asked of a CPU.
    """
    if recipe.mixed_precision and device.type == "cpu":
        raise SettingError("mixed_precision: bfloat16 training crashes on a CPU; set it to false, or use a GPU")
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    channels_last(module.to(device))
    optimiser = _optimiser(parameter_groups, recipe)
    stand, history = _take_up(out, module, optimiser, facts, resume=resume, overwrite=overwrite)
    samples_per_epoch = len(dataset.epoch_keys(0, recipe.clips_per_video))
    steps_per_epoch = math.ceil(samples_per_epoch / (recipe.batch * recipe.accumulate))

    for epoch in range(stand.epoch, recipe.epochs):
        if recipe.schedule == "steps" and epoch in recipe.milestones and stand.best_epoch >= 0:
            module.load_state_dict(read_weights(out / "best.safetensors").state)
        module.train()
        sums: dict[str, float] = {}
        for step, batches in enumerate(_steps(dataset, recipe, epoch)):
            done = epoch * steps_per_epoch + step
            _set_rate(optimiser, recipe, epoch, done / (recipe.epochs * steps_per_epoch))
            optimiser.zero_grad(set_to_none=True)
            samples = sum(len(batch.clip) for batch in batches)
            for batch in batches:
                batch = batch.to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=recipe.mixed_precision):
                    logits = module(batch.clip)
                terms = loss_terms({level: maps.float() for level, maps in logits.items()}, batch)
                share = len(batch.clip) / samples
                torch.autograd.backward(torch.stack(list(terms.values())).sum() * share)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(term.detach()) * share / steps_per_epoch
            optimiser.step()
            step_report(done + 1, recipe.epochs * steps_per_epoch)

        stand.epoch = epoch + 1
        validation = None
        if stand.epoch % recipe.validate_every == 0 or stand.epoch == recipe.epochs:
            module.eval()
            validation = dict(validate())
            score = next(iter(validation.values()))
            if score < stand.best_score:
                stand.best_score, stand.best_epoch = score, epoch
                write_weights(out / "best.safetensors", module.state_dict(), {**facts, "epoch": epoch})
        history.append(EpochReport(epoch, sums, validation, optimiser.param_groups[0]["lr"]))
        _save(out, module, optimiser, stand, history, facts)
        report(history[-1])

    if stand.best_epoch < 0:
        raise SettingError(f"{out}: no epoch had a finite validation score; lower the learning rate")
    return Fitted(out / "best.safetensors", stand.best_epoch, tuple(history), time.monotonic() - started)


def _optimiser(groups: Sequence[dict[str, Any]], recipe: Recipe) -> torch.optim.Optimizer:
    for group in groups:
        group.setdefault("rate", 1.0)
    defaults: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, **defaults)
    return (torch.optim.Adam if recipe.optimiser == "adam" else torch.optim.AdamW)(groups, fused=True, **defaults)


def _set_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, epoch: int, progress: float) -> None:
    """Set the learning rate of the step that begins; `progress` is the share of all steps already taken, [0, 1)."""
    rate = recipe.learning_rate
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * progress))
    else:
        rate *= recipe.decay ** sum(epoch >= milestone for milestone in recipe.milestones)
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate"]


def _steps(dataset: ClipDataset, recipe: Recipe, epoch: int) -> Iterator[list[Batch]]:
    """The batches of one epoch, loaded ahead in threads, `accumulate` of them for each optimiser step."""
    keys = dataset.epoch_keys(epoch, recipe.clips_per_video)
    groups = [keys[start : start + recipe.batch] for start in range(0, len(keys), recipe.batch)]
    # A loader thread that used torch's threads, too, would fight for the cores with the one that trains.
    with ThreadPoolExecutor(max_workers=2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        ahead: deque[list[Future[Batch]]] = deque()
        step: list[Batch] = []
        for group in (*groups, None, None):
            if group is not None:
                ahead.append([pool.submit(dataset.__getitem__, key) for key in group])
            if ahead and (len(ahead) > 2 or group is None):
                step.append(collate([sample.result() for sample in ahead.popleft()]))
            if len(step) == recipe.accumulate:
                yield step
                step = []
        if step:
            yield step


def _save(
    out: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    stand: _Progress,
    history: Sequence[EpochReport],
    facts: Mapping[str, Any],
) -> None:
    """Write the state of the run; each file is written beside and renamed, the one that resume trusts last."""
    write_weights(out / "last.safetensors", module.state_dict(), {**facts, "epoch": stand.epoch - 1})
    _replace(out / "history.jsonl", lambda path: path.write_text(_lines(history)))
    state = {
        "facts": json.dumps(facts, sort_keys=True),
        "stand": asdict(stand),
        "history": _lines(history),
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    _replace(out / "state.pt", lambda path: torch.save(state, path))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    partial = path.with_suffix(".partial")
    write(partial)
    partial.replace(path)


def _lines(history: Sequence[EpochReport]) -> str:
    return "".join(json.dumps(asdict(epoch)) + "\n" for epoch in history)


def _take_up(
    out: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[_Progress, list[EpochReport]]:
    """Go on with the run in `out` where that is wanted and possible, else begin one."""
    path = out / "state.pt"
    if not path.exists():
        return _Progress(), []
    if not resume and not overwrite:
        raise SettingError(f"{out}: holds a run already; --resume goes on with it, --overwrite begins again")
    if resume:
        state = torch.load(path, weights_only=True, map_location="cpu")
        if state["facts"] == json.dumps(facts, sort_keys=True):
            module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
            history = [EpochReport(**json.loads(line)) for line in state["history"].splitlines()]
            return _Progress(**state["stand"]), history
        if not overwrite:
            raise SettingError(f"{out}: holds a run with other settings; give another --out, or add --overwrite")
    return _Progress(), []
