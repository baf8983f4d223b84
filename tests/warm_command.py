"""The command line in processes that begin at once: forks of one that has imported everything.

Importing torch takes seconds, and a test that kills thirty dumps would wait for nothing else. A fork of a process with
one thread is a process like any other; that it has one is checked before every fork.
"""

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = (
    *("pipeline.app", "pipeline.params", "stages.dump.plan", "stages.dump.store_check", "stages.teacher_dump"),
    *("stages.student_train", "stages.training.processes"),
)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class WarmCommand:
    """Starts `tinyhd-pipe` commands; a context that ends with every process it started."""

    def __enter__(self) -> "WarmCommand":
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm_command"],
            cwd=ROOT,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        assert self._process.returncode == 0

    def start(
        self,
        arguments: Sequence[object],
        output: Path,
        environment: Mapping[str, str] | None = None,
        dies: "Death | None" = None,
    ) -> "Running":
        """Begin a command, with more in its environment; what it prints goes to `output`."""
        words = [str(argument) for argument in arguments]
        asked = {"start": words, "output": str(output), "environment": dict(environment or {})}
        asked["dies"] = None if dies is None else asdict(dies)
        return Running(self._ask(asked), self, output)

    def run(self, arguments: Sequence[object], output: Path) -> tuple[int, str]:
        """Exit code and output of a command."""
        running = self.start(arguments, output)
        return running.wait(), running.output.read_text()

    def wait(self, pid: int) -> int:
        return self._ask({"wait": pid})

    def _ask(self, request: dict[str, object]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@dataclass(frozen=True)
class Death:
    """A kill at the very moment at which a file is about to be made durable, and has not got its name yet."""

    file: str
    time: int
    """The first time that it is written, the second, ..."""
    cut: bool
    """Half of its bytes are not there yet."""


@dataclass
class Running:
    """A command at work, or ended and not yet waited for."""

    pid: int
    warm: WarmCommand
    output: Path

    def wait(self) -> int:
        """Its exit code when it has ended; minus the signal that killed it."""
        return self.warm.wait(self.pid)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def has_ended(self) -> bool:
        return " Z " in Path(f"/proc/{self.pid}/stat").read_text()

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something that the command does, or for its end."""
        while not happened() and not self.has_ended():
            time.sleep(0.001)


def _serve() -> None:
    for name in IMPORTED:
        import_module(f"tinyhd_pipe.{name}")
    import_module("torch._dynamo")  # which any optimiser imports
    for line in sys.stdin:
        request = json.loads(line)
        if "start" in request:
            assert len(os.listdir("/proc/self/task")) == 1, "a fork would lose threads"  # noqa: PTH208
            answer = os.fork() or _become(request)
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def _become(request: Mapping[str, Any]) -> int:
    """Be that command from here on."""
    os.environ.update(request["environment"])
    if request["dies"] is not None:
        _die_at(Death(**request["dies"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    written = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(written, descriptor)
    from tinyhd_pipe.pipeline.app import run

    code = 70
    try:
        code = run(request["start"])
    except BaseException:  # as the interpreter would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _die_at(death: Death) -> None:
    synced, left = os.fsync, death.time

    def sync(descriptor: int) -> None:
        nonlocal left
        left -= Path(f"/proc/self/fd/{descriptor}").readlink().name == f"{death.file}.partial"
        if left == 0:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // (2 if death.cut else 1))
            os.kill(os.getpid(), signal.SIGKILL)
        synced(descriptor)

    os.fsync = sync


if __name__ == "__main__":
    _serve()
