"""Commands that fit a network: what they ask for, their progress, and what they say when they are done.

What is heavy is imported inside, so `--help` answers at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.allocator import keep_freed_memory
from tinyhd_pipe.pipeline.given import given_paths, given_videos
from tinyhd_pipe.pipeline.live_teacher import LiveTeacher, check_teacher_options, live_targets
from tinyhd_pipe.pipeline.options import (
    AllowNoncommercial,
    CheckpointMinutes,
    Device,
    Download,
    DumpedVideos,
    Json,
    Layout,
    Overrides,
    Overwrite,
    Params,
    Resume,
    RunFolder,
    Settings,
    SomeStores,
    SomeWeights,
    Split,
    TeacherKind,
    TensorBoard,
)
from tinyhd_pipe.pipeline.training_progress import training_progress
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideos
    from tinyhd_pipe.stages.settings.training import StudentRecipe, TeacherRecipe
    from tinyhd_pipe.stages.training.fitting import Fitted
    from tinyhd_pipe.stages.training.targets import Targets, TeacherMaps


def teacher_train(
    data: Annotated[Path, Option(help="Labelled videos, in a layout that data sets have.", metavar="DIR")],
    out: RunFolder,
    layout: Layout = None,
    split: Split = None,
    weights: Annotated[
        Path | None,
        Option(
            help="Take these HD2S weights as they are; only the file that fitting leaves means: fit.", metavar="FILE"
        ),
    ] = None,
    kinetics: Annotated[
        Path | None,
        Option(
            help="S3D's Kinetics-400 weights in the public format, from which the encoder starts, as published; goes "
            "before the setting encoder_weights.",
            metavar="FILE",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        Option(
            help="Terms of the weights, which store and students inherit; goes before the setting of that name.",
            metavar="TERMS",
        ),
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    checkpoint_minutes: CheckpointMinutes = 10,
    tensorboard: TensorBoard = False,
    device: Device = "auto",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Fit HD2S where no published weights are at hand.

    tinyhd-pipe teacher-train --data data/sample/train --out runs/teacher --params params.yaml
    tinyhd-pipe teacher-train --data dhf1k --out runs/hd2s --kinetics S3D_kinetics400.pt --licence "CC BY 4.0"
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import teacher_train as stage
    from tinyhd_pipe.stages.training.fitting import Run
    from tinyhd_pipe.stages.training.processes import joined

    keep_freed_memory()
    recipe = _licensed(load_params(params, overrides).teacher_train, licence)
    if weights is not None and weights.resolve() != (out / "best.safetensors").resolve():
        if kinetics is not None:
            raise SettingError(f"--kinetics {kinetics}: nothing is fitted with --weights; leave one of them out")
        adopted = stage.adopt_teacher(weights, out, size=recipe.size, licence=recipe.licence)
        console.say(f"{adopted}: {weights} as it is; nothing was fitted")
        console.result({"best": adopted}, as_json=as_json)
        return
    recipe = _from_kinetics(recipe, kinetics)
    found = _labelled(data, layout, split)
    run = Run(
        out,
        resume=resume,
        overwrite=overwrite,
        device=console.device(device),
        checkpoint_minutes=checkpoint_minutes,
        tensorboard=tensorboard,
        given=given_paths(data=data),
        left_out=_say_left_out,
    )
    _say_kernels(run.device)
    with joined() as processes, training_progress("teacher") as shown:
        run = shown.listening_to(replace(run, processes=processes))
        fitted = stage.teacher_train(found.videos, recipe, run)
    _show_fitted(fitted, found, as_json=as_json)


def student_train(
    videos: DumpedVideos,
    out: RunFolder,
    store: SomeStores = None,
    labels: Annotated[
        Path | None,
        Option(help="Data set of labelled videos among them; without it nothing is labelled.", metavar="DIR"),
    ] = None,
    layout: Layout = None,
    split: Split = None,
    online: Annotated[
        bool,
        Option(
            "--online",
            help="The published way: the teacher makes its maps anew for every sample, instead of a store; many times "
            "as slow. With a --store beside it, samples are those of the store, and both ways are compared first.",
        ),
    ] = False,
    teacher: TeacherKind = "hd2s",
    teacher_weights: SomeWeights = None,
    allow_noncommercial: AllowNoncommercial = False,
    download: Download = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    checkpoint_minutes: CheckpointMinutes = 10,
    tensorboard: TensorBoard = False,
    device: Device = "auto",
    settings: Settings = "student_train",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train a TinyHD student from the store alone, or with the teacher in the loop.

    tinyhd-pipe student-train --store maps.zarr --videos clips/ --out runs/student
    tinyhd-pipe student-train --store hd2s.zarr vinet.zarr --videos clips/ --out runs/fused
    tinyhd-pipe student-train --online --teacher-weights hd2s.pt --videos clips/ --out runs/online
    """
    from tinyhd_pipe.pipeline.params import group_of, load_params
    from tinyhd_pipe.stages import student_train as stage
    from tinyhd_pipe.stages.settings.training import StudentRecipe
    from tinyhd_pipe.stages.training.fitting import Run
    from tinyhd_pipe.stages.training.processes import joined

    check_teacher_options(online, teacher_weights, store or [], labels)
    if labels is None and (layout or split):
        raise SettingError("--layout, --split: are of labelled videos, and none are given: add --labels DIR")
    keep_freed_memory()
    given = load_params(params, overrides)
    recipe = group_of(given, settings, StudentRecipe)
    alone = _learns_from_labels_alone(recipe, store or [], labels, online=online)
    stored = _stored_targets(store, recipe) if store and not alone else None
    sources = given_videos(videos)
    found = _labelled(labels, layout, split) if labels else None
    annotated = found.videos if found else ()
    recipe = _with_encoder_weights(recipe, download=download)
    run = Run(
        out,
        resume=resume,
        overwrite=overwrite,
        device=console.device(device),
        checkpoint_minutes=checkpoint_minutes,
        tensorboard=tensorboard,
        given=given_paths(store=store, videos=videos, labels=labels, teacher_weights=teacher_weights),
        left_out=_say_left_out,
    )
    targets: TeacherMaps | None = stored
    if teacher_weights is not None:
        allowed = allow_noncommercial or given.teacher_dump.allow_noncommercial
        asked = replace(given.teacher_dump, allow_noncommercial=allowed)
        live = LiveTeacher(teacher, teacher_weights, asked, run.device)
        targets = live_targets(live, stored, sources, annotated, recipe)
    if targets is not None:
        _say_lacking(targets, recipe)
    _say_kernels(run.device)
    with joined() as processes, training_progress("student") as shown:
        run = shown.listening_to(replace(run, processes=processes))
        fitted = stage.student_train(targets, sources, annotated, recipe, run)
    _show_fitted(fitted, found, as_json=as_json)


