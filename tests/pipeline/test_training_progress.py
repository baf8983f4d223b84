"""Progress of training: every loss term, on a terminal in a block that stays in place, else in a line now and then."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from tests.moving_dot import SIZE, make_data, make_store
from tinyhd_pipe.pipeline import console, training_progress
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.pipeline.training_progress import TrainingProgress
from tinyhd_pipe.stages.training.history import EpochReport, StepReport
from tinyhd_pipe.stages.video.sources import find_videos

TERMS = ("conspicuity_2", "conspicuity_3", "conspicuity_4", "conspicuity_5", "final", "density")


@dataclass
class _Clock:
    now: float = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(training_progress, "time", clock)
    return clock


def _step(done: int, final: float = 1.0) -> StepReport:
    """A step of 2 samples, of 3 epochs of 4 steps."""
    return StepReport(
        done=done,
        total=12,
        epoch=(done - 1) // 4,
        epochs=3,
        loss={"final": final, "density": 0.5},
        learning_rate=0.01,
        samples=2,
    )


def _epoch(epoch: int, score: float | None) -> EpochReport:
    return EpochReport(epoch, {"final": 1.0}, None if score is None else {"density": score, "final": 9.0}, 0.01)


def test_a_line_tells_place_terms_validation_and_its_best_speed_and_time_left(clock: _Clock) -> None:
    at = TrainingProgress("student")
    at.begun(0, [])
    for done in range(1, 9):
        clock.now += 2
        at.step_done(_step(done, final=float(done)))
        if done % 4 == 0:
            at.epoch_done(_epoch(done // 4 - 1, score=0.1 * done))
    assert at.line() == (
        "student: epoch 2 of 3, step 4 of 4: loss final 6.500, density 0.500; "
        "left out, epoch 2: density 0.800, final 9.000 (best 0.400 at epoch 1); "
        "1 samples a second, 16 s, 8 s left"
    )


def test_a_run_that_goes_on_knows_its_best_and_its_speed_is_of_what_it_did_itself(clock: _Clock) -> None:
    at = TrainingProgress("student")
    clock.now += 1000  # reading the checkpoint
    at.begun(9, [_epoch(0, 0.3), _epoch(1, None)])
    clock.now += 4
    at.step_done(_step(10))
    assert "step 2 of 4" in at.line()
    assert "left out, epoch 1: density 0.300" in at.line()
    assert at.line().endswith("0.5 samples a second, 4 s, 8 s left")


def test_lines_come_now_and_then_and_once_at_the_end(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with training_progress.training_progress("student") as at:
        at.begun(0, [])
        for done in range(1, 12):
            clock.now += 3
            at.step_done(_step(done))
        seen = capsys.readouterr().err.splitlines()
        assert [line.split(":")[1] for line in seen] == [" epoch 1 of 3, step 4 of 4", " epoch 2 of 3, step 4 of 4"]
    (last,) = capsys.readouterr().err.splitlines()
    assert "epoch 3 of 3, step 3 of 4" in last


def test_a_run_that_goes_on_with_nothing_but_the_end_of_an_epoch_has_no_step_to_tell(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with training_progress.training_progress("student") as at:
        at.begun(12, [_epoch(0, 0.3), _epoch(1, 0.2)])
        clock.now += 1000
        at.epoch_done(_epoch(2, 0.1))
    assert capsys.readouterr().err == ""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A training of two epochs, without its folder."""
    root = tmp_path_factory.mktemp("dots")
    make_data(root)
    store = make_store(root / "maps.zarr", find_videos([root / "video"]))
    small = ("epochs=2", f"size={list(SIZE)}", "reduction=4", "validation_clips=1", "validation_share=0.5")
    data = ("--store", store.url, "--videos", str(root / "video"), "--labels", str(root))
    return ["student-train", *data, "--set", *(f"student_train.{setting}" for setting in small)]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    shown = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=shown, force_terminal=True, width=110, highlight=False))
    return shown


def test_a_terminal_sees_every_term_with_its_validation_in_a_block_that_is_drawn_in_place(
    command: list[str], tmp_path: Path, terminal: io.StringIO
) -> None:
    assert run([*command, "--out", str(tmp_path)]) == 0
    *_, last = terminal.getvalue().split("student: epoch")
    assert last.startswith(" 2 of 2, step")
    rows = {line.split()[0]: line.split()[1:] for line in last.splitlines() if line.strip()}
    for term in TERMS:
        assert [float(figure) > 0 for figure in rows[term]] == [True] * 3, "learned from, left out, and the best"
    assert "\x1b[1A\x1b[2K" in terminal.getvalue(), "drawn in place"


def test_a_log_sees_every_term_in_a_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*command, "--out", str(tmp_path)]) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("student: ")]
    assert all(f"{term} " in line for term in TERMS)
    assert "left out, epoch 2" in line
