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
from typing import Any

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.layout import channels_last
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.stages.settings.training import Recipe
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, collate
from tinyhd_pipe.stages.training.history import EpochReport, as_lines, as_table, read_lines
from tinyhd_pipe.store.errors import SettingError


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


@dataclass(frozen=True)
class Objective:
    """What is fitted, to what."""

    module: nn.Module
    dataset: ClipDataset
    loss_terms: Terms
    """(logits, batch) -> named terms; their sum is minimised."""
    validate: Callable[[], Mapping[str, float]]
    """Named scores of the module as it stands; the first one decides which weights are best."""
    parameter_groups: Sequence[dict[str, Any]]
    facts: Mapping[str, Any]
    """What the weights file says of itself; a resumed run must have the same."""


@dataclass(frozen=True)
class Run:
    """Where a run lives, what becomes of one that is there already, and who hears of it."""

    out: Path
    """Folder for weights and history."""
    resume: bool = False
    """Go on with the run that `out` holds, if its facts are the same."""
    overwrite: bool = False
    """Begin again. With `resume`, as DVC calls it: go on with a run that can be gone on with and has not ended, else
    begin again, because who runs a finished stage once more has changed its data or its code. Neither: refuse."""
    device: str = "cpu"
    epoch_done: Callable[[EpochReport], None] = lambda epoch: None
    step_done: Callable[[int, int], None] = lambda done, total: None
    """Told (steps done, steps in all)."""


def fit(objective: Objective, recipe: Recipe, run: Run) -> Fitted:
    """Fit a network and leave `best.safetensors`, `last.safetensors` and `history.csv` in the run's folder.

    Raises SettingError when that folder holds a run that may not be touched, or mixed precision is asked of a CPU.
    """
    device, out, module, dataset = torch.device(run.device), run.out, objective.module, objective.dataset
    if recipe.mixed_precision and device.type == "cpu":
        raise SettingError("mixed_precision: bfloat16 training crashes on a CPU; set it to false, or use a GPU")
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    channels_last(module.to(device))
    optimiser = _optimiser(objective.parameter_groups, recipe)
    stand, history = _take_up(run, objective, optimiser, epochs=recipe.epochs)
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
                terms = objective.loss_terms({level: maps.float() for level, maps in logits.items()}, batch)
                share = len(batch.clip) / samples
                torch.autograd.backward(torch.stack(list(terms.values())).sum() * share)
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + float(term.detach()) * share / steps_per_epoch
            optimiser.step()
            run.step_done(done + 1, recipe.epochs * steps_per_epoch)

        stand.epoch = epoch + 1
        validation = None
        if stand.epoch % recipe.validate_every == 0 or stand.epoch == recipe.epochs:
            module.eval()
            validation = dict(objective.validate())
            score = next(iter(validation.values()))
            if score < stand.best_score:
                stand.best_score, stand.best_epoch = score, epoch
                write_weights(out / "best.safetensors", module.state_dict(), {**objective.facts, "epoch": epoch})
        history.append(EpochReport(epoch, sums, validation, optimiser.param_groups[0]["lr"]))
        _save(out, objective, optimiser, stand, history)
        run.epoch_done(history[-1])

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
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    stand: _Progress,
    history: Sequence[EpochReport],
) -> None:
    """Write the state of the run; each file is written beside and renamed, the one that resume trusts last."""
    module, facts = objective.module, objective.facts
    write_weights(out / "last.safetensors", module.state_dict(), {**facts, "epoch": stand.epoch - 1})
    _replace(out / "history.jsonl", lambda path: path.write_text(as_lines(history)))
    _replace(out / "history.csv", lambda path: path.write_text(as_table(history)))
    state = {
        "facts": json.dumps(facts, sort_keys=True),
        "stand": asdict(stand),
        "history": as_lines(history),
        "module": module.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    _replace(out / "state.pt", lambda path: torch.save(state, path))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    partial = path.with_suffix(".partial")
    write(partial)
    partial.replace(path)


def _take_up(
    run: Run, objective: Objective, optimiser: torch.optim.Optimizer, *, epochs: int
) -> tuple[_Progress, list[EpochReport]]:
    """Go on with the run that is there where that is wanted and possible, else begin one."""
    out, module = run.out, objective.module
    path = out / "state.pt"
    if not path.exists():
        return _Progress(), []
    if not run.resume and not run.overwrite:
        raise SettingError(f"{out}: holds a run already; --resume goes on with it, --overwrite begins again")
    if run.resume:
        state = torch.load(path, weights_only=True, map_location="cpu")
        ended = state["stand"]["epoch"] == epochs
        if state["facts"] == json.dumps(objective.facts, sort_keys=True) and not (ended and run.overwrite):
            module.load_state_dict(state["module"])
            optimiser.load_state_dict(state["optimiser"])
            history = read_lines(state["history"])
            return _Progress(**state["stand"]), history
        if not run.overwrite:
            raise SettingError(f"{out}: holds a run with other settings; give another --out, or add --overwrite")
    return _Progress(), []