def _from_kinetics(recipe: "TeacherRecipe", kinetics: Path | None) -> "TeacherRecipe":
    """The recipe with the file that was given; a full-width teacher without any is said to be no published one."""
    recipe = recipe if kinetics is None else replace(recipe, encoder_weights=kinetics)
    if recipe.encoder_weights is None and recipe.width == 1.0:
        console.say(
            "encoder: starts from random weights, not from Kinetics-400's as published; --kinetics FILE, or "
            "teacher_train.encoder_weights, names S3D's in the public format"
        )
    return recipe


def _licensed(recipe: "TeacherRecipe", licence: str | None) -> "TeacherRecipe":
    try:
        return recipe if licence is None else replace(recipe, licence=licence)
    except ValueError as error:
        raise SettingError(f"--licence: {error}") from error


def _say_kernels(device: str) -> None:
    """Where training on a CPU goes without our kernels, that is said: it takes twice the time."""
    from tinyhd_pipe.stages.networks.layers.kernels import kernels

    if device == "cpu" and kernels().library is None:
        console.say(f"layers: torch's own, since {kernels().told}; a step takes about twice as long")


def _learns_from_labels_alone(recipe: "StudentRecipe", urls: list[str], labels: Path | None, *, online: bool) -> bool:
    """Whether no teacher has a say; says so."""
    if recipe.learn_from == "labels" and labels is None:
        raise SettingError("learn_from: labels, and none are given: add --labels DIR, or learn from maps")
    if recipe.learn_from == "labels" and online:
        raise SettingError("--online: learn_from: labels asks no teacher; leave one of them out")
    alone = recipe.learn_from == "labels" or not (urls or online)
    if alone and recipe.learn_from == "maps":
        raise SettingError("learn_from: maps, and none are given: add --store URL, or --online")
    if alone:
        unused = f"; maps of {', '.join(urls)} are not used" if urls else ""
        console.say(f"targets: density maps of {labels} alone, no teacher's{unused}")
    return alone


