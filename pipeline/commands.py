"""The commands that are small: sample data, an evaluation, the settings, and what there is on this machine.

What is heavy is imported inside the command that needs it, so `--help` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.options import Device, Json, Overrides, Params, TeacherKind


def sample_data(
    directory: Annotated[
        Path, Argument(help="Folder to fill with train, heldout and unlabelled clips.", metavar="DIR")
    ],
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write synthetic labelled and unlabelled clips, in the DHF1K layout.

    tinyhd-pipe sample-data data/sample
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages.sample_data import make_sample_data

    options = load_params(params, overrides).sample_data
    with console.progress("sample data") as advance:
        made = make_sample_data(directory, options, progress=advance)
    train, heldout, unlabelled = made.clips
    console.say(f"{directory}: {train} labelled clips, {heldout} held out, {unlabelled} unlabelled")
    console.result(made, as_json=as_json)


def evaluate(
    weights: Annotated[Path, Option(help="The student's weights.", metavar="FILE")],
    data: Annotated[Path, Option(help="Labelled clips in the DHF1K layout.", metavar="DIR")],
    out: Annotated[Path | None, Option(help="Folder for metrics/, videos/ and comparison.png.", metavar="DIR")] = None,
    teacher: TeacherKind = "hd2s",
    teacher_weights: Annotated[Path | None, Option(help="Compare with this teacher, too.", metavar="FILE")] = None,
    device: Device = "auto",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Compare a student and its teacher, and two baselines, with what people looked at.

    tinyhd-pipe evaluate --weights runs/student/best.safetensors --data data/sample/heldout --out runs/evaluation
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import evaluate as stage
    from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
    from tinyhd_pipe.stages.networks.network import load_student, load_teacher

    options = load_params(params, overrides).evaluate
    device = console.device(device)
    annotated = find_annotated_videos(data).videos
    networks = {"student": load_student(weights, device=device)}
    if teacher_weights is not None:
        networks = {"teacher": load_teacher(teacher, weights=teacher_weights, device=device), **networks}
    with console.progress("evaluate") as advance:
        scored = stage.evaluate(
            annotated,
            networks,
            options,
            report=lambda name, done, total: advance(done, total, name),
        )
    rows = [(name, *(f"{scores[metric]:.3f}" for metric in stage.METRICS)) for name, scores in scored.mean.items()]
    console.table(f"{data}: {len(annotated)} videos, {scored.frames} frames", ("", *stage.METRICS), rows)
    if scored.problems:
        console.table("did not decode, or not all of it", ("video", "why"), list(scored.problems.items()))
    if out is not None:
        stage.write_figures(scored, out)
        if whole := [video for video in annotated if video.source.id not in scored.problems]:
            picture = stage.comparison_sheet(whole, networks, out / "comparison.png", rows=options.rows)
            console.say(f"frame, truth and maps side by side: {picture}")
    console.result(scored, as_json=as_json)
    if scored.problems:
        raise Exit(1)


def show_params(params: Params = None, overrides: Overrides = None) -> None:
    """Print every setting with its meaning, as YAML.

    tinyhd-pipe params > params.yaml
    """
    from tinyhd_pipe.pipeline.params import as_yaml, load_params

    sys.stdout.write(as_yaml(load_params(params, overrides)))


def show_environment(as_json: Json = False) -> None:
    """Print versions, processor, devices and threads: what a bug report needs.

    tinyhd-pipe env
    """
    from tinyhd_pipe.stages.bench.machine import environment

    facts = environment()
    if as_json:
        console.result(facts, as_json=True)
        return
    width = max(map(len, facts))
    sys.stdout.write("".join(f"{name:<{width}}  {fact}\n" for name, fact in facts.items()))
