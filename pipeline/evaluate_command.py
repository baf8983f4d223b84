"""The command that scores maps: whose maps, on which videos, by whose conventions, and the table that comes of it.

What is heavy is imported inside, so `--help` answers at once.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Exit, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.allocator import keep_freed_memory
from tinyhd_pipe.pipeline.given import given_paths
from tinyhd_pipe.pipeline.options import Device, Json, Layout, Overrides, Params, Split, TeacherKind
from tinyhd_pipe.store.errors import SettingError, WeightsError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.gaze.evaluation_file import Setting
    from tinyhd_pipe.stages.gaze.figures import Evaluation
    from tinyhd_pipe.stages.networks.network import Network
    from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions

KEPT = "kept"


def evaluate(
    data: Annotated[Path, Option(help="Labelled videos, in a layout that data sets have.", metavar="DIR")],
    layout: Layout = None,
    split: Split = None,
    weights: Annotated[list[Path] | None, Option(help="Weights of students.", metavar="FILE…")] = None,
    teacher: TeacherKind = "hd2s",
    teacher_weights: Annotated[list[Path] | None, Option(help="Weights of teachers.", metavar="FILE…")] = None,
    store: Annotated[list[str] | None, Option(help="Stores of a teacher's maps.", metavar="URL…")] = None,
    maps: Annotated[
        list[Path] | None,
        Option(help="Predicted maps of others: DIR/001/0001.png, DIR/001.avi, or one grey video.", metavar="PATH…"),
    ] = None,
    out: Annotated[
        Path | None,
        Option(help="Folder for metrics/, videos/, evaluation.json, comparison.png and .webp.", metavar="DIR"),
    ] = None,
    frames: Annotated[bool, Option("--frames", help="Write frames/ to --out, too: a row for each frame.")] = False,
    resume: Annotated[bool, Option("--resume", help="Take what --out keeps of scored videos.")] = False,
    protocol: Annotated[
        Literal["dhf1k", "mit", "tinyhd", "hollywood2"] | None,
        Option(help="Whose conventions metrics follow; goes before the setting of that name.", metavar="NAME"),
    ] = None,
    postprocessing: Annotated[
        Literal["none", "png", "tinyhd", "hd2s"] | None,
        Option(help="Of predictions; goes before the setting of that name.", metavar="NAME"),
    ] = None,
    baselines: Annotated[
        Literal["none", "centre", "still"] | None,
        Option(help="still: the first network on still frames, too; goes before the setting.", metavar="WHICH"),
    ] = None,
    device: Device = "auto",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Compare students, teachers, stores and maps of others, and baselines, with what people looked at.

    tinyhd-pipe evaluate --weights runs/student/best.safetensors --data data/sample/heldout --out runs/evaluation
    tinyhd-pipe evaluate --weights s.pth m.pth --store maps.zarr --maps vinet/ --data DHF1K/ --out runs/compared
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import evaluate as stage
    from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
    from tinyhd_pipe.stages.gaze.evaluation_file import write_evaluation
    from tinyhd_pipe.stages.gaze.figures import write_figures, write_frames
    from tinyhd_pipe.stages.predictions.contender import with_baselines
    from tinyhd_pipe.stages.predictions.pictures import of_pictures
    from tinyhd_pipe.stages.predictions.stores import of_store

    keep_freed_memory()
    if not (weights or teacher_weights or store or maps):
        raise SettingError("evaluate: nothing to score; give --weights, --teacher-weights, --store or --maps")
    if out is None and (frames or resume):
        raise SettingError(f"--{'frames' if frames else 'resume'}: give --out, the folder that holds them")
    settings = load_params(params, overrides).evaluate
    options = replace(
        settings,
        protocol=protocol or settings.protocol,
        postprocessing=postprocessing or settings.postprocessing,
        baselines=baselines or settings.baselines,
    )
    others = [of_store(name, url) for name, url in named("store", store or []).items()]
    others += [of_pictures(name, Path(path)) for name, path in named("maps", maps or []).items()]
    networks = _networks(weights or [], teacher, teacher_weights or [], options, device)
    found = find_annotated_videos(data, layout, split=split)
    for line in found.left_out:
        console.say(f"{data}: {line}")
    annotated = found.videos
    with console.progress("evaluate") as advance:
        scored = stage.evaluate(
            annotated,
            with_baselines(networks, others, options.baselines),
            options,
            stage.Watch(
                lambda name, done, total: advance(done, total, name),
                kept=_kept(out, resume=resume),
                frames=partial(write_frames, out=out) if out and frames else lambda scored: None,
            ),
        )
    scored = replace(scored, not_taken=found.left_out)
    _show(data, scored, len(annotated))
    if out is not None:
        write_figures(scored, out)
        paths = given_paths(data=data, weights=weights, teacher_weights=teacher_weights, store=store, maps=maps)
        write_evaluation(scored, _setting(networks, paths), out)
        whole = [video for video in annotated if video.source.id not in scored.problems]
        if whole and networks:
            still, moving = stage.comparison(whole, networks, out, rows=options.rows)
            console.say(f"frame, truth and maps side by side: {still}, and moving: {moving}")
    console.result(scored, as_json=as_json)
    if scored.problems:
        raise Exit(1)


def _networks(
    students: Sequence[Path], kind: str, teachers: Sequence[Path], options: "EvaluateOptions", device: str
) -> dict[str, "Network"]:
    """Teachers, then students, by the names of their rows."""
    from tinyhd_pipe.stages.networks.network import load_student, load_teacher

    if not students and not teachers:
        return {}
    device = console.device(device)
    loaded = {
        name: load_teacher(kind, weights=path, device=device, precision=options.precision)
        for name, path in named("teacher", teachers).items()
    }
    for name, path in named("student", students).items():
        try:
            loaded[name] = load_student(path, device=device, precision=options.precision)
        except WeightsError as error:  # of another kind, which has an option of its own here
            raise WeightsError(str(error).replace("use --teacher hd2s", "give it as --teacher-weights")) from error
    return loaded


def _setting(networks: Mapping[str, "Network"], paths: Mapping[str, Sequence[str]]) -> "Setting":
    """What was scored on what: of every row its file, and of networks the digest of that."""
    from tinyhd_pipe.stages.gaze.evaluation_file import Scored, Setting

    files = {
        name: path
        for kind, option in (("teacher", "teacher_weights"), ("student", "weights"))
        for name, path in named(kind, paths.get(option, [])).items()
    }
    rows = {
        name: Scored(network.kind, files[name], network.facts.get("weights_sha256"))
        for name, network in networks.items()
    }
    for kind in ("store", "maps"):
        rows |= {name: Scored(kind, path) for name, path in named(kind, paths.get(kind, [])).items()}
    return Setting(rows, paths, str(Path.cwd()))


def named(kind: str, given: Sequence[str | Path]) -> dict[str, str]:
    """A row's name for each of some files: what they are where there is one, else as much of their paths as differs.

    runs/student/best.safetensors                                    student
    runs/s/best.safetensors, runs/m/best.safetensors                 s/best, m/best
    """
    if len(given) == 1:
        return {kind: str(given[0])}
    parts = {str(one): str(one).replace("\\", "/").rstrip("/").split("/") for one in given}
    for tail in parts.values():
        tail[-1] = Path(tail[-1]).stem
    for length in range(1, max(map(len, parts.values()), default=1) + 1):
        names = {"/".join(tail[-length:]): one for one, tail in parts.items()}
        if len(names) == len(given):
            return names
    raise SettingError(f"{kind}: {', '.join(map(str, given))}: two of them would have one name; give each once")


def _kept(out: Path | None, *, resume: bool) -> Path | None:
    """The folder of scores that are kept; what it holds is another evaluation's unless this one goes on with it."""
    if out is None:
        return None
    if not resume and (out / KEPT).is_dir():
        shutil.rmtree(out / KEPT)
    return out / KEPT


