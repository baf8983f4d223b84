"""The blocks of code in our pages, found by themselves, and what a reader would type of them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from textwrap import dedent

PROJECT = Path(__file__).resolve().parents[1]
PAGES = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").glob("*.md")])
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)(?: {4}.*\n)+")
_NEEDS = re.compile(r"<!-- needs: (.+?) -->\s*\Z")
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


@dataclass(frozen=True)
class Block:
    """One block of code."""

    page: Path
    line: int
    language: str
    text: str
    needs: str | None
    """What it needs that is not here, as a comment `<!-- needs: … -->` above it says; None: it is run as it stands."""

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a block of shell, up to where its output goes; a backslash joins lines."""
        lines = (shlex.split(line, comments=True) for line in self.text.replace("\\\n", " ").splitlines())
        return [list(takewhile(lambda word: word not in (">", ">>", "|"), words)) for words in lines if words]


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page; first those between fences, then indented ones that hold a command of ours."""
    text = page.read_text()
    for found in _BLOCK.finditer(text):
        before = text[: found.start()]
        needs = _NEEDS.search(before)
        yield Block(page, before.count("\n") + 1, found["language"], dedent(found["text"]), needs and needs[1])
    for found in _INDENTED.finditer(text):
        if found[0].startswith("    tinyhd-pipe "):
            yield Block(page, text[: found.start()].count("\n") + 1, "indented", dedent(found[0]), None)


def inline_code(page: Path) -> list[str]:
    """What stands between backticks in the prose of a page, each on one line."""
    prose = _BLOCK.sub("", page.read_text())
    return [" ".join(code.split()) for code in _INLINE.findall(prose)]
