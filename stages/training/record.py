"""What a run says of itself beside its weights: where its data lay, on what machine it ran, how long; `run.json`.

The decision that is not obvious: weights and history have the bytes of any run of the same data and settings, wherever
and however often it was interrupted. What knows paths, machines and clocks stands in this file alone, is written with
every checkpoint, and decides nothing: who reports on a run reads it, and misses it where it is not there.
"""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch

from tinyhd_pipe.stages.networks.device import name_of
from tinyhd_pipe.stages.training.dataset import ClipDataset
from tinyhd_pipe.store.whole_file import write_whole

FILE = "run.json"


@dataclass(frozen=True)
class RunRecord:
    """How a run came about."""

    given: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Option -> paths and URLs, as they were given."""
    folder: str = ""
    """Where the run was started: paths that are not absolute count from here."""
    seconds: float = 0.0
    """At work, validation and pictures included; the time between a kill and its resumption does not count."""
    videos: int = 0
    """Learned from."""
    labelled: int = 0
    """Those of them that have density maps."""
    samples_an_epoch: int = 0
    device: str = ""
    processor: str = ""
    """Of the device: its name."""
    threads: int = 0
    torch: str = ""
    code: str = ""
    """Version of tinyhd-pipe, and the commit where it ran from a checkout."""


@dataclass(frozen=True)
class Recording:
    """A record of a run that is at work."""

    before: RunRecord
    """As it was when this part of the run began."""
    started: float
    """That moment, by the monotonic clock, seconds."""

    def write(self, out: Path) -> None:
        """Leave `run.json` in the run's folder, whole or not at all."""
        record = replace(self.before, seconds=self.before.seconds + time.monotonic() - self.started)
        write_whole(out / FILE, json.dumps(asdict(record), indent=1).encode())


def of_run(dataset: ClipDataset, given: Mapping[str, Sequence[str]], device: str, samples_an_epoch: int) -> RunRecord:
    """What there is to say of a run before its first step, here and now."""
    return RunRecord(
        given=given,
        folder=str(Path.cwd()),
        videos=len(dataset.videos),
        labelled=sum(video.annotation is not None for video in dataset.videos),
        samples_an_epoch=samples_an_epoch,
        device=device,
        processor=name_of(device),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        code=code_version(),
    )


def recorded(out: Path, record: RunRecord, done: int) -> Recording:
    """The record from now on, of a run of which `done` steps are done: their time is in it."""
    before = read_record(out) if done else None
    return Recording(replace(record, seconds=before.seconds if before else 0.0), time.monotonic())


def code_version() -> str:
    """The version, and the commit of the checkout that this code lies in, marked where it was changed since."""
    here = Path(__file__).resolve()
    git = ["git", "-C", str(here.parent)]
    try:
        # Only where git knows this very file: an installed package may lie within somebody else's checkout.
        subprocess.run([*git, "ls-files", "--error-unmatch", here.name], check=True, capture_output=True)
        told = subprocess.run([*git, "describe", "--always", "--dirty"], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return version("tinyhd-pipe")
    return f"{version('tinyhd-pipe')} ({told.stdout.strip()})"


def read_record(out: Path) -> RunRecord | None:
    """The record of a run, or None of one from before there were any, or where the file is something else."""
    try:
        return RunRecord(**json.loads((out / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
