"""The command line's frame: the commands, and the one place where an exception becomes a line and an exit code.

Exit codes: 0 done, 1 failed, 2 a wrong command or setting, 130 interrupted with everything finished so far kept.
"""

import sys

import typer

from tinyhd_pipe.pipeline import bench_commands, commands, dump_command, store_commands
from tinyhd_pipe.store.errors import SettingError, TinyHDError

INTERRUPTED = 130
app = typer.Typer(
    name="tinyhd-pipe",
    help="Turns a heavy video-saliency teacher into small, fast students, offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("sample-data")(commands.sample_data)
app.command("teacher-train")(commands.teacher_train)
app.command("teacher-dump")(dump_command.teacher_dump)
app.command("student-train")(commands.student_train)
app.command("evaluate")(commands.evaluate)
app.command("params")(commands.show_params)
app.add_typer(store_commands.app, name="store")
app.add_typer(bench_commands.app, name="bench")


def main() -> None:
    """Run the command line; the only place where an exception becomes a line and an exit code."""
    sys.exit(run(sys.argv[1:] or ["--help"]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except typer.TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        return _complain(f"{message} See tinyhd-pipe --help.", 2)
    except SettingError as error:
        return _complain(str(error), 2)
    except TinyHDError as error:
        return _complain(str(error), 1)
    except OSError as error:
        if error.errno is None:
            raise
        return _complain(f"{error.filename or 'output'}: {error.strerror}", 1)
    if code == INTERRUPTED:  # which is also what Typer makes of Ctrl-C inside a command
        return _complain("interrupted; what was finished is kept, and the same command goes on", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _complain(message: str, code: int) -> int:
    sys.stderr.write(f"tinyhd-pipe: {' '.join(message.split())}\n")
    return code
