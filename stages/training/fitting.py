"""The training loop that teacher and student share: it reads from top to bottom, and can be killed anywhere.

Between two steps the whole state can be written beside and renamed (checkpoint.py): after every epoch, every few
minutes, and when Ctrl-C or SIGTERM comes, which wait for the step at work. A run that resumes draws the same samples
and ends with the bytes of one that was never killed. `best.safetensors` holds the weights with the lowest validation
score. Cost: a step is the network's; loading runs in threads beside it, since decoding, decompression and resizing all
release the interpreter's lock.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.device import make_current
from tinyhd_pipe.stages.networks.precision import keep_float32
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.stages.settings.training import Recipe
from tinyhd_pipe.stages.training.checkpoint import STATE, Held, Stand, first_difference, has_ended, save, take_up
from tinyhd_pipe.stages.training.dataset import ClipDataset, Terms
from tinyhd_pipe.stages.training.execution import Trained, laid_out, trained
from tinyhd_pipe.stages.training.history import EpochReport, StepReport
from tinyhd_pipe.stages.training.loading import Part, keys_left, parts
from tinyhd_pipe.stages.training.optimisation import average_of, clip, learning_rate, optimiser_of, set_rate
from tinyhd_pipe.stages.training.processes import ALONE, Processes
from tinyhd_pipe.stages.training.record import Recording, of_run, recorded
from tinyhd_pipe.stages.training.signals import uninterrupted
from tinyhd_pipe.stages.training.tensorboard import Log, tensorboard
from tinyhd_pipe.store.errors import SettingError, TrainingError


@dataclass(frozen=True)
class Fitted:
    """A finished training run."""

    best: Path
    """Weights with the lowest validation score, `best.safetensors`."""
    best_epoch: int
    history: tuple[EpochReport, ...]
    seconds: float
    licence: str
    """Terms under which the weights may be handed on."""
    left_out: tuple[str, ...] = ()
    """A line for each kind of thing that was given and not learned from."""


@dataclass(frozen=True)
class Objective:
    """What is fitted, to what."""

    module: nn.Module
    dataset: ClipDataset
    loss_terms: Terms
    """Their sum is minimised."""
    validate: Callable[[nn.Module], Mapping[str, float]]
    """Named scores of the network that it is given, lower is better; the first decides which weights are best."""
    picture: Callable[[nn.Module, Path], Path]
    """Draws what the network that it is given makes of clips left out, into that PNG."""
    parameter_groups: Sequence[dict[str, Any]]
    facts: Mapping[str, Any]
    """What the weights file says of itself; a resumed run must have the same."""
    left_out: tuple[str, ...] = ()
    """A line for each kind of thing that was given and is not learned from."""


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
    checkpoint_minutes: float = 10.0
    """Between two checkpoints within an epoch; there is one after every epoch and at Ctrl-C or SIGTERM, too."""
    processes: Processes = ALONE
    """Those that share out the steps; the first of them alone writes, validates and tells."""
    tensorboard: bool = False
    """Log for TensorBoard, in `out`/tensorboard."""
    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Option -> paths and URLs of the data, which `run.json` keeps for those who report on the run."""
    left_out: Callable[[str], None] = lambda line: None
    """Told, before anything is learned, what is not learned from: a line for each kind of thing."""
    begun: Callable[[int, Sequence[EpochReport]], None] = lambda done, history: None
    """Told, before the first step, how many are done already and what the epochs before were."""
    step_done: Callable[[StepReport], None] = lambda step: None
    epoch_done: Callable[[EpochReport], None] = lambda epoch: None


@dataclass(frozen=True)
class _Work:
    """A run at work: what is fitted, how, and how far it has come."""

    objective: Objective
    recipe: Recipe
    run: Run
    held: Held
    network: Trained
    stand: Stand
    log: Log
    steps_per_epoch: int
    recording: Recording


