"""What our pages say can be typed: every command is one, and every option, setting and page that they name exists."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from tests.doc_blocks import PAGES, PROJECT, Block, blocks, inline_code
from tinyhd_pipe.pipeline.app import app
from tinyhd_pipe.pipeline.params import Params, load_params
from tinyhd_pipe.store.errors import SettingError

SHELL = [block for page in PAGES for block in blocks(page) if block.language in ("sh", "indented")]
OF_OTHER_PROGRAMS = frozenset(
    [
        "--nproc-per-node",
        "--nnodes",
        "--upgrade",
        "--no-deps",
        "--only-changed",
        "--local",
        "--array",
        "--gres",
        "--ignore-scripts",
    ]
)
"""Options in our prose that belong to other programs."""


def _commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*before, name))
        else:
            yield (*before, name), command


COMMANDS = dict(_commands(get_command(app)))
OPTIONS = {name: {option for of in command.params for option in of.opts} for name, command in COMMANDS.items()}
SETTINGS = {f"{group}.{of.name}" for group, values in vars(Params()).items() for of in fields(values)}


def _ours(words: list[str]) -> list[str] | None:
    """What follows `tinyhd-pipe`, or torchrun's way to say it; None of another program."""
    if words[0] == "tinyhd-pipe":
        return words[1:]
    if "tinyhd_pipe.pipeline.app" in words:
        return words[words.index("tinyhd_pipe.pipeline.app") + 1 :]
    return None


def parse(words: list[str]) -> Any:
    """The parameters of a command of ours as it would take them. Raises what it would say of a mistake."""
    name = next(tuple(words[:length]) for length in (1, 2) if tuple(words[:length]) in COMMANDS)
    # A shell expands patterns, of files that are not here; of png|npy any is meant; what is in brackets may be there.
    words = [word.replace("*", "all").partition("|")[0] for word in words[len(name) :]]
    words = [word if "=" in word else word.strip("[]") for word in words]
    arguments = [word for word in words if word != "…"]
    context = COMMANDS[name].make_context(" ".join(name), arguments)
    load_params(None, context.params.get("overrides"))
    return context.params


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_in_a_page_is_one(block: Block) -> None:
    assert block.commands, "a block of shell holds commands"
    for words in block.commands:
        if (ours := _ours(words)) is not None:
            parse(ours)
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (PROJECT / "Makefile").read_text(), re.MULTILINE), words
        elif words[0] == "dvc":
            from dvc.cli import parse_args

            parse_args(words[1:])
        else:
            assert words[0] in ("pip", "git") or block.needs, (
                f"{words[0]} is not run: say above the block what it needs"
            )


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("tinyhd-pipe evaluate --data DHF1K/ --wieghts s.pth", "No such option"),
        ("tinyhd-pipe student-train --store maps.zarr --out runs/student", "Missing parameter: videos"),
        ("tinyhd-pipe params --set student_train.epoch=3", "did you mean 'epochs'?"),
        ("tinyhd-pipe predict a.mp4 --weights s.pth --out maps/ --format jpeg", "jpeg"),
    ],
)
def test_a_command_that_is_none_would_be_seen(mistake: str, said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        parse(mistake.split()[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_option_and_setting_in_the_prose_exists(page: Path) -> None:
    everywhere = set().union(*OPTIONS.values(), OF_OTHER_PROGRAMS, {"--help", "--version", "--install-completion"})
    for code in inline_code(page):
        words = code.removeprefix("tinyhd-pipe ").split()
        name = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in COMMANDS), None)
        known = everywhere if name is None else OPTIONS[name] | {"--help"}
        options = {option for word in words for option in re.findall(r"^--[a-z][\w-]*", word.lstrip("[("))}
        assert options <= known, f"{page.name}: `{code}`"
        named = {
            word
            for word in re.findall(r"(?<![/\w])[a-z_]+\.[a-z_0-9]+\b(?!\()", code)
            if word.split(".")[0] in vars(Params())
        }
        assert named <= SETTINGS | {f"{group}.py" for group in vars(Params())}, f"{page.name}: `{code}`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_page_of_the_command_line_and_the_index_are_what_they_are_made_from() -> None:
    made = subprocess.run(
        [sys.executable, PROJECT / "docs/make_pages.py", "--print"], capture_output=True, text=True, check=True
    )
    page, index = (PROJECT / "docs/commands.md").read_text(), (PROJECT / "docs/README.md").read_text()
    assert page + index == made.stdout, "options or headings have changed: `make docs` writes these pages anew"
    assert [name for name in COMMANDS if f"## tinyhd-pipe {' '.join(name)}\n" not in page] == []


@pytest.mark.parametrize("setting", ["student_train.epoch", "dump.budget"])
def test_a_setting_that_is_none_would_be_seen(setting: str) -> None:
    assert setting not in SETTINGS
    with pytest.raises(SettingError):
        load_params(None, [f"{setting}=1"])
