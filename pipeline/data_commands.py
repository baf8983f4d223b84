"""Commands about data sets: what is in them (data_check_command.py), gaze tables to maps and back.

What is heavy is imported inside, so `--help` answers at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option, Typer

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.data_check_command import check
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import Command, Group, Json, Overrides, Params, Videos
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.from_gaze import FromGaze

POSITIONS = {
    "px": "positions in pixels (shares of the picture: --set from_gaze.position_unit=share)",
    "share": "positions in shares of the picture (pixels: --set from_gaze.position_unit=px)",
}
app = Typer(
    cls=Group, help="Data sets with recorded gaze: make them, and look at what is in them.", no_args_is_help=True
)
app.command("check", cls=Command)(check)


@app.command("from-gaze", cls=Command)
def from_gaze(
    tables: Annotated[list[Path], Argument(help="Tables of an eye tracker, CSV or TSV.", metavar="TABLE…")],
    videos: Videos,
    out: Annotated[Path, Option(help="Folder of the data set; its annotation/ is written.", metavar="DIR")],
    column: Annotated[
        list[str] | None,
        Option(help="Columns that are not known by their names, as in x=Gaze_X.", metavar="ROLE=NAME…"),
    ] = None,
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Make fixation and density maps, in the DHF1K layout, from tables of an eye tracker.

    tinyhd-pipe data from-gaze gaze.tsv --videos data/mine/video --out data/mine
    tinyhd-pipe data from-gaze gaze.csv --videos data/mine/video --out data/mine --column x=GX y=GY time=t_ms
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import from_gaze as stage

    options = load_params(params, overrides).from_gaze
    options = replace(options, columns={**options.columns, **dict(map(_role_and_name, column or []))})
    sources = given_videos(videos)
    with console.progress("bytes of tables") as reading, console.progress("frames") as making:
        shown = {"rows": reading, "frames": making}
        made = stage.from_gaze(tables, sources, out, options, report=lambda what, done, total: shown[what](done, total))
    _show(made)
    console.result(made, as_json=as_json)
    if made.problems:
        raise Exit(1)


def _role_and_name(text: str) -> tuple[str, str]:
    role, equals, name = text.partition("=")
    if not equals or not name:
        raise SettingError(f"--column {text!r}: expected ROLE=NAME, as in x=Gaze_X")
    return role, name


def _show(made: "FromGaze") -> None:
    for table, columns in made.columns.items():
        taken = ", ".join(f"{role} {name}" for role, name in columns.items() if role not in ("export", "positions"))
        console.say(f"{table}: read as {columns['export']}: {taken}; {POSITIONS[columns['positions']]}")
    console.say(
        f"{made.annotation}: {made.videos} videos, {made.frames:,} frames looked at, {made.points:,} fixations "
        f"of {made.observers} observers, from {made.rows:,} rows"
    )
    if made.left_out:
        console.table("rows left out", ("why", "rows"), [(why, f"{rows:,}") for why, rows in made.left_out.items()])
    if made.not_given:
        console.say(f"videos that the tables name and that were not given: {', '.join(map(repr, made.not_given))}")
    if made.problems:
        console.table("videos that cannot be read", ("video", "why"), list(made.problems.items()))


@app.command("to-gaze", cls=Command)
def to_gaze(
    data: Annotated[Path, Argument(help="Folder of a data set with fixations.", metavar="DIR")],
    out: Annotated[Path, Option(help="The table to write, CSV.", metavar="FILE")],
    as_json: Json = False,
) -> None:
    """Write the fixations of a data set as a table that from-gaze reads: video, frame from 0, shares of the picture.

    tinyhd-pipe data to-gaze data/dhf1k --out fixations.csv
    """
    from tinyhd_pipe.stages import to_gaze as stage
    from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos

    found = find_annotated_videos(data)
    with console.progress("videos") as advance:
        written = stage.to_gaze(found.videos, out, report=advance)
    console.say(f"{out}: {written.points:,} fixations in {written.frames:,} frames of {written.videos} videos")
    console.result(written, as_json=as_json)
