"""The command that shows a run on one page.

What is heavy is imported inside, so `--help` answers at once.
"""

from pathlib import Path
from typing import Annotated

from typer import Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.allocator import keep_freed_memory
from tinyhd_pipe.pipeline.options import Device, Json, Overrides, Params
from tinyhd_pipe.store.errors import SettingError


def report(
    run: Annotated[Path, Option(help="Folder that student-train or teacher-train left.", metavar="DIR")],
    out: Annotated[
        Path | None, Option(help="The page to write; report.html in the run's folder by default.", metavar="FILE")
    ] = None,
    evaluation: Annotated[
        Path | None,
        Option(help="Folder that evaluate left; by default RUN/evaluation, or evaluation beside RUN.", metavar="DIR"),
    ] = None,
    data: Annotated[
        Path | None, Option(help="The evaluated clips, where they are not where they were.", metavar="DIR")
    ] = None,
    store: Annotated[
        list[str] | None, Option(help="The stores learned from, where they are not where they were.", metavar="URL…")
    ] = None,
    teacher_weights: Annotated[
        Path | None, Option(help="The teacher's weights, where the evaluation does not name them.", metavar="FILE")
    ] = None,
    device: Device = "auto",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Show a run on one HTML page: what was trained on what, curves, metrics, loops of clips, store and cost.

    tinyhd-pipe report --run runs/student
    tinyhd-pipe report --run runs/student --out report.html --evaluation runs/evaluation
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import report as stage
    from tinyhd_pipe.stages.reports.places import Asked

    keep_freed_memory()
    options = load_params(params, overrides).report
    out = out or run / "report.html"
    if out.is_dir():
        raise SettingError(f"--out {out}: is a folder; name the page in it, as {out / 'report.html'}")
    asked = Asked(run, evaluation, data, tuple(store or ()), teacher_weights)
    written = stage.report(asked, out, options, device=console.device(device))
    for line in written.missing:
        console.say(line)
    console.say(f"{written.path}: the page, {console.size(written.bytes)}; open it in any browser")
    console.result(written, as_json=as_json)
