"""Copies of the project in which DVC runs, with settings that take seconds."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent
TINY: dict[str, dict[str, Any]] = {
    "data": yaml.safe_load((PROJECT / "params.yaml").read_text())["data"],
    "sample_data": {"train": 4, "heldout": 1, "unlabelled": 2, "frames": 32, "size": [32, 64]},
    "teacher_train": {"width": 0.0625, "size": [32, 64], "epochs": 1, "accumulate": 1, "validation_clips": 1},
    "teacher_dump": {"fidelity": 0.01, "shard_megabytes": 0.05, "precision": "float32", "overwrite": True},
    "assistant_train": {"reduction": 2, "size": [32, 64], "epochs": 1, "validation_clips": 1},
    "assistant_dump": {"fidelity": 0.01, "shard_megabytes": 0.05, "precision": "float32"},
    "student_train": {"reduction": 4, "size": [32, 64], "epochs": 1, "validation_clips": 1},
    "evaluate": {"every": 16, "baselines": "still"},
    "report": {"loop_frames": 2},
}
KEPT = ("store", "stages", "pipeline", ".dvc/config", ".dvc/.gitignore", ".dvc/plots")
KEPT_FILES = ("dvc.yaml", ".dvcignore", ".gitignore", "Makefile")
MAKE_RUN = ("make", "--no-print-directory", "run", "--old-file=.venv/bin/dvc")
"""What users type; the option spares an environment of its own."""


def copy_project(folder: Path) -> Path:
    """The project as somebody without git has it, with the environment that `make` would have made."""
    for name in (*KEPT, *KEPT_FILES):
        source, target = PROJECT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(SCRIPTS)
    write_settings(folder, TINY)
    return folder


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    (folder / "params.yaml").write_text(yaml.safe_dump(dict(settings), sort_keys=False))


def start(folder: Path, *command: str) -> subprocess.Popen[str]:
    """Begin a command in the copy, as the head of its own group of processes."""
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1", "DVC_PAGER": "cat"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL the command and all that it started, and wait until the system has forgotten them: DVC asks for PIDs."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 60
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.01)


def output_of(folder: Path, *command: str, columns: int = 100) -> str:
    """What a command prints on a terminal of so many columns; it must succeed."""
    process = start(folder, "env", f"COLUMNS={columns}", *command)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return output


def stages_run_by(folder: Path, *command: str) -> set[str]:
    """The stages that ran; the command must have succeeded."""
    return {line.split("'")[1] for line in output_of(folder, *command).splitlines() if line.startswith("Running stage")}
