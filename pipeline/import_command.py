"""The command that makes a store of maps that others have made: what it asks for, its plan, and what it says.

What is heavy is imported inside, so `--help` answers at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Exit, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.dump_command import dump_note, show_plan
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import (
    AllowNoncommercial,
    Json,
    MapsFolder,
    Overrides,
    Params,
    Plan,
    Prune,
    RetryProblems,
    Scheduler,
    Store,
    Videos,
    Workers,
    refuse_both,
)
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.store_import import Given

NAMED = 5
"""Names that a line lists before it says that there are more."""


def import_maps(
    videos: Videos,
    maps: MapsFolder,
    store: Store,
    teacher_name: Annotated[str, Option(help="What made the maps, as in ViNet-A.", metavar="NAME")],
    licence: Annotated[
        str, Option(help="Terms of the maps; students that learn from them inherit them.", metavar="TERMS")
    ] = "none stated",
    origin: Annotated[
        str | None, Option("--from", help="Where the maps came from; the folder by default.", metavar="TEXT")
    ] = None,
    first: Annotated[
        int | None, Option(min=0, help="The number in the name of frame 0's map: 1, or 0 where one is 0.", metavar="N")
    ] = None,
    every: Annotated[int | None, Option(min=1, help="Take the maps of frames 0, N, 2N, ... only.", metavar="N")] = None,
    plan: Plan = False,
    retry_problems: RetryProblems = False,
    prune: Prune = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    allow_noncommercial: AllowNoncommercial = False,
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Make a store of maps that exist: pictures, npy, npz, mat, zarr or grey films, by video and frame.

    tinyhd-pipe store import --videos clips/ --maps vinet/ --store vinet.zarr --teacher-name ViNet-A
    --licence "CC BY-NC-SA 4.0" --allow-noncommercial

    Fidelity, size and shards are those of teacher_dump in the settings.
    """
    refuse_both(workers, scheduler)
    for option, text in (("--teacher-name", teacher_name), ("--licence", licence)):
        if not text.strip() or not text.isprintable():
            raise SettingError(f"{option} {text!r}: expected one line of text")
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import store_import as stage
    from tinyhd_pipe.stages.dump.dumping import Listeners
    from tinyhd_pipe.stages.dump.map_files import Credit

    group = load_params(params, overrides).teacher_dump
    options = replace(
        group,
        every=every or group.every,
        flip="none",
        keep=None,
        retry_problems=retry_problems or group.retry_problems,
        prune=prune or group.prune,
        overwrite=False,  # which suits maps that a teacher makes again
        allow_noncommercial=allow_noncommercial or group.allow_noncommercial,
    )
    credit = Credit(teacher_name.strip(), licence.strip(), origin or str(maps))
    given = stage.find_given_maps(maps, given_videos(videos), credit, size=group.size, first=first)
    _say_what_was_passed_over(given, maps)
    if plan:
        from tinyhd_pipe.stages.dump.plan import plan_dump

        with console.progress("reading videos") as reading:
            planned = plan_dump(given.sources, store, given.maps, options, reading=reading)
        show_plan(planned)
        console.result(planned, as_json=as_json)
        return
    cluster = None
    if workers or scheduler:
        from tinyhd_pipe.stages.dump.cluster import Cluster

        cluster = Cluster(given.maps.absolute(), workers, scheduler)
    with console.progress("reading videos and maps") as reading, console.progress("import") as advance:
        listeners = Listeners(lambda at: advance(at.frames, at.frames_in_all, dump_note(at)), reading)
        imported = stage.import_maps(given, store, options, listeners, cluster=cluster)
    _say_traits(store)
    dumped = imported.dumped
    there = f"{dumped.already_there} videos were there already"
    console.say(f"{store}: {dumped.videos} videos, of which {imported.maps:,} frames have maps; {there}")
    if dumped.others:
        console.say(f"{dumped.others} other videos of the store were not given and stay in it; --prune drops them")
    if left_over := imported.left_over:
        video = next(iter(left_over))
        more = f", and of {len(left_over) - 1} other videos" if len(left_over) > 1 else ""
        count = f"{left_over[video]} maps are of frames that {video} does not have{more}"
        console.say(f"{count}: are they of that video, at its frame rate?")
    console.problems(dumped.problems, "did not decode, or lack maps")
    console.result(imported, as_json=as_json)
    if dumped.problems:
        raise Exit(1)


def _say_what_was_passed_over(given: "Given", maps: Path) -> None:
    for names, what in (
        (given.without_maps, "given videos have no maps below"),
        (given.without_video, "other maps below"),
    ):
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            console.say(f"{maps}: {len(names)} {what} it: {', '.join(names[:NAMED])}{more}")


def _say_traits(store: str) -> None:
    """How the maps were saved, as far as they show it."""
    from tinyhd_pipe.store.reader import open_store

    description = open_store(store).description
    traits = description.provenance.get("sampled_maps", {})
    said = []
    if traits.get("bits"):
        said.append(f"{traits['bits']} bits")
    if traits.get("divided_by_maximum"):
        said.append("each divided by its maximum")
    if traits.get("blur"):
        said.append(f"as smooth as a Gaussian blur of up to {traits['blur']:g} pixels makes them")
    if said:
        console.say(f"the maps as they lie there: {', '.join(said)} (store info says how this was seen)")
    kl = description.measured.get("final", {}).get("kl")
    console.say(f"storing them costs KL {kl:.1e} nats beyond that" if kl is not None else "")
