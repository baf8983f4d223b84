"""What the ablations learn from: clips, a teacher fitted on them, a second one, and the stores of their maps.

What `make run` has left is used where it belongs together: clips, weights, and a store that those weights made. Else
all of it is made below the benchmark's own folder, once: killed, each part goes on where it was. Cost on two cores: two
minutes for the embedded teacher and its maps.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.networks.network import Kind, load_teacher
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.sample_data import make_sample_data
from tinyhd_pipe.stages.settings.sample_data import SampleOptions
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.settings.training import TeacherRecipe
from tinyhd_pipe.stages.teacher_dump import teacher_dump
from tinyhd_pipe.stages.teacher_train import teacher_train
from tinyhd_pipe.stages.training.fitting import Run
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.writer import read_description

Watch = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows the progress of one piece of work, by name: what it gives is told (done, in all)."""


def unwatched(name: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Nobody is shown anything."""
    return nullcontext(lambda done, total: None)


@dataclass(frozen=True)
class Clips:
    """Where clips lie."""

    labelled: Path
    """To learn from, in the DHF1K layout."""
    unlabelled: Path
    """Videos alone."""
    heldout: Path
    """In the DHF1K layout; nobody learns from them."""

    def videos(self) -> list[VideoSource]:
        """All that a teacher makes maps of, and a student learns from."""
        return find_videos([self.labelled / "video", self.unlabelled])

    def annotated(self) -> tuple[AnnotatedVideo, ...]:
        return find_annotated_videos(self.labelled).videos


@dataclass(frozen=True)
class Taught:
    """A teacher, and the store of its maps."""

    weights: Path
    store: Path


@dataclass(frozen=True)
class Making:
    """How clips, teachers and stores are made where they are missing."""

    sample: SampleOptions
    teacher: TeacherRecipe
    dump: DumpOptions
    device: str = "cpu"
    overwrite: bool = False
    """Begin every run again, instead of going on with it."""

    def run(self, out: Path, step_done: Callable[[int, int], None]) -> Run:
        """A run that tells (steps done, steps in all); one that has ended already is found as it is."""
        return Run(
            out,
            resume=not self.overwrite,
            overwrite=self.overwrite,
            device=self.device,
            step_done=lambda step: step_done(step.done, step.total),
        )


def ground(clips: Clips, taught: Taught, making: Making, out: Path, watch: Watch) -> tuple[Clips, Taught]:
    """The clips and the teacher given where they belong together, else ones of the benchmark's own below `out`."""
    if clips.labelled.exists() and _made_by(taught):
        return clips, taught
    with watch("sample data") as progress:
        made = make_sample_data(out / "sample", making.sample, progress=progress)
    own = Clips(made.train, made.unlabelled, made.heldout)
    return own, teacher_of(own, making, out / "teacher", watch)


def _made_by(taught: Taught) -> bool:
    """Whether the store is of these weights."""
    there = read_description(str(taught.store)) if taught.weights.exists() else None
    return there is not None and there.teacher.get("weights_sha256") == read_weights(taught.weights).sha256


def teacher_of(clips: Clips, making: Making, out: Path, watch: Watch) -> Taught:
    """Fit HD2S on the labelled clips and keep its maps of all; what is there of it already is gone on with."""
    with watch(f"{out.name}: fit") as step_done:
        fitted = teacher_train(clips.annotated(), making.teacher, making.run(out, step_done))
    return Taught(fitted.best, dumped(clips, "hd2s", fitted.best, making, watch))


def dumped(clips: Clips, kind: Kind, weights: Path, making: Making, watch: Watch) -> Path:
    """A store of a network's maps of all clips, beside its weights."""
    store = weights.parent / "maps.zarr"
    network = load_teacher(kind, weights=weights, precision="auto", device=making.device)
    with watch(f"{weights.parent.name}: maps") as progress:
        options = replace(making.dump, overwrite=True)
        teacher_dump(
            clips.videos(), str(store), network, options, report=lambda at: progress(at.frames, at.frames_in_all)
        )
    return store
