"""Commands about a store: what it says of itself, what is in it, and whether its bytes are what they were."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Exit, Option, Typer

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.import_command import import_maps
from tinyhd_pipe.pipeline.options import (
    Command,
    Device,
    Group,
    Json,
    SomeMaps,
    SomeVideos,
    SomeWeights,
    StoreArgument,
    TeacherKind,
)
from tinyhd_pipe.pipeline.store_export_command import export_store
from tinyhd_pipe.pipeline.store_pair_commands import compare_stores, fuse_stores

if TYPE_CHECKING:
    from tinyhd_pipe.stages.dump.map_source import MapSource
    from tinyhd_pipe.stages.dump.store_check import Repaired, Sampled

FIGURES = ("kl", "flip_error")
"""What is measured of a level when a store begins, nats."""
app = Typer(cls=Group, help="Look at a store of teacher maps, check it, and repair it.", no_args_is_help=True)
app.command("import", cls=Command)(import_maps)
app.command("export", cls=Command)(export_store)
app.command("compare", cls=Command)(compare_stores)
app.command("fuse", cls=Command)(fuse_stores)


@app.command("info", cls=Command)
def info(store: StoreArgument, as_json: Json = False) -> None:
    """Say what made the maps, how they are stored, what that costs, and how much there is.

    tinyhd-pipe store info maps.zarr
    """
    from tinyhd_pipe.store.reader import open_store

    facts = open_store(store).info()
    for title, columns, rows in (
        (f"{store}: teacher", ("", "fact"), _facts({**facts["teacher"], **facts["provenance"]})),
        ("which frames a map is made from", ("", "fact"), _facts(facts["temporal"])),
        ("levels", ("level", "grid", "step, logits", "KL, nats", "flip error, nats", "bytes a map"), _levels(facts)),
        ("contents", ("", "count"), _contents(facts)),
    ):
        console.table(title, columns, rows)
    fidelity = facts["fidelity"]
    console.say(f"{fidelity['figure']}: at most {fidelity['budget']:g}, measured on the first videos of the dump")
    if any("flip_error" in level for level in fidelity["measured"].values()):
        console.say(
            "flip error: mean KL(maps of mirrored clips, mirrored back || maps), what mirroring stored maps teaches "
            "wrongly; where it is far above KL, 'teacher-dump --flip both' may be worth twice the dump"
        )
    console.result(facts, as_json=as_json)


def _facts(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values, those of a group one by one."""
    rows = []
    for name, fact in facts.items():
        if isinstance(fact, list) and any(isinstance(item, dict) for item in fact):
            fact = {str(place): item for place, item in enumerate(fact, start=1)}
        if isinstance(fact, dict):
            rows += [(f"{name.replace('_', ' ')}: {key}", value) for key, value in _facts(fact)]
        else:
            items = fact if isinstance(fact, list) else [fact]
            text = ", ".join(f"{item:g}" if isinstance(item, float) else str(item) for item in items)
            rows.append((name.replace("_", " "), text))
    return rows