def _stored_targets(urls: list[str], recipe: "StudentRecipe") -> "Targets":
    """The maps of these stores; says how they are fused where there are several."""
    from tinyhd_pipe.stages.training.targets import Targets, stood_for
    from tinyhd_pipe.store.reader import open_store

    targets = Targets.of(
        [open_store(url) for url in urls],
        recipe.store_weights,
        stood_for=stood_for(recipe),
        confidence=recipe.confidence,
    )
    if len(targets.stores) > 1:
        shares = [weight / sum(targets.weights) for weight in targets.weights]
        fused = ", ".join(f"{store.url} ({share:.0%})" for store, share in zip(targets.stores, shares, strict=True))
        console.say(f"targets: {len(targets.videos)} videos that all of {len(shares)} stores hold, fused: {fused}")
    return targets


def _say_lacking(targets: "TeacherMaps", recipe: "StudentRecipe") -> None:
    """What the student has that there is no target for, before anything is trained.

    D2 and D3 have none from HD2S, as published; of a teacher assistant they are expected.
    """
    from tinyhd_pipe.stages.networks.levels import CONSPICUITY, plain_level

    lacking = targets.lacking(recipe.decoders)
    of_d1 = [level for level in lacking if plain_level(level) in CONSPICUITY]
    of_others = [level for level in lacking if level not in of_d1]
    there = f"{targets.urls} has {', '.join(targets.levels)}"
    if of_d1:
        console.say(
            f"no target for {', '.join(of_d1)}: {there}; take a teacher that has "
            "conspicuity maps, or --set student_train.missing_conspicuity=final lets the final map stand in"
        )
    teacher = targets.facts()["teacher"]
    if of_others and "tinyhd" in {one.get("kind") for one in teacher.get("fused", [teacher])}:
        console.say(
            f"no target for {', '.join(of_others)}: {there}; dump a TinyHD teacher with these decoders into another "
            "--store, which keeps their maps, or --set student_train.missing_decoders=final"
        )


def _with_encoder_weights(recipe: "StudentRecipe", *, download: bool) -> "StudentRecipe":
    """The recipe with the file of image weights that was asked for; without any, one line says so."""
    from tinyhd_pipe.stages.networks.imagenet import MOBILENET_V2, fetched, kept_at

    if download and recipe.encoder_weights is not None:
        raise SettingError(
            f"--download: student_train.encoder_weights names {recipe.encoder_weights} already; leave one of them out"
        )
    if download:
        console.say(f"encoder: starts from the ImageNet weights of {MOBILENET_V2}, kept at {kept_at(MOBILENET_V2)}")
        return replace(recipe, encoder_weights=fetched(MOBILENET_V2))
    if recipe.encoder_weights is None:
        console.say(
            "encoder: starts from random weights, not from ImageNet's as published; "
            "--download fetches those, student_train.encoder_weights names a file of them"
        )
    return recipe


def _labelled(data: Path, layout: str | None, split: str | None) -> "AnnotatedVideos":
    """The labelled videos of a data set; says which layout that is, and what is left out of it."""
    from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos

    found = find_annotated_videos(data, layout, split=split)
    console.say(f"{data}: {len(found.videos)} labelled videos, in the layout {found.layout}")
    for line in found.left_out:
        _say_left_out(line)
    return found


def _say_left_out(line: str) -> None:
    console.say(f"left out: {line}")


def _show_fitted(fitted: "Fitted", labelled: "AnnotatedVideos | None", *, as_json: bool) -> None:
    best = next(epoch for epoch in fitted.history if epoch.epoch == fitted.best_epoch)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in (best.validation or {}).items())
    where = f"epoch {fitted.best_epoch + 1} of {len(fitted.history)}"
    console.say(f"{fitted.best}: {where}; KL on videos left out: {scores}; licence: {fitted.licence}")
    not_taken = labelled.left_out if labelled else ()
    console.result(replace(fitted, left_out=(*not_taken, *fitted.left_out)), as_json=as_json)
