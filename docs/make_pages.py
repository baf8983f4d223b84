"""Write docs/commands.md, the page of the command line, from the command line itself, and the index of all pages from
their headings: `make docs`.

A test holds both against what this makes, so an option cannot be added, renamed or explained anew without it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer import Context
from typer.main import get_command

from tinyhd_pipe.pipeline.app import app

PAGE = Path(__file__).with_name("commands.md")
INDEX = Path(__file__).with_name("README.md")
BEFORE = """# The command line

<!-- Written by `make docs` from the commands themselves. -->

Every command is `tinyhd-pipe NAME`, answers `--help`, and says on stderr what it does; `--json` prints its result on
stdout for machines. Paths are options, numbers are settings: `--params FILE` reads them from a YAML file, `--set
stage.key=value` changes one, and `tinyhd-pipe params` prints all of them with their meaning. An option shown with `…`
takes several values, as a shell expands them: `--videos clips/*.mp4`.

Exit codes: 0 done, 1 failed (or some videos failed: they are listed, the others are done), 2 a wrong command or
setting, 130 interrupted and 143 terminated, both with what was finished kept. A mistake is one line that names the
value, what was expected, and what to do.
"""


def page() -> str:
    """The whole page, as Markdown."""
    commands = dict(_commands("", get_command(app)))
    listed = [
        f"| [`{name}`](#tinyhd-pipe-{name.replace(' ', '-')}) | {_first(command)} |"
        for name, command in commands.items()
    ]
    contents = "\n".join(["| command | what it does |", "| --- | --- |", *listed])
    return "\n".join([BEFORE, contents, "", *(_section(name, command) for name, command in commands.items())])


def index() -> str:
    """A line for every other page, as Markdown: its heading."""
    pages = sorted(path for path in INDEX.parent.glob("*.md") if path not in (INDEX, PAGE))
    headings = [(path.name, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for path in pages]
    lines = [f"- [{heading}]({name})" for name, heading in [(PAGE.name, "The command line"), *headings]]
    return "\n".join(["# Pages", "", "<!-- Written by `make docs` from the headings. -->", "", *lines, ""])


def _commands(before: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{before}{name} ", command)
        else:
            yield f"{before}{name}", command


def _first(command: Any) -> str:
    return str(command.help).partition("\n")[0]


def _section(name: str, command: Any) -> str:
    """Heading, what it does, examples, and a row for each argument and option."""
    said = str(command.help).splitlines()
    examples = [line for line in said if line.startswith("tinyhd-pipe ")]
    prose = "\n".join(line for line in said if line not in examples).strip()
    context = Context(command, info_name=name)
    rows = []
    shown = [record for parameter in command.get_params(context) if (record := parameter.get_help_record(context))]
    for spelled, told in shown:
        if spelled != "--help":
            rows.append(f"| `{_cell(spelled.partition(' <list')[0].partition(' <path')[0])}` | {_cell(told)} |")
    block = ["<!-- needs: files of yours -->", "", "```sh", *examples, "```"]
    table = ["| option | meaning |", "| --- | --- |", *rows]
    return "\n".join([f"## tinyhd-pipe {name}", "", prose, "", *block, "", *table, ""])


def _cell(told: str) -> str:
    """Text that ends no cell."""
    return " ".join(told.split()).replace("|", "\\|")


if __name__ == "__main__":
    if sys.argv[1:] == ["--print"]:
        sys.stdout.write(page() + index())
    else:
        PAGE.write_text(page(), encoding="utf-8")
        INDEX.write_text(index(), encoding="utf-8")
