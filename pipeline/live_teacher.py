"""The teacher in the loop: `student-train --online`, and what a store says beside it.

What is heavy is imported inside, so `--help` answers at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.store.errors import DataError, SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.pipeline.params import TeacherDump
    from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
    from tinyhd_pipe.stages.networks.network import Network, Precision, Size
    from tinyhd_pipe.stages.settings.training import StudentRecipe
    from tinyhd_pipe.stages.training.live_targets import LiveTargets
    from tinyhd_pipe.stages.training.oracle import Agreement
    from tinyhd_pipe.stages.training.targets import Targets
    from tinyhd_pipe.stages.video.sources import VideoSource


@dataclass(frozen=True)
class LiveTeacher:
    """Which teacher makes maps while a student learns."""

    kind: str
    weights: Path
    settings: "TeacherDump"
    """Size, precision and batch of its windows, where no store has them."""
    device: str


def check_teacher_options(online: bool, weights: Path | None, store: Sequence[str], labels: Path | None) -> None:
    """Raise SettingError, in one line, where the options do not say which maps are learned."""
    if online and weights is None:
        raise SettingError("--online: the teacher needs its weights: add --teacher-weights FILE")
    if not online and weights is not None:
        raise SettingError(
            f"--teacher-weights {weights}: only with --online the teacher is asked: add --online, or leave them out"
        )
    if not online and not store and labels is None:
        raise SettingError("student-train: nothing to learn from: add --store URL, --online, or --labels DIR")
    if online and len(store) > 1:
        raise SettingError(f"--online: {len(store)} stores are given, and one teacher has one store; give one, or none")


def live_targets(
    teacher: LiveTeacher,
    stored: "Targets | None",
    sources: "Sequence[VideoSource]",
    annotated: "Sequence[AnnotatedVideo]",
    recipe: "StudentRecipe",
) -> "LiveTargets":
    """The teacher's maps as targets: of every frame of the videos, or of those that a store has.

    With a store losses of both ways are compared and shown. Raises StoreError where its maps are of another teacher,
    DataError where storing them does not explain how the losses differ.
    """
    from tinyhd_pipe.stages.dump.identity import refuse_other_teacher
    from tinyhd_pipe.stages.networks.licence import refuse_unasked
    from tinyhd_pipe.stages.student_train import compare_both_ways
    from tinyhd_pipe.stages.training.live_targets import LiveTargets
    from tinyhd_pipe.stages.training.targets import stood_for

    if stored is None:
        network = _loaded(teacher, teacher.settings.size, teacher.settings.precision, teacher.settings.batch)
        allowed = teacher.settings.allow_noncommercial
        refuse_unasked(str(network.facts["licence"]), str(teacher.weights), allowed=allowed)
        with console.progress("decoding videos") as advance:
            live = LiveTargets.of(network, sources, stood_for=stood_for(recipe), report=advance)
        for problem in live.problems.values():
            console.say(problem)
        return live
    there = stored.stores[0].description
    precision = there.teacher.get("precision", "float32")
    network = _loaded(teacher, there.teacher_grid, precision, there.provenance.get("batch"))
    refuse_other_teacher(there, network, stored.urls)
    live = LiveTargets.instead_of(stored, network, sources)
    _show(compare_both_ways(live, stored, sources, annotated, recipe, device=teacher.device), stored.urls)
    return live


def _loaded(teacher: LiveTeacher, size: "Size | None", precision: "Precision", batch: int | None) -> "Network":
    from tinyhd_pipe.stages.networks.network import load_teacher

    network = load_teacher(
        teacher.kind, weights=teacher.weights, size=size, precision=precision, batch=batch, device=teacher.device
    )
    height, width = network.scaling.size
    console.say(
        f"online: {teacher.kind} at {height}x{width} in {network.precision} makes its maps anew for every sample"
    )
    return network


def _show(agreement: "Agreement", url: str) -> None:
    """Losses of both ways, term by term. Raises DataError where storing the maps does not explain the difference."""
    rows = [
        (name, f"{term.online:.4f}", f"{term.offline:.4f}", f"{term.online - term.offline:+.1e}", f"{term.kl:.1e}")
        for name, term in agreement.terms.items()
    ]
    columns = ("loss, nats", "online", "offline", "difference", "KL(live, stored)")
    console.table(f"the same samples with live maps and with those of {url}", columns, rows)
    if wrong := next((name for name, term in agreement.terms.items() if not term.kept), None):
        term = agreement.terms[wrong]
        raise DataError(
            f"{url}: {wrong}: KL(live, stored) {term.kl:.1e} where {term.allowed_kl:.1e} is allowed, losses "
            f"{term.online - term.offline:+.1e} apart where {term.bound:.1e} is: its maps are not what this teacher "
            "makes now of these videos; dump them again"
        )
    console.say(f"both ways agree within what storing explains; cosine of their gradients {agreement.cosine:.5f}")
