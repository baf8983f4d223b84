"""Real trainings on the command line, killed anywhere by SIGKILL: --resume ends with the bytes of one never killed."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.moving_dot import make_data, make_store
from tests.stages.training.test_resuming import SHORT, _kill_at, _KilledError, _results
from tests.stages.training.test_training import _train
from tests.warm_command import Death, WarmCommand
from tinyhd_pipe.stages.training.checkpoint import STATE, Held
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import Store

KILLS = int(os.environ.get("KILLS", "20"))
SETTINGS = (
    *("size=[32,64]", "epochs=2", "clips_per_video=4", "batch=1", "accumulate=2", "optimiser=adamw", "average=0.9"),
    *("warm_up=1", "clip_norm=1", "decoders=[d1,d2]", "reduction=4", "validation_share=0.5", "validation_clips=1"),
    "seed=3",
)
RESULTS = ("best.safetensors", "history.csv", "history.jsonl", "last.safetensors", "validation.png")


@dataclass(frozen=True)
class Place:
    """What all of these runs learn from, and what they must end with."""

    warm: WarmCommand
    data: Path
    whole: dict[str, bytes]
    seconds: float
    """What one of these runs takes."""

    def training(self, out: Path, *more: object) -> list[object]:
        return _training(self.data, out, *more)


def _training(data: Path, out: Path, *more: object) -> list[object]:
    sets = [f"student_train.{setting}" for setting in SETTINGS]
    where = ["--videos", data / "video", "--labels", data, "--store", data / "maps.zarr", "--out", out]
    return ["student-train", *where, "--device", "cpu", *more, "--set", *sets]


def _content(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in RESULTS}


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    room = Path("/dev/shm")  # in memory where that is possible: a kill loses no page, and nothing waits for a disk
    with (
        tempfile.TemporaryDirectory(dir=room if os.access(room, os.W_OK) else None) as name,
        WarmCommand() as warm,
    ):
        folder = Path(name)
        make_data(folder / "data")
        make_store(folder / "data/maps.zarr", find_videos([folder / "data/video"]))
        for run in ("first", "whole"):
            started = time.monotonic()
            code, said = warm.run(_training(folder / "data", folder / run), folder / "log")
            assert code == 0, said
        assert _content(folder / "first") == _content(folder / "whole"), "a run is repeatable"
        yield Place(warm, folder / "data", _content(folder / "whole"), time.monotonic() - started)


@pytest.mark.slow
def test_killed_at_random_again_and_again_a_run_ends_with_the_bytes_of_one_never_killed(place: Place) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    alive = runs = 0
    kept = set()
    while alive < KILLS or (len(kept) <= 4 and runs < 12):  # on a busy machine fewer of them get far
        run = place.data.parent / f"run {runs}"
        minutes = (0.0, 0.002, 10.0)[runs % 3]
        runs += 1
        for _ in range(7):
            running = place.warm.start(
                place.training(run, "--resume", "--checkpoint-minutes", minutes), place.data.parent / "killed.log"
            )
            time.sleep(rng.random() * place.seconds * 0.6)
            running.signal(signal.SIGKILL)
            alive += running.wait() == -signal.SIGKILL
            kept.add((run / STATE).read_bytes() if (run / STATE).exists() else b"")
        code, said = place.warm.run(place.training(run, "--resume"), place.data.parent / "resumed.log")
        assert code == 0, said
        assert _content(run) == place.whole, f"seed {seed}, run {runs}"
        assert not list(run.glob("*.partial"))
        shutil.rmtree(run)
    assert len(kept) > 4, "they were spread over the run"


@pytest.mark.parametrize(
    ("file", "cut"), [(STATE, False), (STATE, True), ("last.safetensors", True), ("best.safetensors", False)]
)
def test_killed_while_a_checkpoint_is_written_it_goes_on_from_the_one_before(
    place: Place, file: str, cut: bool
) -> None:
    run = place.data.parent / f"{file}, {cut}"
    log = place.data.parent / "killed.log"
    running = place.warm.start(place.training(run, "--checkpoint-minutes", 0), log, dies=Death(file, time=2, cut=cut))
    assert running.wait() == -signal.SIGKILL, log.read_text()
    assert list(run.glob("*.partial")), "the kill fell into the writing"
    code, said = place.warm.run(place.training(run, "--resume"), log)
    assert code == 0, said
    assert _content(run) == place.whole
    assert not list(run.glob("*.partial"))


@pytest.mark.slow
def test_the_command_that_people_type_is_killed_and_goes_on(place: Place) -> None:
    run = place.data.parent / "typed"
    command = Path(sys.executable).with_name("tinyhd-pipe")
    arguments = [str(argument) for argument in place.training(run, "--checkpoint-minutes", 0)]
    with subprocess.Popen(
        [command, *arguments], stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        while not (run / STATE).exists() and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    code, said = place.warm.run(place.training(run, "--resume"), place.data.parent / "typed.log")
    assert code == 0, said
    assert _content(run) == place.whole


def _forgets_optimiser(held: Held, state: Any) -> None:
    _TAKE_UP(held, {**state, "optimiser": held.optimiser.state_dict()})


def _forgets_average(held: Held, state: Any) -> None:
    assert held.average is not None
    _TAKE_UP(held, {**state, "average": held.average.state_dict()})


_TAKE_UP = Held.take_up


@pytest.mark.slow
def test_a_state_that_is_not_put_back_would_be_noticed(
    store: Store, sources: list[VideoSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(SHORT, average=0.9)
    _train(store, sources, tmp_path / "whole", recipe)
    for name, take_up in {"right": _TAKE_UP, "optimiser": _forgets_optimiser, "average": _forgets_average}.items():
        monkeypatch.setattr(Held, "take_up", _TAKE_UP)
        with pytest.raises(_KilledError):
            _train(store, sources, tmp_path / name, recipe, step_done=_kill_at(3), checkpoint_minutes=0)
        monkeypatch.setattr(Held, "take_up", take_up)
        _train(store, sources, tmp_path / name, recipe, resume=True)
        assert (_results(tmp_path / name) == _results(tmp_path / "whole")) == (name == "right"), name