def _show(data: Path, scored: "Evaluation", videos: int) -> None:
    from tinyhd_pipe.stages.gaze.scoring import METRICS

    rows = []
    for name, figures in scored.mean.items():
        rows.append((name, *(f"{figures[metric]:.3f}" for metric in METRICS)))
        if len(scored.videos[name]) > 1:
            rows.append(("", *(_interval(*scored.intervals[name][metric]) for metric in METRICS)))
    by = f"protocol {scored.protocol}, postprocessing {scored.postprocessing}"
    title = f"{data}: {videos} videos, {scored.frames} frames; {by}; below each row 95 % intervals over videos"
    console.table(title, ("", *METRICS), rows)
    _show_differences(scored)
    for left_out in scored.left_out:
        console.say(str(left_out))
    console.problems(scored.problems)


def _interval(low: float, high: float) -> str:
    return "" if low != low else re.sub(r"\b0\.", ".", f"{low:.2f}–{high:.2f}")


def _show_differences(scored: "Evaluation") -> None:
    """How the first row differs from the others but the baselines, where there are enough videos to say so."""
    from tinyhd_pipe.stages.predictions.contender import is_baseline

    rows = [
        (
            f"{of.name} − {of.other}",
            of.metric,
            f"{of.difference:+.3f}",
            f"{of.interval[0]:+.3f} to {of.interval[1]:+.3f}",
            f"{of.p:.4f}",
            str(of.videos),
        )
        for of in scored.differences
        if of.videos > 1 and of.metric != "saturated" and not is_baseline(of.other)
    ]
    if rows:
        columns = ("differences of the videos' means", "metric", "mean", "95 % interval", "p", "videos")
        console.table("the same videos, compared in pairs; p by exchanging names at random", columns, rows)
