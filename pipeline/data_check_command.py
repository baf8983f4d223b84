"""The command that says what is in a data set.

What is heavy is imported inside, so `--help` answers at once.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Exit, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.options import Json, Layout, Split

if TYPE_CHECKING:
    from tinyhd_pipe.stages.data_check import CheckedVideo, DataCheck

LISTED = 40
"""Videos that the table shows; --json has all."""


def check(
    data: Annotated[
        Path, Argument(help="Folder of a data set: videos, and maps of where people looked.", metavar="DIR")
    ],
    layout: Layout = None,
    split: Split = None,
    decode: Annotated[
        bool, Option("--decode", help="Read every frame and every map, not a few of each video.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say what is in a data set and what does not fit together; exit code 1 where something is broken.

    tinyhd-pipe data check DHF1K/
    tinyhd-pipe data check DHF1K/ --split val --decode
    """
    from tinyhd_pipe.stages.data_check import data_check

    with console.progress("videos") as advance:
        checked = data_check(data, layout, split=split, decode_all=decode, report=advance)
    _show(checked, data)
    console.result(checked, as_json=as_json)
    if checked.broken:
        raise Exit(1)


def _show(checked: "DataCheck", data: Path) -> None:
    """Those of which something is to be said first: they are what one looks for."""
    order = sorted(checked.videos, key=lambda video: (not video.broken, not video.noted))
    columns = ("video", "frames", "labelled", "fixations a frame", "found")
    read = "every frame and map" if checked.decoded else "names, packets and a few maps of each video"
    title = f"{data}, {checked.layout}: {read}"
    console.table(title, columns, [_row(video) for video in order[:LISTED]])
    if len(order) > LISTED:
        console.say(f"and {len(order) - LISTED} more videos: --json lists all")
    for line in checked.left_out:
        console.say(f"left out: {line}")
    frames, labelled = (sum(getattr(video, name) for video in checked.videos) for name in ("frames", "labelled"))
    verdict = f"videos of which something is broken: {checked.broken}" if checked.broken else "nothing is broken"
    there = f"{len(checked.videos):,} videos, {frames:,} frames, {labelled:,} of them with a density map"
    console.say(f"{there}; {verdict}")


def _row(video: "CheckedVideo") -> tuple[str, ...]:
    fixations = "" if math.isnan(video.fixations) else f"{video.fixations:.1f}"
    found = [*(f"BROKEN: {line}" for line in video.broken), *video.noted]
    return video.video, f"{video.frames:,}", f"{video.labelled:,}", fixations, "\n".join(found)
