"""Commands that measure, on the user's own machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option, Typer

from tinyhd_pipe.pipeline import ablation_command, bench_predict_command, console
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import (
    Command,
    Device,
    Group,
    Json,
    Overrides,
    Params,
    SomeVideos,
    SomeWeights,
    TeacherKind,
    Videos,
    Weights,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinyhd_pipe.stages.bench.encodings import EncodingBenchmark
    from tinyhd_pipe.stages.bench.store import StoreBenchmark

app = Typer(
    cls=Group,
    help="Measure on this machine; equal answers are asserted before anything is timed.",
    no_args_is_help=True,
)
app.command("ablations", cls=Command)(ablation_command.ablations)
app.command("predict", cls=Command)(bench_predict_command.predict)


@app.command("store", cls=Command)
def store(
    store: Annotated[
        str | None, Option(help="Compare readers of this store: folder or fsspec URL.", metavar="URL")
    ] = None,
    videos: SomeVideos = None,
    weights: SomeWeights = None,
    teacher: TeacherKind = "hd2s",
    frames: Annotated[int, Option(help="Frames of each video that the teacher sees.", min=1, metavar="N")] = 48,
    windows: Annotated[int, Option(help="Random windows that each reader reads.", min=1, metavar="N")] = 100,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare readers of a store, and what encodings of a teacher's maps cost in bytes and in fidelity.

    tinyhd-pipe bench store --store maps.zarr
    tinyhd-pipe bench store --videos clips/ --weights hd2s.pt
    """
    from tinyhd_pipe.stages.bench.encodings import bench_encodings
    from tinyhd_pipe.stages.bench.store import bench_store
    from tinyhd_pipe.stages.networks.network import load_teacher
    from tinyhd_pipe.store.errors import SettingError

    if bool(videos) != bool(weights) or not (store or videos):
        raise SettingError("bench store: give --store to compare readers, --videos and --weights to compare encodings")
    readers = encodings = None
    if store:
        with console.progress("rounds") as advance:
            readers = bench_store(store, windows=windows, report=advance)
        _show_readers(store, readers)
    if videos and weights:
        network = load_teacher(teacher, weights=weights, device=console.device(device))
        with console.progress("videos") as advance:
            encodings = bench_encodings(network, given_videos(videos), frames=frames, report=advance)
        _show_encodings(str(weights), encodings)
    console.result({"readers": readers, "encodings": encodings}, as_json=as_json)


