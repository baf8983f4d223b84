"""What stands around the code: make finds a Python, editors find definitions, checks are the same everywhere."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import jedi
import pytest
import yaml

PROJECT = Path(__file__).resolve().parents[2]
FOLDERS = ("pipeline", "stages", "store")


def _make(folder: Path, pythons: dict[str, bool], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run make where only these Pythons are: name -> whether it is new enough and complete."""
    shutil.copy(PROJECT / "Makefile", folder)
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    tools = folder / "tools"
    tools.mkdir()
    for tool in ("sh", "test", "echo", "touch", "mkdir", "ln"):
        (tools / tool).symlink_to(str(shutil.which(tool)))
    for name, good in pythons.items():
        (tools / name).write_text(f"#!/bin/sh\n{'echo ' + name if good else 'exit 1'}\n")
        (tools / name).chmod(0o755)
    make = str(shutil.which("make"))
    return subprocess.run(
        [make, "--no-print-directory", *arguments],
        cwd=folder,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("there", "taken"),
    [
        ({"python3.13": True, "python3.11": True, "python3": True}, "python3.11"),
        ({"python3.11": False, "python3.12": True}, "python3.12"),
        ({"python3": True}, "python3"),
    ],
)
def test_make_takes_any_python_that_will_do_the_pinned_one_first(
    tmp_path: Path, there: dict[str, bool], taken: str
) -> None:
    shown = _make(tmp_path, there, "--dry-run", ".venv/bin/dvc")
    assert f"{taken} -m venv .venv" in shown.stdout.splitlines()


def test_make_says_in_one_line_what_is_missing(tmp_path: Path) -> None:
    failed = _make(tmp_path, {"python3": False}, "run")
    assert failed.returncode == 2
    said = [line for line in failed.stderr.splitlines() if "***" not in line]
    assert len(said) == 1
    assert "no Python from 3.11 on with venv and pip was found" in said[0]
    assert "make PYTHON=" in said[0]


def _imported_names() -> list[tuple[str, str]]:
    """(module, name) of every import of ours."""
    files = [file for folder in FOLDERS for file in (PROJECT / folder).rglob("*.py")]
    nodes = (node for file in files for node in ast.walk(ast.parse(file.read_text())))
    return sorted(
        {
            (node.module, alias.name)
            for node in nodes
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tinyhd_pipe")
            for alias in node.names
        }
    )


def _not_found(project: jedi.Project) -> list[str]:
    """Imports of ours behind which an editor finds no definition in this checkout."""
    names = _imported_names()
    lines = [f"from {module} import {name}" for module, name in names]
    script = jedi.Script("\n".join(lines), path=PROJECT / "pipeline" / "any.py", project=project)
    missing = []
    for place, line in enumerate(lines, start=1):
        found = script.goto(place, len(line) - 1, follow_imports=True)
        files = [definition.module_path for definition in found if definition.module_path]
        if not any(PROJECT in file.resolve().parents for file in files):
            missing.append(line)
    return missing


def test_an_editor_finds_the_definition_behind_every_import_of_ours() -> None:
    links = str(PROJECT / "build" / "import")
    assert links in sys.path, "make puts the links there"
    assert len(_imported_names()) > 250
    assert _not_found(jedi.Project(PROJECT, sys_path=sys.path)) == []
    packages = sysconfig.get_path("purelib")
    assert len(_not_found(jedi.Project(PROJECT, sys_path=[packages]))) > 250, "without the links it finds nothing"


def test_a_commit_and_ci_are_checked_by_what_make_lint_does() -> None:
    makefile = (PROJECT / "Makefile").read_text()
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert lint
    commands = [line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()]
    hooks = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == commands
    job = yaml.safe_load((PROJECT / ".github/workflows/ci.yml").read_text())["jobs"]["readme"]
    assert job["steps"][-1]["run"] == "bash .ci/run"
    assert {"make lint", "make figures", "make test"} <= set((PROJECT / ".ci/run").read_text().splitlines())


def test_what_contributing_names_is_there() -> None:
    named = set(re.findall(r"`([\w./]+/[\w.]*)`", (PROJECT / "CONTRIBUTING.md").read_text()))
    assert len(named) > 8
    assert not [path for path in named if not ((PROJECT / path).exists() or (PROJECT / "stages" / path).exists())]
    assert os.access(PROJECT / ".ci/run", os.R_OK)