def fit(objective: Objective, recipe: Recipe, run: Run) -> Fitted:
    """Fit a network and leave its weights (`best.safetensors`, `last.safetensors`), `history.csv`, `run.json` and
    `validation.png` in the run's folder.

    Raises SettingError when that folder holds a run that may not be touched, mixed precision is asked of a CPU, or
    TensorBoard where it is not installed; TrainingError, with the samples named and the last good checkpoint kept, when
    a loss or a gradient is not finite.
    """
    _refuse_what_cannot_be(recipe, run)
    for line in objective.left_out:
        run.left_out(line)
    started = time.monotonic()
    run.out.mkdir(parents=True, exist_ok=True)
    make_current(run.device)
    keep_float32(run.device)
    module = laid_out(objective.module.to(run.device), recipe)
    held = Held(module, average_of(module, recipe), optimiser_of(objective.parameter_groups, recipe))
    stand = _begin(run, objective, held)
    _refuse_other_processes(run, objective.facts, stand)
    samples_per_epoch = len(objective.dataset.epoch_keys(0, recipe.clips_per_video))
    steps_per_epoch = math.ceil(samples_per_epoch / (recipe.batch * recipe.accumulate))
    done = stand.epoch * steps_per_epoch + stand.step

    with tensorboard(run.out / "tensorboard", done=done, wanted=run.tensorboard and run.processes.is_first) as log:
        recording = recorded(run.out, of_run(objective.dataset, run.given, run.device, samples_per_epoch), done)
        network = trained(module, recipe)
        work = _Work(objective, recipe, run, held, network, stand, log, steps_per_epoch, recording)
        run.begun(done, stand.history)
        try:
            while not stand.has_ended:
                _epoch(work)
        except KeyboardInterrupt:
            with uninterrupted():
                _keep(work)
            raise

    if stand.best_epoch < 0:
        raise SettingError(f"{run.out}: no epoch had a finite validation score; lower the learning rate")
    return Fitted(
        best=run.out / "best.safetensors",
        best_epoch=stand.best_epoch,
        history=tuple(stand.history),
        seconds=time.monotonic() - started,
        licence=objective.facts["licence"],
        left_out=(*objective.left_out, *_met(objective, run)),
    )


def _met(objective: Objective, run: Run) -> tuple[str, ...]:
    """What could not be learned from, as was seen on the way; the run is told."""
    unreadable = tuple(objective.dataset.frames.unreadable)
    lines = (f"{len(unreadable)} density maps that cannot be read: {unreadable[0]}",) if unreadable else ()
    for line in lines:
        run.left_out(line)
    return lines


def _epoch(work: _Work) -> None:
    """Take the steps that are left of an epoch, validate, and write it down."""
    recipe, run, stand = work.recipe, work.run, work.stand
    if not stand.step and recipe.schedule == "steps" and stand.epoch in recipe.milestones:
        _take_up_the_best(run.out, work.held, stand)
    work.held.module.train()
    kept = time.monotonic()
    for part in parts(work.objective.dataset, recipe, run.processes, stand, device=run.device):
        run.step_done(_step(work, part))
        run.processes.obey()
        if time.monotonic() - kept > 60 * run.checkpoint_minutes:
            _keep(work)
            kept = time.monotonic()
    _end_epoch(work)
    _keep(work)
    run.epoch_done(stand.history[-1])
    run.processes.obey()


def _step(work: _Work, part: Part) -> StepReport:
    """Take one optimiser step; Ctrl-C and SIGTERM wait for its end."""
    recipe, held, stand = work.recipe, work.held, work.stand
    done = stand.epoch * work.steps_per_epoch + stand.step
    rate = learning_rate(recipe, step=done, steps_per_epoch=work.steps_per_epoch)
    set_rate(held.optimiser, rate)
    with uninterrupted():
        terms = work.run.processes.combined(held.module, lambda: _gradients(work, part), len(part.batches))
        _refuse_what_is_not_finite(terms, clip(held.module, recipe.clip_norm), work.objective.dataset, recipe, stand)
        _move(held, stand, {name: term / work.steps_per_epoch for name, term in terms.items()})
        report = StepReport(
            done=done + 1,
            total=recipe.epochs * work.steps_per_epoch,
            epoch=stand.epoch,
            epochs=recipe.epochs,
            loss=terms,
            learning_rate=rate,
            samples=part.samples,
        )
        work.log.step(report)
    return report


def _keep(work: _Work) -> None:
    """Write a checkpoint, after all that was logged up to it."""
    if work.run.processes.is_first:
        work.log.flush()
        save(work.run.out, work.objective.facts, work.held, work.stand)
        work.recording.write(work.run.out)


def _refuse_what_cannot_be(recipe: Recipe, run: Run) -> None:
    if recipe.mixed_precision and torch.device(run.device).type == "cpu":
        raise SettingError("mixed_precision: bfloat16 training crashes on a CPU; set it to false, or use a GPU")
    if recipe.accumulate % run.processes.count:
        raise SettingError(
            f"accumulate = {recipe.accumulate}: {run.processes.count} processes share out that many batches of a step; "
            f"make it a multiple of {run.processes.count}"
        )


def _refuse_other_processes(run: Run, facts: Mapping[str, Any], stand: Stand) -> None:
    """All processes must see the same videos and maps, settings and checkpoint; none goes on before all have looked."""
    first, *others = run.processes.exchanged({**facts, "steps done": [stand.epoch, stand.step]})
    for rank, other in enumerate(others, start=1):
        if difference := first_difference(first, other):
            raise SettingError(
                f"process {rank} differs from the first: {difference}; give all the same files, folder and settings"
            )


def _begin(run: Run, objective: Objective, held: Held) -> Stand:
    """Go on with the run that is there where that is wanted and possible, else begin one."""
    out = run.out
    if not (out / STATE).exists():
        return Stand()
    if not run.resume and not run.overwrite:
        raise SettingError(f"{out}: holds a run already; --resume goes on with it, --overwrite begins again")
    if not run.resume or (run.overwrite and has_ended(out)):
        return Stand()
    try:
        return take_up(out, objective.facts, held)
    except SettingError:
        if not run.overwrite:
            raise
    return Stand()