def _levels(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    measured, frames = facts["fidelity"]["measured"], facts["frames_with_maps"]
    return [
        (
            name,
            "x".join(map(str, level["grid"])),
            f"{level['scale_factor']:.4f}",
            *(
                f"{measured.get(name, {})[figure]:.1e}" if figure in measured.get(name, {}) else ""
                for figure in FIGURES
            ),
            f"{level['bytes'] / frames:,.0f}" if frames else "",
        )
        for name, level in facts["levels"].items()
    ]


def _contents(facts: dict[str, Any]) -> list[tuple[str, str]]:
    counts = ("videos", "videos_with_problems", "frames_with_maps", "failed_frames", "shards")
    grid = "x".join(map(str, facts["teacher_grid"]))
    rows = [(name.replace("_", " "), f"{facts[name]:,}") for name in counts]
    rows.append(("size", console.size(facts["bytes"])))
    for kind in ("float32", "float16"):
        plain = facts[f"bytes_as_{kind}"]
        ratio = f", {plain / facts['bytes']:.0f} times as much" if facts["bytes"] else ""
        rows.append((f"the same maps as {kind} at {grid}", console.size(plain) + ratio))
    return rows


@app.command("verify", cls=Command)
def verify(
    store: StoreArgument,
    repair: Annotated[bool, Option("--repair", help="Undo the damage; redo just the shards that are hit.")] = False,
    sample: Annotated[
        int | None, Option(min=1, help="Run the teacher again on so many frames, and compare.", metavar="N")
    ] = None,
    videos: SomeVideos = None,
    weights: SomeWeights = None,
    teacher: TeacherKind = "hd2s",
    maps: SomeMaps = None,
    seed: Annotated[int, Option(min=0, help="Another seed draws other frames for --sample.", metavar="N")] = 0,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Check every byte against its checksum; exit code 1 where one is not what it was.

    tinyhd-pipe store verify maps.zarr
    tinyhd-pipe store verify maps.zarr --repair --videos clips/ --weights hd2s.pt
    tinyhd-pipe store verify maps.zarr --sample 20 --videos clips/ --weights hd2s.pt
    tinyhd-pipe store verify imported.zarr --sample 20 --videos clips/ --maps vinet/
    """
    from tinyhd_pipe.store.errors import SettingError
    from tinyhd_pipe.store.verify import verify as check

    if weights is not None and maps is not None:
        raise SettingError(f"--weights {weights}, --maps {maps}: a store's maps come from one of them; give that one")
    given = "--maps" if maps is not None else "--weights"
    if (weights is None and maps is None) != (not videos):
        raise SettingError(f"{given}, --videos: maps are made again from both; give both, or neither")
    if sample is not None and not videos:
        raise SettingError(f"--sample {sample}: these maps are made again; give --videos, and --weights or --maps")
    source = None
    if weights is not None:
        source = _teacher_of(store, weights, teacher, console.device(device))
    elif maps is not None:
        source = _given_maps_of(store, maps, videos)
    repaired = _repair(store, source, videos) if repair else None
    with console.progress("shards") as advance:
        found = check(store, report=advance)
    for damage in found.damages:
        console.say(str(damage))
    verdict = "every byte is as it was written" if found.sound else f"{len(found.damages)} damages"
    console.say(f"{store}: {found.shards} shards, {found.bytes:,} bytes: {verdict}")
    sampled = _sample(store, source, videos, sample, seed) if source is not None and sample is not None else None
    console.result({**vars(found), "repaired": repaired, "sampled": sampled}, as_json=as_json)
    if not found.sound or (sampled is not None and not sampled.kept):
        raise Exit(1)


def _teacher_of(store: str, weights: Path, kind: str, device: str) -> "MapSource":
    """The teacher as the store's maps were made: at their size and precision, in their batches."""
    from tinyhd_pipe.stages.dump.map_source import LiveMaps
    from tinyhd_pipe.stages.networks.network import load_teacher
    from tinyhd_pipe.store.errors import SettingError
    from tinyhd_pipe.store.verify import known_description

    there = known_description(store)
    if there.teacher.get("kind") == "maps":
        raise SettingError(f"--weights {weights}: the maps of {store} were imported; give their files with --maps")
    precision, batch = there.teacher.get("precision", "float32"), there.provenance.get("batch")
    if there.teacher.get("kind") in ("onnx", "torch"):
        from tinyhd_pipe.stages.dump.exported_loading import load_exported_teacher, told_by_store

        told, size = told_by_store(there.teacher), there.teacher["preprocessing"]["size"]
        device = "cpu" if there.teacher["kind"] == "onnx" else device
        return load_exported_teacher(
            there.teacher["kind"], weights, told, size=(size[0], size[1]), batch=batch, device=device
        )
    size = there.teacher_grid
    return LiveMaps(load_teacher(kind, weights=weights, size=size, precision=precision, batch=batch, device=device))


def _given_maps_of(store: str, maps: Path, videos: list[str] | None) -> "MapSource":
    """The files of maps, read as they were when they were imported."""
    from tinyhd_pipe.stages.dump.map_files import Credit
    from tinyhd_pipe.stages.store_import import find_given_maps
    from tinyhd_pipe.store.errors import SettingError
    from tinyhd_pipe.store.verify import known_description

    there = known_description(store)
    if there.teacher.get("kind") != "maps":
        raise SettingError(f"--maps {maps}: the maps of {store} were made by a network; give its --weights")
    credit = Credit(there.teacher["name"], "", "")
    first = there.provenance.get("first_name")
    return find_given_maps(maps, given_videos(videos or []), credit, size=there.teacher_grid, first=first).maps


def _repair(store: str, source: "MapSource | None", videos: list[str] | None) -> "Repaired":
    from tinyhd_pipe.stages.dump.store_check import repair_store

    sources = given_videos(videos) if videos else []
    with console.progress("shards") as checking, console.progress("videos made again") as advance:
        repaired = repair_store(store, teacher=source, sources=sources, checking=checking, report=advance)
    for damage in repaired.damages:
        console.say(f"repaired: {damage}")
    return repaired


def _sample(store: str, source: "MapSource", videos: list[str] | None, frames: int, seed: int) -> "Sampled":
    from tinyhd_pipe.stages.dump.store_check import FAR, sample_store

    with console.progress("frames") as advance:
        sampled = sample_store(store, source, given_videos(videos or []), frames=frames, seed=seed, report=advance)
    rows = [
        (name, f"{level.kl:.1e}", f"{level.worst_kl:.1e}", level.worst, f"{level.max_difference:.4f}")
        for name, level in sampled.levels.items()
    ]
    columns = ("level", "KL, nats", "largest KL", "of", "largest difference, 0 to 1")
    console.table(f"{sampled.frames} frames: as they are made now, against stored maps", columns, rows)
    verdict = "the maps are this teacher's" if sampled.kept else "the maps are NOT what this teacher makes"
    console.say(f"mean KL at most {FAR} times the declared {sampled.budget:g} on every level: {verdict}")
    return sampled


@app.command("show", cls=Command)
def show(
    store: StoreArgument,
    video: Annotated[
        str, Argument(help="Id of the video: its path below the folder that was dumped.", metavar="VIDEO")
    ],
    frames: Annotated[
        str | None, Option(help="Frames A to B-1, counted from 0; the whole video by default.", metavar="A:B")
    ] = None,
    videos: SomeVideos = None,
    out: Annotated[
        Path | None, Option(help="The PNG to write; named after the video by default.", metavar="FILE")
    ] = None,
    rows: Annotated[int, Option(min=1, max=200, help="Frames to draw at most, evenly spread.", metavar="N")] = 12,
    as_json: Json = False,
) -> None:
    """Draw frames of a video beside all that is stored of them, as one PNG.

    tinyhd-pipe store show maps.zarr 001.AVI --frames 0:120 --videos clips/
    """
    from tinyhd_pipe.stages.pictures.contact_sheet import contact_sheet, frames_of, the_same_video
    from tinyhd_pipe.stages.video.names import as_id
    from tinyhd_pipe.store.reader import open_store

    opened, video = open_store(store), as_id(video)
    wanted = _frames(frames, frames_of(opened, video))
    source = the_same_video(opened, video, given_videos(videos)) if videos else None
    path = out or Path(Path(video).stem + ".png")
    drawn = contact_sheet(opened, video, path, frames=wanted, rows=rows, source=source)
    empty = f", {len(drawn.failed)} without a valid map" if drawn.failed else ""
    console.say(f"{drawn.path}: {len(drawn.frames)} frames of {video} from {wanted.start} to {wanted.stop - 1}{empty}")
    console.result(drawn, as_json=as_json)


def _frames(text: str | None, frames: int) -> range:
    """A:B of a video of `frames` frames; either may be left out, and B may lie past the end."""
    from tinyhd_pipe.store.errors import SettingError

    first, colon, stop = (text or ":").partition(":")
    if not colon or not (first or "0").isdecimal() or not (stop or "0").isdecimal():
        raise SettingError(f"--frames {text}: expected A:B, frames A to B-1 counted from 0, as in 0:120")
    wanted = range(int(first or 0), min(int(stop or frames), frames))
    if not wanted:
        raise SettingError(f"--frames {text}: no frame there; the video has frames 0 to {frames - 1}")
    return wanted
