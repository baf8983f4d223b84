"""The command that makes a store: what it asks for, its plan, its progress, and what it says when it is done.

What is heavy is imported inside, so `--help` answers at once.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Exit, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.allocator import keep_freed_memory
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import (
    AllowNoncommercial,
    Device,
    DumpTeacher,
    Json,
    OneStore,
    Overrides,
    Params,
    Plan,
    Prune,
    RetryProblems,
    Scheduler,
    Settings,
    SomeWeights,
    Videos,
    Workers,
    refuse_both,
)
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.dump.map_source import MapSource
    from tinyhd_pipe.stages.dump.plan import DumpPlan
    from tinyhd_pipe.stages.networks.network import Network
    from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
    from tinyhd_pipe.stages.teacher_dump import Dumped, DumpProgress
    from tinyhd_pipe.stages.video.sources import VideoSource


def teacher_dump(
    videos: Videos,
    store: OneStore = None,
    weights: SomeWeights = None,
    teacher: DumpTeacher = "hd2s",
    teachers: Annotated[
        Path | None,
        Option("--teachers", help="YAML list of teachers, each with a store; frames are decoded once.", metavar="FILE"),
    ] = None,
    plan: Plan = False,
    labels: Annotated[
        Path | None, Option(help="For --plan: labelled clips among the videos, in the DHF1K layout.", metavar="DIR")
    ] = None,
    retry_problems: RetryProblems = False,
    prune: Prune = False,
    workers: Workers = None,
    scheduler: Scheduler = None,
    every: Annotated[
        int | None,
        Option(min=1, help="Dump frames 0, N, 2N, ... only; goes before the setting of that name.", metavar="N"),
    ] = None,
    flip: Annotated[
        Literal["none", "both"] | None,
        Option(help="both: maps of the mirrored clips, too; goes before the setting of that name.", metavar="WHICH"),
    ] = None,
    allow_noncommercial: AllowNoncommercial = False,
    device: Device = "auto",
    settings: Settings = "teacher_dump",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Run the teacher once for every frame and keep its maps.

    tinyhd-pipe teacher-dump --videos clips/ --store maps.zarr --teacher hd2s --weights hd2s.pt
    tinyhd-pipe teacher-dump --videos clips/ --teachers teachers.yaml
    """
    refuse_both(workers, scheduler)
    if teachers is not None and (store or weights or workers or scheduler):
        raise SettingError(
            f"--teachers {teachers}: has stores and weights; without --store, --weights, --workers, --scheduler"
        )
    from tinyhd_pipe.pipeline.given_teacher import given_teacher
    from tinyhd_pipe.pipeline.params import TeacherDump, TeacherEntry, group_of, load_params, load_teachers
    from tinyhd_pipe.stages import teacher_dump as stage

    keep_freed_memory()
    given = load_params(params, overrides)
    group = group_of(given, settings, TeacherDump)
    load = partial(given_teacher, params=given, group=group, device=device)
    options = replace(
        group,
        every=every or group.every,
        flip=flip or group.flip,
        retry_problems=retry_problems or group.retry_problems,
        prune=prune or group.prune,
        allow_noncommercial=allow_noncommercial or group.allow_noncommercial,
    )
    if teachers is not None:
        sources = given_videos(videos)
        several = [(entry.store, load(entry, sources).maps) for entry in load_teachers(teachers)]
        if plan:
            console.result(_plans(sources, several, labels, options), as_json=as_json)
        else:
            _dump_several(sources, several, options, as_json=as_json)
        return
    if store is None or weights is None:
        raise SettingError("--store, --weights: give both, or several teachers with --teachers FILE")
    sources = given_videos(videos)
    loaded = load(TeacherEntry(store, weights, teacher), sources)
    if plan:
        (planned,) = _plans(sources, [(store, loaded.maps)], labels, options)
        console.result(planned, as_json=as_json)
        return
    cluster = None
    if workers or scheduler:
        from tinyhd_pipe.stages.dump.cluster import Cluster

        cluster = Cluster(loaded.file, workers, scheduler)
    with console.progress("reading videos") as reading, console.progress("teacher") as advance:
        dumped = stage.teacher_dump(
            sources,
            store,
            loaded.maps,
            options,
            cluster=cluster,
            report=lambda at: advance(at.frames, at.frames_in_all, dump_note(at)),
            reading=reading,
        )
    _show_dumped(dumped, as_json=as_json)
    if dumped.problems:
        raise Exit(1)


