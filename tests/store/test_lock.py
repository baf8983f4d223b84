"""Of two processes at most one writes to a folder, whatever the other has open; a dead one blocks nobody."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.store_tools import describe, write_store
from tinyhd_pipe.store import StoreError, create_or_open

LENGTHS = {"a.avi": 5, "b.avi": 8}
ROOT = Path(__file__).resolve().parents[2]


def test_a_second_dump_says_so_and_stops_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    script = """
import sys, time
from tests.store_tools import *
with create_or_open(sys.argv[1], describe()).exclusive():
    print("locked", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "s")], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(StoreError, match=r"another dump is writing to it"):
            write_store(tmp_path / "s", LENGTHS)
        process.kill()
        process.wait()
    write_store(tmp_path / "s", LENGTHS)
    assert not (tmp_path / "s/.lock").exists()


AT_THE_DOOR = """
import fcntl, sys
from tests.store_tools import create_or_open, describe
from tinyhd_pipe.store import StoreError
flock = fcntl.flock
def late(descriptor, operation):
    fcntl.flock = flock
    print("opened", flush=True)
    sys.stdin.readline()
    flock(descriptor, operation)
fcntl.flock = late
try:
    with create_or_open(sys.argv[1], describe()).exclusive():
        print("held", flush=True)
        sys.stdin.readline()
except StoreError as error:
    print(error, flush=True)
"""


def test_a_lock_file_that_was_removed_under_a_process_that_had_opened_it_locks_nothing(tmp_path: Path) -> None:
    """One has the file open and not locked yet, the other ends and removes it: then both may think they hold it."""
    writer = create_or_open(tmp_path / "s", describe())
    with writer.exclusive():
        late = subprocess.Popen(
            [sys.executable, "-c", AT_THE_DOOR, str(tmp_path / "s")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert late.stdin is not None
        assert late.stdout is not None
        assert late.stdout.readline() == "opened\n"
    assert not (tmp_path / "s/.lock").exists()
    with late, writer.exclusive():
        late.stdin.write("now lock what you have\n")
        late.stdin.flush()
        assert "another dump is writing to it" in late.stdout.readline()
