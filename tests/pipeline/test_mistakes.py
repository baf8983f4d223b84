"""What Typer and the system say of a mistake, in words that name the value and what to do."""

import errno
import os
from pathlib import Path

import pytest

from tinyhd_pipe.pipeline import mistakes
from tinyhd_pipe.pipeline.app import run


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (
            "teacher-dump --video clips",
            "No such option: --video (Possible options: --videos). See tinyhd-pipe teacher-dump ",
        ),
        ("sample-data", "Missing argument 'DIR'. See tinyhd-pipe sample-data --help."),
        (
            "store verify s --sample 0",
            "--sample: input should be greater than or equal to 1. See tinyhd-pipe store verify ",
        ),
        (
            "evaluate --data d --protocol DHF1K",
            "--protocol: 'DHF1K' is not one of 'dhf1k', 'mit', 'tinyhd', 'hollywood2'. S",
        ),
        ("reprot", "No such command 'reprot'. Did you mean 'report', 'export'? See tinyhd-pipe --help."),
        ("store infp", "No such command 'infp'. Did you mean 'info'? See tinyhd-pipe store --help."),
    ],
)
def test_a_wrong_word_leads_to_the_help_of_its_own_command(
    command: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command.split()) == 2
    assert line in capsys.readouterr().err


def test_a_group_without_a_command_shows_its_help_and_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench"]) == 2
    shown = capsys.readouterr()
    assert "bench dump" in shown.out or "dump" in shown.out
    assert "tinyhd-pipe: " not in shown.err


def test_what_stands_in_the_way_of_a_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a file")
    for made in (tmp_path / "notes.txt/kept/1.json", tmp_path / "notes.txt"):
        with pytest.raises(OSError, match=r".") as raised:
            made.mkdir(parents=made.name != "notes.txt")
        assert f"{tmp_path / 'notes.txt'}: is a file, and a folder is wanted" in mistakes.of_system(raised.value)
    with pytest.raises(IsADirectoryError) as folder:
        tmp_path.read_bytes()
    assert mistakes.of_system(folder.value) == f"{tmp_path}: is a folder; name a file in it"


def test_a_full_disk_and_a_file_that_is_being_written(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "report.html.partial"))
    assert mistakes.of_system(full) == (
        f"{tmp_path / 'report.html'}: no space left on the device; make room, then run the same command again"
    )
    assert "output: no space left on the device; make room" in mistakes.of_system(OSError(errno.ENOSPC, "No space"))
    assert mistakes.of_system(OSError(errno.EPIPE, "Broken pipe")) == "output: Broken pipe"