@app.command("dump", cls=Command)
def dump(
    weights: Weights,
    videos: Videos,
    teacher: TeacherKind = "hd2s",
    trained: Annotated[
        Path | None,
        Option(help="Fitted weights to judge agreement on, where --weights are untrained stand-ins.", metavar="FILE"),
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        Option(help="Of our fastest way: float32, bfloat16, or auto, which goes by the rule of a dump."),
    ] = "auto",
    frames: Annotated[int, Option(min=17, help="Frames that our way makes in each round.", metavar="N")] = 96,
    rounds: Annotated[int, Option(min=1, help="All ways are timed in turn, so many times.", metavar="N")] = 3,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare the dump with the published way, map by map, then frames a second.

    tinyhd-pipe bench dump --weights hd2s.pt --videos clips/
    """
    from tinyhd_pipe.pipeline.allocator import keep_freed_memory
    from tinyhd_pipe.stages.bench.dump import DumpBenchOptions, bench_dump

    keep_freed_memory()  # as teacher-dump does; here it helps the published way, too
    options = DumpBenchOptions(
        trained=trained, precision=precision, frames=frames, rounds=rounds, device=console.device(device)
    )
    with console.progress("bench dump") as advance:
        measured = bench_dump(
            teacher,
            weights,
            given_videos(videos),
            options,
            report=advance,
        )
    agreed = [
        (a.weights, a.precision, f"{a.difference:.1e}", f"{a.kl:.1e}", f"{a.cc:.5f}") for a in measured.agreements
    ]
    console.table("maps agree", ("weights", "precision", "largest difference", "KL, nats", "CC"), agreed)
    rows = [(w.name, f"{w.frames_a_second:.2f}", f"{w.spread:.0%}", f"{w.ratio:.2f}") for w in measured.ways]
    title = f"{weights} at {measured.size[0]}x{measured.size[1]}, {measured.frames} frames, {measured.rounds} rounds"
    console.table(f"{title}: {_facts(measured.machine)}", ("", "frames a second", "spread", "times as fast"), rows)
    console.say(f"end to end, the dump has {measured.share:.2f} of the teacher's own speed")
    console.result(measured, as_json=as_json)


@app.command("train", cls=Command)
def train(
    store: Annotated[str, Option(help="Maps of this teacher: folder or fsspec URL.", metavar="URL")],
    weights: Weights,
    videos: Videos,
    teacher: TeacherKind = "hd2s",
    rounds: Annotated[int, Option(min=1, help="Both ways are timed in turn, so many times.", metavar="N")] = 3,
    device: Device = "auto",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Compare training from a store with the published way, which has the teacher in the loop.

    tinyhd-pipe bench train --store maps.zarr --weights hd2s.pt --videos clips/ --set student_train.outputs=16
    """
    from tinyhd_pipe.pipeline.allocator import keep_freed_memory
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages.bench.train import Compared, bench_train
    from tinyhd_pipe.stages.networks.network import load_teacher
    from tinyhd_pipe.stages.training.targets import Targets
    from tinyhd_pipe.store.reader import open_store

    keep_freed_memory()  # as student-train does; here it helps the published way, too
    settings = load_params(params, overrides)
    network = load_teacher(teacher, weights=weights, size=settings.teacher_dump.size, device=console.device(device))
    compared = Compared(network, Targets.of([open_store(store)]), given_videos(videos))
    with console.progress("rounds") as advance:
        measured = bench_train(compared, settings.student_train, rounds=rounds, report=advance)
    agreed = [
        (name, *(f"{loss:.6f}" for loss in losses[:2]), f"{losses[2]:.4f}") for name, losses in measured.losses.items()
    ]
    console.table("losses agree", ("term, nats", "online", "offline", "may differ by"), agreed)
    names = ("decode", "teacher", "read", "wait", "copy", "forward", "loss", "backward", "step")
    rows = [
        (
            way.name,
            f"{way.samples_a_second:.3f}",
            f"{way.spread:.0%}",
            f"{way.ratio:.1f}",
            *(f"{way.parts[name]:.3f}" if name in way.parts else "-" for name in names),
            f"{way.peak_bytes / 1e9:.1f}" if way.peak_bytes else "-",
        )
        for way in measured.ways
    ]
    columns = ("", "samples a second", "spread", "times as fast", *(f"{name}, s" for name in names), "peak, GB")
    console.table(_facts(measured.machine), columns, rows)
    console.say(
        f"{measured.kernels}; losses through torch's layers and ours differ by {measured.layers_difference:.1e}; "
        "what is published loads where it waits, ours in threads beside the rest"
    )
    console.result(measured, as_json=as_json)


@app.command("metrics", cls=Command)
def metrics(
    size: Annotated[str, Option(help="Height and width of the maps.", metavar="YxX")] = "360x640",
    frames: Annotated[int, Option(min=1, help="Frames that are scored in each round.", metavar="N")] = 16,
    rounds: Annotated[int, Option(min=1, help="All ways are timed in turn, so many times.", metavar="N")] = 3,
    as_json: Json = False,
) -> None:
    """Compare all metrics of a frame with pysaliency and with the MATLAB code's loops, figure by figure, then in speed.

    tinyhd-pipe bench metrics
    """
    from tinyhd_pipe.pipeline.allocator import keep_freed_memory
    from tinyhd_pipe.stages.bench.metrics import bench_metrics
    from tinyhd_pipe.store.errors import SettingError

    keep_freed_memory()  # as evaluate does; here it helps the other ways, too

    sides = size.split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 1 for side in sides):
        raise SettingError(f"--size {size}: expected height and width, as 360x640")
    with console.progress("bench metrics") as advance:
        measured = bench_metrics((int(sides[0]), int(sides[1])), frames=frames, rounds=rounds, report=advance)
    console.table(
        "figures agree", ("metric", "largest difference"), [(m, f"{d:.1e}") for m, d in measured.agreement.items()]
    )
    rows = [(w.name, f"{w.frames_a_second:.1f}", f"{w.spread:.0%}", f"{w.ratio:.1f}") for w in measured.ways]
    title = f"{measured.frames} frames of {size}, {measured.rounds} rounds: {_facts(measured.machine)}"
    console.table(title, ("", "frames a second", "spread", "times as fast"), rows)
    console.say(f"DHF1K's validation set, 60,000 frames: {console.duration(60 * measured.minutes_for_dhf1k)}")
    if measured.missing:
        console.say(measured.missing)
    console.result(measured, as_json=as_json)


def _show_readers(store: str, measured: "StoreBenchmark") -> None:
    rows = [(r.name, f"{r.windows_per_second:,.0f}", f"{r.spread:.0%}", f"{r.ratio:.1f}") for r in measured.readers]
    columns = ("random windows of 16 frames, all levels", "a second of one core", "spread", "times zarr's")
    console.table(f"{store}: {_facts(measured.machine)}", columns, rows)
    grids = ", ".join(f"{name} {y}x{x}" for name, (y, x) in measured.levels.items())
    console.say(f"equal codes from all of them; out of {measured.maps} maps of {grids}")
    if "h5py" not in measured.machine:
        console.say("h5py is not installed: pip install h5py compares with HDF5, too")


def _show_encodings(weights: str, measured: "EncodingBenchmark") -> None:
    rows = [
        (e.name, f"{e.bytes_per_map:,.0f}", f"{e.kl:.1e}", f"{e.worst_kl:.1e}", f"{e.maps_per_second:,.0f}")
        for e in measured.encodings
    ]
    columns = (f"{measured.maps} maps of each level", "bytes a map", "KL, nats", "worst level", "maps/s a core")
    console.table(f"{weights}: {_facts(measured.machine)}", columns, rows)
    for name, levels in measured.levels.items():
        console.say(f"{name}: " + ", ".join(f"{level} {y}x{x}" for level, (y, x) in levels.items()))


def _facts(machine: "Mapping[str, str]") -> str:
    return ", ".join(f"{name} {fact}" for name, fact in machine.items())
