"""`run.json` says where, on what and how long a run was trained; its time adds up over resumptions."""

import json
import subprocess
from pathlib import Path

from tests.stages.training.test_resuming import SHORT, _kill_at, _KilledError
from tests.stages.training.test_training import _train
from tinyhd_pipe.stages.training import record
from tinyhd_pipe.stages.training.record import read_record
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import Store


def test_time_adds_up_over_a_kill_and_paths_are_those_of_the_last_start(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    try:
        _train(store, sources, run, SHORT, step_done=_kill_at(3), checkpoint_minutes=0, given={"store": ["old"]})
    except _KilledError:
        first = read_record(run)
    assert first is not None
    (run / record.FILE).write_text(json.dumps({**vars(first), "seconds": 1000.0}))
    _train(store, sources, run, SHORT, resume=True, given={"store": ["new"]})
    after = read_record(run)
    assert after is not None
    assert 1000 < after.seconds < 1000 + 100 * max(first.seconds, 1)
    assert after.given == {"store": ["new"]}
    assert (after.videos, after.labelled, after.device) == (3, 1, "cpu")
    begun_anew = _train(store, sources, run, SHORT, overwrite=True)
    assert begun_anew.best.exists()
    assert (read_record(run) or first).seconds < 1000


def test_the_commit_is_that_of_the_checkout_and_of_no_other(tmp_path: Path) -> None:
    here = Path(record.__file__).resolve().parent
    commit = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    told = record.code_version()
    assert told.startswith("0.1.0")
    if commit.returncode == 0:
        assert told.removesuffix(")").removesuffix("-dirty").rpartition("(")[2] in commit.stdout
    somebody_elses = tmp_path / "theirs"
    subprocess.run(["git", "init", "-q", somebody_elses], check=True)
    installed = somebody_elses / "record.py"
    installed.write_text("")
    patched = record.__file__
    try:
        record.__file__ = str(installed)
        assert record.code_version() == "0.1.0"
    finally:
        record.__file__ = patched


def test_a_record_that_is_none_is_no_record(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    (tmp_path / record.FILE).write_text("[1, 2]")
    assert read_record(tmp_path) is None