def _dump_several(
    sources: "list[VideoSource]",
    teachers: "Sequence[tuple[str, Network | MapSource]]",
    options: "DumpOptions",
    *,
    as_json: bool,
) -> None:
    from tinyhd_pipe.stages import teacher_dump as stage
    from tinyhd_pipe.stages.dump.dumping import Listeners

    with console.progress("reading videos") as reading, console.progress("teachers") as advance:
        listeners = Listeners(lambda at: advance(at.frames, at.frames_in_all, dump_note(at)), reading)
        several = stage.teachers_dump(sources, teachers, options, listeners)
    for dumped in several:
        _show_dumped(dumped, as_json=False)
    console.result(several, as_json=as_json)
    if any(dumped.problems for dumped in several):
        raise Exit(1)


def dump_note(at: "DumpProgress") -> str:
    written = f"{at.bytes_written / 1e6:.1f} MB written"
    return f"frames, {at.frames_a_second:.1f} a second; {at.videos} of {at.videos_in_all} videos; {written}"


def _plans(
    sources: "list[VideoSource]",
    teachers: "Sequence[tuple[str, Network | MapSource]]",
    labels: Path | None,
    options: "DumpOptions",
) -> "list[DumpPlan]":
    """What there is to do for each teacher, in the time that it would take alone."""
    from tinyhd_pipe.stages.dump.plan import plan_dump
    from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos

    given = {source.path.resolve() for source in sources}
    annotated = find_annotated_videos(labels).videos if labels else ()
    labelled = len(given & {video.source.path.resolve() for video in annotated})
    plans = []
    for store, teacher in teachers:
        with console.progress("reading videos") as reading:
            plans.append(plan_dump(sources, store, teacher, options, labelled=labelled, reading=reading))
    for planned in plans:
        show_plan(planned)
    return plans


def show_plan(planned: "DumpPlan") -> None:
    rows = [
        ("videos", f"{planned.videos_left:,} to do, of {planned.videos:,} given"),
        ("maps of each level", f"about {planned.maps_left:,} to do; shards: {planned.shards_left:,}"),
        ("frames of all videos", f"about {planned.frames:,}: packets counted, nothing decoded"),
        (
            "time, on this machine",
            f"about {console.duration(planned.seconds_left)}; {planned.seconds_a_map:.2g} s a map",
        ),
        ("size", f"about {console.size(planned.bytes_left)}; {console.size(planned.bytes_a_map)} a frame, all levels"),
    ]
    if (even := planned.break_even) is not None:
        single, multi = even.windows_a_clip
        epochs = f"{even.epochs_single:,.1f} epochs of S or {even.epochs_multi:,.1f} of M students"
        rows += [
            ("pays for itself after", epochs),
            ("published training", f"200 epochs a student; here {even.clips_an_epoch:,} clips an epoch"),
            ("teacher in that loop", f"windows a clip: {single} for S, {multi} for M"),
        ]
    console.table(f"{planned.store}: plan, nothing was written", ("", "estimate"), rows)
    if planned.problems:
        console.table("not readable as videos", ("video", "why"), list(planned.problems.items()))


def _show_dumped(dumped: "Dumped", *, as_json: bool) -> None:
    new = f"{dumped.frames} maps of each level made now, {dumped.already_there} videos were there already"
    console.say(f"{dumped.store}: {dumped.videos} videos; {new}")
    if dumped.others:
        console.say(f"{dumped.others} other videos of the store were not given and stay in it; --prune drops them")
    console.problems(dumped.problems)
    console.result(dumped, as_json=as_json)
