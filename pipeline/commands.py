"""The commands: each reads its settings, calls one stage with plain arguments, and shows what it did.

What is heavy is imported inside the command that needs it, so `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.allocator import keep_freed_memory

if TYPE_CHECKING:
    from tinyhd_pipe.pipeline.params import Recipe as RecipeSettings
    from tinyhd_pipe.stages.training.fitting import EpochReport, Fitted, Recipe

Params = Annotated[
    Path | None, Option("--params", help="YAML file with settings; what it leaves out has the published value.")
]
Overrides = Annotated[
    list[str] | None, Option("--set", help="One setting, as in student_train.epochs=10. May be repeated.")
]
Json = Annotated[bool, Option("--json", help="Print the result as JSON on stdout.")]
Device = Annotated[str, Option(help="Where networks run: cpu, cuda, cuda:1.")]
Resume = Annotated[bool, Option("--resume", help="Go on with the run that --out holds.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Begin again; with --resume only if going on is impossible.")]
TeacherKind = Annotated[str, Option(help="Kind of the teacher: hd2s or tinyhd.")]


def sample_data(
    directory: Annotated[Path, Argument(help="Folder to fill with train, heldout and unlabelled clips.")],
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write synthetic labelled and unlabelled clips, in the DHF1K layout.

    tinyhd-pipe sample-data data/sample
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages.sample_data import make_sample_data

    settings = load_params(params, overrides).sample_data
    with console.progress("sample data") as advance:
        made = make_sample_data(directory, **settings.model_dump(), progress=advance)
    train, heldout, unlabelled = made.clips
    console.say(f"{directory}: {train} labelled clips, {heldout} held out, {unlabelled} unlabelled")
    console.result(made, as_json=as_json)


def teacher_train(
    data: Annotated[Path, Option(help="Labelled clips in the DHF1K layout: video/ and annotation/.")],
    out: Annotated[Path, Option(help="Folder for weights and history.")],
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "cpu",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Fit HD2S where no published weights are at hand.

    tinyhd-pipe teacher-train --data data/sample/train --out runs/teacher --params params.yaml
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import teacher_train as stage
    from tinyhd_pipe.stages.gaze.dhf1k import find_annotated_videos

    keep_freed_memory()
    settings = load_params(params, overrides).teacher_train
    if settings.weights is not None:
        adopted = stage.adopt_teacher(settings.weights, out, size=settings.size)
        console.say(f"{adopted}: {settings.weights} as it is; nothing was fitted")
        console.result({"best": adopted}, as_json=as_json)
        return
    with console.progress("teacher") as advance:
        fitted = stage.teacher_train(
            find_annotated_videos(data),
            out,
            width=settings.width,
            size=settings.size,
            recipe=_recipe(settings),
            validation_share=settings.validation_share,
            validation_clips=settings.validation_clips,
            resume=resume,
            overwrite=overwrite,
            device=device,
            **_training_reports(advance),
        )
    _show_fitted(fitted, as_json=as_json)


def student_train(
    store: Annotated[str, Option(help="The store that teacher-dump made.")],
    videos: Annotated[list[Path], Option(help="The videos that were dumped, given as they were then.")],
    out: Annotated[Path, Option(help="Folder for weights and history.")],
    labels: Annotated[
        Path | None, Option(help="Labelled clips among them, in the DHF1K layout; without it nothing is labelled.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    device: Device = "cpu",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train a TinyHD student from the store alone.

    tinyhd-pipe student-train --store maps.zarr --videos clips/ --out runs/student
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import student_train as stage
    from tinyhd_pipe.stages.gaze.dhf1k import find_annotated_videos
    from tinyhd_pipe.stages.video.sources import find_videos
    from tinyhd_pipe.store.reader import open_store

    keep_freed_memory()
    settings = load_params(params, overrides).student_train
    with console.progress("student") as advance:
        fitted = stage.student_train(
            open_store(store),
            find_videos(videos),
            find_annotated_videos(labels) if labels else [],
            out,
            topology=stage.Topology(
                decoders=settings.decoders,
                reduction=settings.reduction,
                outputs=settings.outputs,
                d1_outputs=settings.d1_outputs,
            ),
            size=settings.size,
            recipe=_recipe(settings),
            unlabelled_per_labelled=settings.unlabelled_per_labelled,
            encoder_rate=settings.encoder_rate,
            target_lag=settings.target_lag,
            validation_share=settings.validation_share,
            validation_clips=settings.validation_clips,
            resume=resume,
            overwrite=overwrite,
            device=device,
            **_training_reports(advance),
        )
    _show_fitted(fitted, as_json=as_json)


def evaluate(
    weights: Annotated[Path, Option(help="The student's weights.")],
    data: Annotated[Path, Option(help="Labelled clips in the DHF1K layout.")],
    out: Annotated[Path | None, Option(help="Folder for metrics.json and comparison.png.")] = None,
    teacher: TeacherKind = "hd2s",
    teacher_weights: Annotated[Path | None, Option(help="Compare with this teacher, too.")] = None,
    device: Device = "cpu",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Compare a student and its teacher, and two baselines, with what people looked at.

    tinyhd-pipe evaluate --weights runs/student/best.safetensors --data data/sample/heldout --out runs/evaluation
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import evaluate as stage
    from tinyhd_pipe.stages.gaze.dhf1k import find_annotated_videos
    from tinyhd_pipe.stages.networks.network import load_student, load_teacher

    settings = load_params(params, overrides).evaluate
    annotated = find_annotated_videos(data)
    networks = {"student": load_student(weights, device=device)}
    if teacher_weights is not None:
        networks = {"teacher": load_teacher(teacher, weights=teacher_weights, device=device), **networks}
    with console.progress("evaluate") as advance:
        scored = stage.evaluate(
            annotated,
            networks,
            every=settings.every,
            seed=settings.seed,
            report=lambda name, done, total: advance(done, total, name),
        )
    rows = [(name, *(f"{scores[metric]:.3f}" for metric in stage.METRICS)) for name, scores in scored.mean.items()]
    console.table(f"{data}: {len(annotated)} videos, {scored.frames} frames", ("", *stage.METRICS), rows)
    if out is not None:
        console.write_json(out / "metrics.json", scored)
        picture = stage.comparison_sheet(annotated, networks, out / "comparison.png", rows=settings.rows)
        console.say(f"frame, truth and maps side by side: {picture}")
    console.result(scored, as_json=as_json)


def show_params(params: Params = None, overrides: Overrides = None) -> None:
    """Print every setting with its meaning, as YAML.

    tinyhd-pipe params > params.yaml
    """
    from tinyhd_pipe.pipeline.params import as_yaml, load_params

    sys.stdout.write(as_yaml(load_params(params, overrides)))


def _recipe(settings: "RecipeSettings") -> "Recipe":
    from tinyhd_pipe.stages.training.fitting import Recipe

    return Recipe(**{name: getattr(settings, name) for name in Recipe.__dataclass_fields__})


def _training_reports(advance: console.Advance) -> dict[str, Any]:
    """Step and epoch reports as one progress line: the bar counts steps, the note says the latest losses."""
    latest = ""

    def epoch_done(epoch: "EpochReport") -> None:
        nonlocal latest
        scores = epoch.validation or epoch.loss
        kind = "left out" if epoch.validation else "loss"
        latest = f"epoch {epoch.epoch + 1}, {kind}: " + ", ".join(f"{name} {x:.3f}" for name, x in scores.items())

    return {"report": epoch_done, "step_report": lambda done, total: advance(done, total, latest)}


def _show_fitted(fitted: "Fitted", *, as_json: bool) -> None:
    best = next(epoch for epoch in fitted.history if epoch.epoch == fitted.best_epoch)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in (best.validation or {}).items())
    where = f"epoch {fitted.best_epoch + 1} of {len(fitted.history)}"
    console.say(f"{fitted.best}: {where}; KL on videos left out: {scores}")
    console.result(fitted, as_json=as_json)