def _gradients(work: _Work, part: Part) -> dict[str, float]:
    """Leave the gradients of a part of a step; returns its share of every term's mean over the step's samples, nats.

    Only the network runs in bfloat16 where that is asked for; weights, losses and optimiser stay in float32. Its range
    is float32's, so that no loss has to be scaled.
    """
    device = torch.device(work.run.device)
    work.held.optimiser.zero_grad(set_to_none=True)
    figures: list[tuple[float, list[str], Tensor]] = []
    for batch in (batch.to(device) for batch in part.batches):
        with torch.autocast(device.type, torch.bfloat16, enabled=work.recipe.mixed_precision):
            logits = work.network(batch.clip)
        terms = work.objective.loss_terms({level: maps.float() for level, maps in logits.items()}, batch)
        share = len(batch.clip) / part.samples
        together = torch.stack(list(terms.values()))
        torch.autograd.backward(together.sum() * share)
        figures.append((share, list(terms), together.detach()))
    sums: dict[str, float] = {}
    for share, names, values in figures:  # asked for at the end, since a GPU would stand still for each
        for name, value in zip(names, values.tolist(), strict=True):
            sums[name] = sums.get(name, 0.0) + value * share
    return sums


def _refuse_what_is_not_finite(
    terms: Mapping[str, float], norm: float, dataset: ClipDataset, recipe: Recipe, stand: Stand
) -> None:
    """Stop before the optimiser spreads what is no number over all weights."""
    figures = {**terms, "norm of the gradient": norm}
    wrong = next((f"{name} = {figure}" for name, figure in figures.items() if not math.isfinite(figure)), None)
    if wrong:
        keys = keys_left(dataset, recipe, stand)[: recipe.batch * recipe.accumulate]
        samples = "; ".join(dataset.describe(key) for key in keys)
        raise TrainingError(
            f"{wrong} on {samples}: the last checkpoint is kept; look at these samples, lower learning_rate, or set "
            "clip_norm"
        )


def _move(held: Held, stand: Stand, shares: Mapping[str, float]) -> None:
    """Take the step whose gradients are there, and count it."""
    held.optimiser.step()
    if held.average is not None:
        held.average.update_parameters(held.module)
    stand.step += 1
    for name, share in shares.items():
        stand.sums[name] = stand.sums.get(name, 0.0) + share


def _end_epoch(work: _Work) -> None:
    """Validate and draw where it is time, keep the best weights, and write the epoch down."""
    recipe, stand = work.recipe, work.stand
    done = stand.epoch + 1
    validation, picture = work.run.processes.from_first(lambda: _look_at_clips_left_out(work))
    with uninterrupted():
        rate = work.held.optimiser.param_groups[0]["lr"]
        stand.history.append(EpochReport(stand.epoch, dict(stand.sums), validation, rate))
        work.log.epoch(stand.history[-1], picture)
        if validation is not None and _is_better(validation, stand):
            stand.best_score, stand.best_epoch = next(iter(validation.values())), stand.epoch
        stand.epoch, stand.step, stand.sums = done, 0, {}
        stand.has_ended = done == recipe.epochs or _has_stalled(stand, recipe)


def _look_at_clips_left_out(work: _Work) -> tuple[dict[str, float] | None, Path | None]:
    """Scores and picture, each where it is time for it; weights with better scores than any before are written."""
    out, objective, recipe, stand = work.run.out, work.objective, work.recipe, work.stand
    done = stand.epoch + 1
    scored = work.held.scored.eval()
    validation = picture = None
    if done % recipe.validate_every == 0 or done == recipe.epochs:
        validation = dict(objective.validate(scored))
        if _is_better(validation, stand):
            write_weights(out / "best.safetensors", scored.state_dict(), {**objective.facts, "epoch": stand.epoch})
    if recipe.picture_every and (done % recipe.picture_every == 0 or done == recipe.epochs):
        picture = objective.picture(scored, out / "validation.png")
    return validation, picture


def _is_better(validation: Mapping[str, float], stand: Stand) -> bool:
    return next(iter(validation.values())) < stand.best_score


def _has_stalled(stand: Stand, recipe: Recipe) -> bool:
    """Whether the last `patience` validations brought nothing better."""
    since = [epoch for epoch in stand.history if epoch.validation is not None and epoch.epoch > stand.best_epoch]
    return recipe.patience is not None and len(since) >= recipe.patience


def _take_up_the_best(out: Path, held: Held, stand: Stand) -> None:
    """Published: at a milestone training goes on from the best weights so far."""
    if stand.best_epoch >= 0:
        best = read_weights(out / "best.safetensors").state
        held.module.load_state_dict(best)
        if held.average is not None:
            held.average.module.load_state_dict(best)
