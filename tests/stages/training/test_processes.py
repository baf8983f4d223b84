"""Several processes are one run: what they learn is what one learns of the same batches, and they end together."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from tests.moving_dot import SIZE
from tests.warm_command import ONE_THREAD, ROOT, Running, WarmCommand
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.training.processes import joined
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import Store
from tinyhd_pipe.store.errors import SettingError

TORCHRUN = Path(sys.executable).with_name("torchrun")
SMALL = ("reduction=4", f"size={list(SIZE)}", "decoders=[d1,d2]", "validation_share=0.5", "validation_clips=1")
UNEVEN = ("epochs=3", "milestones=[1]", "batch=2", "clips_per_video=3", "unlabelled_per_labelled=0.5")
"""Five samples an epoch: batches of 2, 2 and 1."""
THREE_EPOCHS = ("epochs=3", "milestones=[]", "batch=1", "accumulate=2", "clips_per_video=4")
LONG = ("epochs=300", "batch=1", "accumulate=2")
"""Until it is stopped."""


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmCommand]:
    with WarmCommand() as warm:
        yield warm


@dataclass(frozen=True)
class Ended:
    """What became of one of the processes."""

    code: int
    said: str


@dataclass(frozen=True)
class Trainings:
    """Runs of one training in one process or several."""

    warm: WarmCommand
    root: Path
    arguments: tuple[str, ...]

    def start(self, name: str, settings: Sequence[str], *more: str, processes: int) -> list[Running]:
        """Begin; the run's folder is called `name`."""
        chosen = ("--set", *(f"student_train.{setting}" for setting in (*SMALL, *settings)))
        command = ("student-train", *self.arguments, *chosen, "--out", str(self.root / name), *more)
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(processes)}
        return [
            self.warm.start(
                command, self.root / f"{name}.{rank}.txt", {**place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            )
            for rank in range(processes)
        ]

    def run(self, name: str, settings: Sequence[str], *more: str, processes: int) -> list[Ended]:
        return _ended(self.start(name, settings, *more, processes=processes))


def _ended(started: Sequence[Running]) -> list[Ended]:
    return [Ended(running.wait(), running.output.read_text()) for running in started]


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def _trainings(warm: WarmCommand, store: Store, sources: list[VideoSource], root: Path) -> Trainings:
    videos = sources[0].path.parent
    arguments = ("--store", store.url, "--videos", str(videos), "--labels", str(videos.parent), "--device", "cpu")
    return Trainings(warm, root, arguments)


@pytest.fixture
def trainings(warm: WarmCommand, store: Store, sources: list[VideoSource], tmp_path: Path) -> Trainings:
    return _trainings(warm, store, sources, tmp_path)


@pytest.fixture(scope="module")
def whole(
    warm: WarmCommand, store: Store, sources: list[VideoSource], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run in one process that was never stopped."""
    trainings = _trainings(warm, store, sources, tmp_path_factory.mktemp("whole"))
    assert trainings.run("run", THREE_EPOCHS, processes=1)[0].code == 0
    return trainings.root / "run"


def _history(run: Path) -> list[dict[str, float]]:
    """Every figure of every epoch, by name."""
    epochs = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    kinds = ("loss", "validation")
    return [{f"{kind} {name}": x for kind in kinds for name, x in (epoch[kind] or {}).items()} for epoch in epochs]


def _assert_alike(one: Path, other: Path) -> None:
    """The same curve and the same weights and statistics, but for rounding."""
    curves = [_history(run) for run in (one, other)]
    assert curves[0]
    for epoch, same in zip(*curves, strict=True):
        assert epoch == pytest.approx(same, rel=1e-4)
    states = [read_weights(run / "last.safetensors").state for run in (one, other)]
    for name, values in states[0].items():
        torch.testing.assert_close(values.double(), states[1][name].double(), rtol=1e-3, atol=1e-5, msg=name)


# Shares whose sum is the same to the last bit, whoever adds: an untrained network makes of another last bit another
# curve, by some per cent within three steps, in one process as in two.
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param((*UNEVEN, "accumulate=4"), id="two batches and a smaller one"),
        pytest.param(
            (*UNEVEN, "accumulate=2", "average=0.5", "clip_norm=1", "optimiser=adamw"),
            id="a batch each, and one left over",
        ),
    ],
)
def test_two_processes_learn_what_one_learns_of_the_same_batches(trainings: Trainings, settings: Sequence[str]) -> None:
    (alone,) = trainings.run("alone", settings, processes=1)
    first, second = trainings.run("together", settings, "--json", processes=2)
    assert [alone.code, first.code, second.code] == [0, 0, 0], first.said + second.said
    _assert_alike(trainings.root / "together", trainings.root / "alone")
    assert re.search(r"epoch (\d) of \1", first.said)
    assert '"best_epoch"' in first.said
    assert second.said == "", "only the first speaks"


@pytest.mark.parametrize(
    ("processes", "told", "sent", "code", "after"),
    [(2, 1, signal.SIGTERM, 143, 1), (2, 0, signal.SIGINT, 130, 2), (1, 0, signal.SIGTERM, 143, 2)],
)
def test_a_signal_to_any_of_them_ends_all_at_one_step_and_any_number_of_processes_goes_on(
    trainings: Trainings, whole: Path, processes: int, told: int, sent: signal.Signals, code: int, after: int
) -> None:
    run = trainings.root / "run"
    started = trainings.start("run", THREE_EPOCHS, processes=processes)
    started[told].until((run / "history.csv").exists)
    started[told].signal(sent)
    first, *others = _ended(started)
    assert {first.code, *(other.code for other in others)} == {code}, first.said
    assert len(re.findall("^tinyhd-pipe: (terminated|interrupted); ", first.said, re.MULTILINE)) == 1
    assert not any(other.said for other in others)
    stand = torch.load(run / "state.pt", weights_only=True)["stand"]
    assert 0 < stand["epoch"] < 3, "it was stopped on the way"
    assert {ended.code for ended in trainings.run("run", THREE_EPOCHS, "--resume", processes=after)} == {0}
    _assert_alike(run, whole)


def test_an_error_that_one_of_them_meets_is_one_line_and_ends_all(trainings: Trainings, store: Store) -> None:
    damaged = trainings.root / "damaged.zarr"
    shutil.copytree(store.url, damaged)
    (data,) = damaged.glob("shards/*/final/c/0/0/0")
    sound = data.read_bytes()
    later = slice(len(sound) // 8, len(sound) // 5)  # of the first video, behind the frames that no clip ends with
    data.write_bytes(sound[: later.start] + bytes(b ^ 1 for b in sound[later]) + sound[later.stop :])
    others = replace(trainings, arguments=("--store", str(damaged), *trainings.arguments[2:]))
    first, second = others.run("run", LONG, processes=2)
    assert [first.code, second.code] == [1, 1]
    (line,) = re.findall("^tinyhd-pipe: .*", first.said, re.MULTILINE)
    assert "damaged.zarr: shard 0, final, chunk" in line
    assert second.said == ""


def test_a_process_that_is_killed_takes_the_others_with_it_and_the_checkpoint_stays(trainings: Trainings) -> None:
    run = trainings.root / "run"
    started = trainings.start("run", LONG, processes=2)
    started[1].until((run / "history.csv").exists)
    started[1].signal(signal.SIGKILL)
    first, second = _ended(started)
    assert (first.code, second.code) == (1, -signal.SIGKILL)
    assert first.said.splitlines()[-1] == (
        "tinyhd-pipe: another process of this run has ended without a word: the last checkpoint is kept; "
        "go on with --resume"
    )
    assert (run / "state.pt").exists()


def test_batches_that_cannot_be_shared_out_are_refused_in_one_line(trainings: Trainings) -> None:
    first, second = trainings.run("run", ("accumulate=3", *SMALL), processes=2)
    assert [first.code, second.code] == [2, 2]
    assert "accumulate = 3: 2 processes share out that many batches of a step; make it a multiple of 2" in first.said
    assert second.said == ""


def test_processes_that_nobody_brought_together_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match=r"WORLD_SIZE = 2, .* RANK expected, but not set\): let torchrun"), joined():
        pass


@pytest.mark.slow
def test_torchrun_starts_them_as_the_docs_say(trainings: Trainings) -> None:
    typed = re.search(
        r"^ *torchrun --nproc-per-node 2 (.*?)student-train", (ROOT / "docs/students.md").read_text(), re.MULTILINE
    )
    assert typed
    out = trainings.root / "run"
    chosen = ("--set", *(f"student_train.{setting}" for setting in (*SMALL, "epochs=1", "accumulate=2")))
    launched = [TORCHRUN, "--nproc-per-node", "2", *typed[1].split(), "student-train", *trainings.arguments, *chosen]
    ended = subprocess.run(
        [*launched, "--out", out, "--json"],
        env={**os.environ, **ONE_THREAD, "PATH": f"{TORCHRUN.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["best_epoch"] == 0
    assert (out / "best.safetensors").exists()
