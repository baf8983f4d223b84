"""The command that says what each part of the recipe is worth: a table for people, and the same one for documents.

What is heavy is imported inside, so `--help` answers at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.allocator import keep_freed_memory
from tinyhd_pipe.pipeline.options import Device, Json, Overrides, Params
from tinyhd_pipe.store.whole_file import write_whole

if TYPE_CHECKING:
    from tinyhd_pipe.stages.bench.ablations import Ablations, Variant

DIFFERENCE = "CC against the recipe"


def ablations(
    out: Annotated[Path, Option(help="Folder for runs, figures and ablations.md.", metavar="DIR")],
    seeds: Annotated[int, Option(min=1, help="Students of each variant.", metavar="N")] = 3,
    only: Annotated[
        list[str] | None, Option(help="Variants to compare with the recipe; all without any.", metavar="NAME…")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Begin again, not go on with what --out holds.")] = False,
    device: Device = "auto",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train students without parts of the recipe, over several seeds, and say what each part is worth.

    Clips, teacher and store are those of `data` in the settings; where they are not there, they are made in --out.
    Killed, the same command goes on.

    tinyhd-pipe bench ablations --out runs/ablations --params params.yaml
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages.bench.ablation_maps import Clips, Making, Taught
    from tinyhd_pipe.stages.bench.ablations import AblationOptions, bench_ablations

    keep_freed_memory()
    settings = load_params(params, overrides)
    data = settings.data
    measured = bench_ablations(
        Clips(data.labelled, data.unlabelled, data.heldout),
        Taught(data.teacher_weights, Path(data.store)),
        Making(
            settings.sample_data,
            settings.teacher_train,
            settings.teacher_dump,
            device=console.device(device),
            overwrite=overwrite,
        ),
        AblationOptions(settings.student_train, settings.evaluate, seeds=seeds, only=tuple(only or ())),
        out,
        watch=console.progress,
    )
    columns, rows = _cells(measured)
    facts = ", ".join(f"{name} {fact}" for name, fact in measured.machine.items())
    console.table(f"{len(measured.seeds)} seeds, mean ± standard deviation: {facts}", columns, rows)
    write_whole(out / "ablations.md", _markdown(columns, rows).encode())
    console.say(f"the same in Markdown: {out / 'ablations.md'}")
    console.result(measured, as_json=as_json)


def _cells(measured: "Ablations") -> tuple[list[str], list[list[str]]]:
    """Columns and rows: the recipe, its variants with what they change, and the teacher."""
    metrics = list(measured.teacher)
    rows = [
        [
            _called(row.variant),
            *(_figure(row.mean[metric], row.spread[metric]) for metric in metrics),
            _figure(row.difference["CC"], row.difference_spread["CC"], signed=True) if place else "",
        ]
        for place, row in enumerate(measured.rows)
    ]
    teacher = ["their teacher", *(f"{measured.teacher[metric]:.3f}" for metric in metrics), ""]
    return ["", *metrics, DIFFERENCE], [*rows, teacher]


def _called(variant: "Variant") -> str:
    """A variant's name, and what it changes."""
    changes = [f"{setting} {_plain(value)}" for setting, value in variant.changes.items()]
    taught_by = [] if variant.taught_by == ("teacher",) else [f"taught by {_plain(variant.taught_by)}"]
    return variant.name + (f" ({', '.join(changes + taught_by)})" if changes or taught_by else "")


def _plain(value: object) -> str:
    return (
        " + ".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _figure(mean: float, spread: float, *, signed: bool = False) -> str:
    return f"{mean:{'+' if signed else ''}.3f}" + (f" ± {spread:.3f}" if spread == spread else "")


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
