"""The command line's frame: the commands, and the one place where an exception becomes a line and an exit code.

Exit codes: 0 done, 1 failed, 2 a wrong command or setting, 130 interrupted (Ctrl-C) and 143 terminated (a batch
scheduler, a container), both with everything finished so far kept.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated

import typer

from tinyhd_pipe.pipeline import (
    bench_commands,
    commands,
    console,
    convert_command,
    data_commands,
    dump_command,
    evaluate_command,
    export_command,
    mistakes,
    predict_command,
    report_command,
    store_commands,
    training_commands,
)
from tinyhd_pipe.pipeline.options import Command, Group
from tinyhd_pipe.store.errors import SettingError, TinyHDError

INTERRUPTED, TERMINATED = 130, 143
app = typer.Typer(
    name="tinyhd-pipe",
    cls=Group,
    help="Turns a heavy video-saliency teacher into small, fast students, offline.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_COMMANDS: dict[str, Callable[..., None]] = {
    "sample-data": commands.sample_data,
    "teacher-train": training_commands.teacher_train,
    "teacher-dump": dump_command.teacher_dump,
    "student-train": training_commands.student_train,
    "evaluate": evaluate_command.evaluate,
    "predict": predict_command.predict,
    "convert": convert_command.convert,
    "export": export_command.export,
    "report": report_command.report,
    "params": commands.show_params,
    "env": commands.show_environment,
}
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=Command)(_command)
app.add_typer(data_commands.app, name="data")
app.add_typer(store_commands.app, name="store")
app.add_typer(bench_commands.app, name="bench")


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"tinyhd-pipe {version('tinyhd-pipe')}\n")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None: ...


def main() -> None:
    """Run the command line; the only place where an exception becomes a line and an exit code."""
    sys.exit(run(sys.argv[1:] or ["--help"]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    terminated: list[int] = []
    console.err.quiet = not console.speaks()
    try:
        with _termination_interrupts(terminated):
            code = app(arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except typer.TyperException as error:
        return _complain(mistakes.of_usage(error), 2)
    except SettingError as error:
        return _complain(str(error), 2)
    except TinyHDError as error:
        return _complain(str(error), 1)
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(mistakes.of_system(error), 1)
    if code == INTERRUPTED:  # which is also what Typer makes of Ctrl-C inside a command
        word, code = ("terminated", TERMINATED) if terminated else ("interrupted", INTERRUPTED)
        return _complain(
            f"{word}; what was finished is kept: the same command goes on, training and evaluation with --resume", code
        )
    return code if isinstance(code, int) else 0


@contextmanager
def _termination_interrupts(received: list[int]) -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, the first one noted in `received`; later ones change nothing."""

    def interrupt(number: int, frame: object) -> None:
        received.append(number)
        if len(received) == 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _complain(message: str, code: int) -> int:
    if message and console.speaks(
        "LOCAL_RANK"
    ):  # of several processes, all of which know what one of them has met with
        sys.stderr.write(f"tinyhd-pipe: {' '.join(message.split())}\n")
    return code


if __name__ == "__main__":  # torchrun -m tinyhd_pipe.pipeline.app
    main()
