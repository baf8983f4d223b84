"""A run that is killed, interrupted or left without room goes on as if it had not been; one that goes astray stops."""

import errno
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.stages.training.test_training import RECIPE, _train
from tinyhd_pipe.stages import student_train as student
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.training.checkpoint import first_difference
from tinyhd_pipe.stages.training.dataset import Batch
from tinyhd_pipe.stages.training.history import StepReport
from tinyhd_pipe.stages.training.optimisation import learning_rate
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import Store
from tinyhd_pipe.store.errors import SettingError, TinyHDError, TrainingError

RESULTS = ("best.safetensors", "last.safetensors", "history.csv")
SHORT = replace(RECIPE, epochs=2, milestones=(), clips_per_video=2)


class _KilledError(Exception):
    pass


def _kill_at(done: int) -> Callable[[StepReport], None]:
    def kill(step: StepReport) -> None:
        if step.done == done:
            raise _KilledError

    return kill


def _results(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in RESULTS}


@pytest.mark.slow
def test_killed_at_any_step_it_goes_on_from_the_last_checkpoint_and_ends_with_the_same_bytes(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    recipe = replace(
        RECIPE, epochs=3, clips_per_video=2, accumulate=2, batch=1, average=0.9, warm_up=1.5, clip_norm=1.0
    )
    steps: list[int] = []
    _train(store, sources, tmp_path / "whole", recipe, step_done=lambda step: steps.append(step.total))
    for kill in (2, 4, steps[0] // 3 + 1, steps[0] - 1):
        run = tmp_path / f"killed at {kill}"
        with pytest.raises(_KilledError):
            _train(store, sources, run, recipe, step_done=_kill_at(kill), checkpoint_minutes=0)
        told: list[int] = []
        _train(store, sources, run, recipe, resume=True, step_done=lambda step, told=told: told.append(step.done))
        assert told[0] == kill, "only what was not saved is done again"
        assert _results(run) == _results(tmp_path / "whole"), f"killed at step {kill}"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_waits_for_the_step_at_work_and_loses_nothing(
    store: Store, sources: list[VideoSource], tmp_path: Path, sent: signal.Signals
) -> None:
    _train(store, sources, tmp_path / "whole", SHORT)
    step = torch.optim.SGD.step
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as the command line has it

    def interrupted(self: torch.optim.SGD, *args: Any) -> Any:
        os.kill(os.getpid(), sent)  # in the middle of it
        return step(self, *args)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.optim.SGD, "step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                _train(store, sources, tmp_path / "run", SHORT)
    finally:
        signal.signal(signal.SIGTERM, before)
    told: list[int] = []
    _train(store, sources, tmp_path / "run", SHORT, resume=True, step_done=lambda step: told.append(step.done))
    assert told[0] == 2, "the first step was done, and kept"
    assert _results(tmp_path / "run") == _results(tmp_path / "whole")


def test_a_full_disk_names_the_file_and_keeps_the_checkpoint_before(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    _train(store, sources, tmp_path / "whole", SHORT)
    synced = os.fsync
    epochs: list[int] = []

    def full(descriptor: int) -> None:
        if epochs:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises((OSError, TinyHDError), match="No space left on device") as raised:
            _train(store, sources, run, SHORT, epoch_done=lambda epoch: epochs.append(epoch.epoch))
    assert str(run) in str(raised.value)
    assert not list(run.glob("*.partial"))
    _train(store, sources, run, SHORT, resume=True)
    assert _results(run) == _results(tmp_path / "whole")


def test_a_loss_that_is_no_number_stops_with_the_samples_named_and_the_last_good_checkpoint_kept(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    _train(store, sources, tmp_path / "whole", SHORT)
    right = student._terms
    epochs: list[int] = []

    def poisoned(logits: Mapping[str, Tensor], batch: Batch, **weights: float) -> dict[str, Tensor]:
        terms = right(logits, batch, **weights)
        return {name: term * (float("nan") if epochs else 1.0) for name, term in terms.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(student, "_terms", poisoned)
        with pytest.raises(TrainingError, match=r"= nan on 00\d frames \d+ to \d+.*the last checkpoint") as raised:
            _train(store, sources, tmp_path / "run", SHORT, epoch_done=lambda epoch: epochs.append(epoch.epoch))
    assert "\n" not in str(raised.value)
    _train(store, sources, tmp_path / "run", SHORT, resume=True)
    assert _results(tmp_path / "run") == _results(tmp_path / "whole")


def test_a_checkpoint_of_another_run_is_refused_with_the_first_fact_that_differs(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    _train(store, sources, tmp_path / "run", SHORT)
    with pytest.raises(SettingError, match=r"other settings: recipe.seed = 3, not 4"):
        _train(store, sources, tmp_path / "run", replace(SHORT, seed=4), resume=True)
    with pytest.raises(SettingError, match=r"other settings: videos_sha256 = |other settings: learned_from = "):
        _train(store, sources[:-1], tmp_path / "run", SHORT, resume=True)
    facts = read_weights(tmp_path / "run/best.safetensors").facts
    fidelity = store.description.budget
    (told,) = facts["stores"]
    assert told == {"every": store.every, "flip": "none", "levels": sorted(store.levels), "fidelity": fidelity}
    assert {"code", "videos_sha256", "teacher", "recipe"} <= facts.keys()


@pytest.mark.parametrize(
    ("there", "now", "difference"),
    [
        ({"a": 1, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [1, 2]}}, None),
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, "b.c = 2, not 3"),
        ({"a": 1}, {"a": 1, "b": True}, "b = null, not true"),
        ({"a": "x" * 99}, {"a": "y"}, f'a = "{"x" * 56}..., not "y"'),
    ],
)
def test_the_first_difference_of_two_trees_is_named_by_its_place(there: Any, now: Any, difference: str | None) -> None:
    assert first_difference(there, now) == difference


def test_warm_up_clipping_and_averaging_move_the_weights_otherwise(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    plain = _train(store, sources, tmp_path / "plain", SHORT)
    for name, value in {"average": 0.9, "clip_norm": 1e-3, "warm_up": 2.0}.items():
        other = _train(store, sources, tmp_path / name, replace(SHORT, **{name: value}))
        assert other.history[-1].validation != plain.history[-1].validation, name
    last = [read_weights(tmp_path / name / "last.safetensors").state for name in ("plain", "average")]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0]), "the average is of the same weights"


def test_the_rate_rises_over_the_warm_up_to_what_the_schedule_says() -> None:
    warm = replace(RECIPE, epochs=4, warm_up=1.0, milestones=(2,))
    rates = [learning_rate(warm, step=step, steps_per_epoch=4) for step in range(16)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, *[0.01] * 4, *[0.001] * 8])


def test_training_ends_when_nothing_better_has_come_for_long_enough(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    still = replace(SHORT, epochs=20, learning_rate=1e-12, patience=2)
    early = _train(store, sources, tmp_path / "still", still)
    assert len(early.history) < 20
    assert len(early.history) - 1 - early.best_epoch == 2, "two validations brought nothing better"
    again: list[int] = []
    _train(store, sources, tmp_path / "still", still, resume=True, step_done=lambda step: again.append(step.done))
    assert not again, "it has ended"
    both = {"resume": True, "overwrite": True, "step_done": lambda step: again.append(step.done)}
    _train(store, sources, tmp_path / "still", still, **both)
    assert again[0] == 1, "asked for anew, it begins again"
