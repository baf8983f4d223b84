"""Commands about several stores: how alike two teachers are, and their maps fused into a store of its own.

What is heavy is imported inside, so `--help` answers at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import AllowNoncommercial, Json, Overrides, Params, SomeVideos, Store
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.store_compare import Compared


def compare_stores(
    first: Annotated[str, Argument(help="Folder or URL of a store.", metavar="A")],
    second: Annotated[str, Argument(help="Folder or URL of the other one.", metavar="B")],
    step: Annotated[int, Option(min=1, help="Compare every N-th frame only.", metavar="N")] = 1,
    out: Annotated[Path | None, Option(help="Draw the most different frames into this PNG.", metavar="FILE")] = None,
    videos: SomeVideos = None,
    as_json: Json = False,
) -> None:
    """Say how alike two teachers are: KL and correlation by level, the most different videos and frames.

    tinyhd-pipe store compare hd2s.zarr vinet.zarr --out difference.png --videos clips/
    """
    from tinyhd_pipe.stages import store_compare as stage

    if videos and out is None:
        raise SettingError("--videos: frames are drawn beside their maps; give --out FILE, too")
    with console.progress("videos") as advance:
        compared = stage.compare_stores(first, second, step=step, report=advance)
    _show(compared)
    if out is not None:
        console.say(f"{stage.draw_difference(compared, out, given_videos(videos) if videos else ())}: drawn")
    console.result(compared, as_json=as_json)


def _show(compared: "Compared") -> None:
    title = f"{compared.frames:,} frames of {compared.videos:,} videos: A is {compared.first}, B {compared.second}"
    rows = [
        (level, f"{like.kl:.4f}", f"{like.kl_back:.4f}", f"{like.cc:.4f}") for level, like in compared.levels.items()
    ]
    console.table(title, ("level", "KL(A, B), nats", "KL(B, A)", "CC"), rows)
    figures = ("KL(A, B), nats", "CC")
    videos = [(each.video, f"{each.kl:.4f}", f"{each.cc:.4f}") for each in compared.most_different_videos]
    console.table("most different videos", ("video", *figures), videos)
    frames = [
        (f"{each.video}, {each.frame}", f"{each.kl:.4f}", f"{each.cc:.4f}") for each in compared.most_different_frames
    ]
    console.table("most different frames", ("frame", *figures), frames)
    for url, only in ((compared.first, compared.only_in_first), (compared.second, compared.only_in_second)):
        if only:
            console.say(f"{len(only)} videos are in {url} only, {only[0]} among them")


def fuse_stores(
    stores: Annotated[list[str], Argument(help="Stores of the same videos.", metavar="A B…")],
    store: Store,
    weights: Annotated[
        list[float] | None, Option("--weights", help="One for each store; equal by default.", metavar="W…")
    ] = None,
    prune: Annotated[
        bool, Option("--prune", help="Drop the maps of videos that not all stores hold any more.")
    ] = False,
    allow_noncommercial: AllowNoncommercial = False,
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Write the fused maps of several teachers, as training fuses them on the fly, into a store of its own.

    tinyhd-pipe store fuse hd2s.zarr vinet.zarr --weights .6 .4 --store fused.zarr
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import store_fuse as stage

    group = load_params(params, overrides).teacher_dump
    allowed = allow_noncommercial or group.allow_noncommercial
    options = replace(group, prune=prune or group.prune, allow_noncommercial=allowed)
    with console.progress("fused") as advance:
        fused = stage.fuse_stores(stores, weights, store, options, report=advance)
    there = f"{fused.frames:,} frames fused now, {fused.already_there} videos were there already"
    console.say(f"{store}: {fused.videos} videos; {there}; terms: {fused.licence}")
    if fused.left_out:
        console.say(f"{len(fused.left_out)} videos are not in all stores, {fused.left_out[0]} among them")
    console.result(fused, as_json=as_json)
