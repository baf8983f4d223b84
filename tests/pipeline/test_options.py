"""Options as people type them: what the shell expands is taken, by every command that takes several values."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.main import get_command

from tests.small_dumps import LENGTHS, dump_of, write_teacher, write_videos
from tinyhd_pipe.pipeline.app import app, run
from tinyhd_pipe.pipeline.options import repeated

COMMAND = Path(sys.executable).with_name("tinyhd-pipe")


def _parameters(*names: str) -> list[Any]:
    command: Any = get_command(app)
    for name in names:
        command = command.commands[name]
    return list(command.params)


DUMP, VERIFY = _parameters("teacher-dump"), _parameters("store", "verify")
WORDS = st.text("abc./*=", min_size=1, max_size=4)


@given(rows=st.lists(st.tuples(st.sampled_from(["--videos", "--set"]), st.lists(WORDS, min_size=1, max_size=4))))
def test_a_row_of_values_is_the_option_before_each_of_them(rows: list[tuple[str, list[str]]]) -> None:
    typed = [word for option, values in rows for word in (option, *values)]
    spelled = [word for option, values in rows for value in values for word in (option, value)]
    assert repeated(typed, DUMP) == spelled
    assert repeated(spelled, DUMP) == spelled, "an option before each value stays as it is"


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("--videos a b --store s c", "--videos a --videos b --store s c"),
        ("--videos=a b --plan c", "--videos=a --videos b --plan c"),
        ("--store --videos --videos a", "--store --videos --videos a"),
        ("--videos - a", "--videos - --videos a"),
        ("--videos", "--videos"),
        ("a --videos b", "a --videos b"),
    ],
)
def test_a_row_ends_at_the_next_option(typed: str, spelled: str) -> None:
    assert repeated(typed.split(), DUMP) == spelled.split()


@pytest.mark.parametrize(
    ("typed", "spelled"),
    [
        ("--videos a b maps.zarr", "--videos a --videos b maps.zarr"),
        ("--videos a maps.zarr", "--videos a maps.zarr"),
        ("maps.zarr --videos a b", "maps.zarr --videos a --videos b"),
        ("--videos a b -- maps.zarr", "--videos a --videos b -- maps.zarr"),
        ("--videos a b --sample 3 maps.zarr", "--videos a --sample 3 maps.zarr --videos b"),
    ],
)
def test_a_row_gives_back_what_the_command_itself_needs(typed: str, spelled: str) -> None:
    spelled_out = repeated(typed.split(), VERIFY)
    assert _given(spelled_out) == _given(spelled.split())


def _given(words: list[str]) -> tuple[list[str], list[str]]:
    """(videos, others) of a command line that is spelled out."""
    videos = [words[place + 1] for place, word in enumerate(words) if word == "--videos"]
    taken = {place + step for place, word in enumerate(words) if word == "--videos" for step in (0, 1)}
    return videos, [word for place, word in enumerate(words) if place not in taken and word != "--"]


def test_what_a_shell_expands_is_dumped_checked_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_videos(Path("clips"))
    weights = write_teacher(Path("teacher.safetensors"))
    expanded = sorted(str(path) for path in Path("clips").glob("*.mp4"))
    command = [str(word) for word in dump_of(Path("clips"), weights, Path("maps.zarr"))]
    place = command.index("--videos")
    sets = [word for word in command if word.startswith("teacher_dump.")]
    plain = [word for word in command[: place + 1] if word != "--set"]
    rest = ["--store", "maps.zarr", "--weights", str(weights), "--set", *sets]
    assert run([*plain, *expanded, *rest]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == sum(LENGTHS.values())
    teacher = ["--teacher", "tinyhd", "--weights", str(weights)]
    assert run(["store", "verify", *teacher, "--sample", "2", "--videos", *expanded, "maps.zarr"]) == 0
    assert run(["store", "show", "maps.zarr", "0.mp4", "--videos", *expanded, "--out", "sheet.png"]) == 0
    assert run(["student-train", "--store", "maps.zarr", "--videos", *expanded]) == 2, "--out alone is missing"
    assert "--out" in capsys.readouterr().err


def test_a_pattern_that_no_shell_expanded_is_expanded_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_videos(Path("clips"))
    weights = write_teacher(Path("teacher.safetensors"))
    assert run([str(word) for word in dump_of(Path("clips/[01].mp4"), weights, Path("maps.zarr"))]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 2
    assert run([str(word) for word in dump_of(Path("clips/*.avi"), weights, Path("maps.zarr"))]) == 2
    assert "clips/*.avi: no file matches this pattern" in capsys.readouterr().err


def test_every_option_that_is_repeatable_says_so_in_words_that_people_read() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    every = [*commands.values(), *commands["store"].commands.values(), *commands["bench"].commands.values()]
    parameters = [parameter for command in every for parameter in getattr(command, "params", [])]
    shown = {parameter.metavar for parameter in parameters if getattr(parameter, "multiple", False)}
    assert {"PATH…", "STAGE.KEY=VALUE…"} <= shown
    assert [metavar for metavar in shown if not re.fullmatch(r"[A-Z]+(\.[A-Z]+)?(=[A-Z]+)?…", metavar or "")] == []
    unread = [p for p in parameters if not p.metavar and not getattr(p, "is_flag", False)]
    choices = [p for p in unread if get_origin(p.type_descriptor.annotation) is Literal]  # their values are shown
    assert [p.name for p in unread if p not in choices] == [], "nothing says what is expected"


def test_version_and_environment_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    assert run(["--version"]) == 0
    assert capsys.readouterr().out == "tinyhd-pipe 0.1.0\n"
    assert run(["env"]) == 0
    shown = capsys.readouterr().out
    assert run(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["torch"] == torch.__version__
    assert {"python", "processor", "units", "cores", "threads of torch", "CUDA", "zarr", "av", "FFmpeg"} <= facts.keys()
    assert all(fact in shown for fact in facts.values())


def test_a_shell_completes_commands() -> None:
    asked = {"_TINYHD_PIPE_COMPLETE": "complete_bash", "COMP_WORDS": "tinyhd-pipe teacher-", "COMP_CWORD": "1"}
    completed = subprocess.run([COMMAND], env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert completed.stdout.split() == ["teacher-train", "teacher-dump"]
