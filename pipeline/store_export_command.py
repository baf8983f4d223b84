"""The command that writes a store's maps as files for other tools.

What is heavy is imported inside, so `--help` answers at once.
"""

import re
from pathlib import Path
from typing import Annotated, Literal

from typer import Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import Json, SomeVideos, StoreArgument
from tinyhd_pipe.store.errors import SettingError


def export_store(
    store: StoreArgument,
    out: Annotated[Path, Option(help="Folder for the maps.", metavar="DIR")],
    format: Annotated[
        Literal["png", "npy", "webdataset", "parquet"],
        Option(
            "--format",
            help="png: DIR/VIDEO/0001.png; npy: DIR/VIDEO.npy; webdataset: tars; parquet: tables, a row a frame.",
        ),
    ] = "png",
    levels: Annotated[
        list[str] | None, Option("--levels", help="Levels to write; final by default.", metavar="LEVEL…")
    ] = None,
    size: Annotated[
        str | None, Option("--size", help="Height and width of the maps; the teacher's by default.", metavar="HxW")
    ] = None,
    brightness: Annotated[
        Literal["peak", "absolute"], Option(help="Of png: peak, each map's maximum is 255; absolute, 1 is.")
    ] = "peak",
    frames_a_file: Annotated[
        int, Option(min=1, help="Of webdataset and parquet: frames after which the next file begins.", metavar="N")
    ] = 2048,
    videos: SomeVideos = None,
    as_json: Json = False,
) -> None:
    """Write a store's maps as pictures, arrays, tars or tables; a rerun makes what is missing.

    tinyhd-pipe store export maps.zarr --out maps/ --format npy
    tinyhd-pipe store export maps.zarr --out samples/ --format webdataset --videos clips/
    """
    if videos and format != "webdataset":
        raise SettingError(f"--videos: frames go beside maps in --format webdataset alone, not {format}")
    from tinyhd_pipe.stages import store_export as stage

    wanted = stage.ExportWanted(
        format,
        tuple(dict.fromkeys(levels or ["final"])),
        _size(size),
        brightness,
        frames_a_file,
        tuple(given_videos(videos)) if videos else (),
    )
    with console.progress("maps") as advance:
        exported = stage.export_store(store, out, wanted, report=advance)
    there = f"{exported.already_there} were there already"
    console.say(f"{out}: {exported.videos} videos, {exported.frames:,} frames written now; of the files {there}")
    if exported.without_maps:
        console.say(f"{len(exported.without_maps)} videos have no valid map, {exported.without_maps[0]} among them")
    console.result(exported, as_json=as_json)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,3})[x×]([1-9]\d{0,3})", text)
    if found is None:
        raise SettingError(f"--size {text}: expected height x width, as in 192x256")
    return int(found[1]), int(found[2])
