"""The command that measures prediction: memory layouts and precisions of a network, backends of a student.

What is heavy is imported inside, so `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import Device, Json, TeacherKind, Weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinyhd_pipe.stages.bench.networks import Benchmark
    from tinyhd_pipe.stages.bench.predict import PredictBenchmark
    from tinyhd_pipe.stages.video.sources import VideoSource


def predict(
    weights: Weights,
    video: Annotated[Path, Option(help="A video of at least 16 frames.", metavar="PATH")],
    kind: TeacherKind = "tinyhd",
    backends: Annotated[
        list[str] | None,
        Option(
            "--backend", help="Of a student: torch, onnx, openvino; all that are installed by default.", metavar="B…"
        ),
    ] = None,
    exported: Annotated[
        list[Path] | None, Option(help="Files that export made of the same student, as int8.", metavar="FILE…")
    ] = None,
    frames: Annotated[int, Option(min=17, help="Frames that each backend makes in a round.", metavar="N")] = 96,
    rounds: Annotated[int, Option(min=1, help="All ways are timed in turn, so many times.", metavar="N")] = 3,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare prediction with the published way: a student by each backend, end to end; layouts and precisions.

    tinyhd-pipe bench predict --weights runs/student/best.safetensors --video clips/001.AVI
    """
    from tinyhd_pipe.pipeline.allocator import keep_freed_memory

    keep_freed_memory()  # as predict does; here it helps the published way, too
    (source, *_) = given_videos([video])
    chosen = console.device(device)
    ways = _ways(weights, source, backends, exported, frames, rounds) if kind == "tinyhd" and chosen == "cpu" else None
    networks = _networks(weights, source, kind, chosen)
    console.result({"prediction": ways, "networks": networks}, as_json=as_json)


def _networks(weights: Path, source: "VideoSource", kind: str, device: str) -> "Benchmark":
    import numpy as np

    from tinyhd_pipe.stages.bench.networks import bench_networks
    from tinyhd_pipe.stages.video.index import read_frames

    with console.progress("rounds") as advance:
        measured = bench_networks(kind, weights, read_frames(source, np.arange(16)), device=device, report=advance)
    rows = [
        (v.name, f"{1e3 * v.seconds:.0f}", f"{v.spread:.0%}", f"{v.ratio:.2f}", f"{v.kl:.1e}")
        for v in measured.variants
    ]
    columns = ("one window, layer by layer", "ms a window", "spread", "times as fast", "KL, nats")
    console.table(f"{weights}: {_facts(measured.machine)}", columns, rows)
    if not measured.agree:
        console.say("bfloat16 does not keep this network's maps: judge it on trained weights, or stay with float32")
    console.say(f"auto takes {measured.by_rule.precision} here, {measured.by_rule.reason}")
    if measured.advice:
        console.say(measured.advice)
    return measured


def _ways(
    weights: Path,
    source: "VideoSource",
    backends: list[str] | None,
    exported: list[Path] | None,
    frames: int,
    rounds: int,
) -> "PredictBenchmark":
    from tinyhd_pipe.stages.bench.predict import PredictBenchOptions, bench_predict
    from tinyhd_pipe.stages.exports.backends import backends_here

    wanted = backends_here(backends)
    options = PredictBenchOptions(wanted, tuple(exported or ()), frames, rounds)
    with console.progress("bench predict") as advance:
        measured = bench_predict(weights, source, options, report=advance)
    agreed = [(name, f"{off:.1e}") for name, off in measured.differences.items()]
    console.table("maps agree with the published way's", ("", "largest difference"), agreed)
    rows = [(w.name, f"{w.frames_a_second:.1f}", f"{w.spread:.0%}", f"{w.ratio:.2f}") for w in measured.ways]
    made = f"{measured.frames} frames of {_by(measured.picture)} at {_by(measured.size)}, {measured.rounds} rounds"
    console.table(
        f"{weights}, {made}: {_facts(measured.machine)}", ("", "frames a second", "spread", "times as fast"), rows
    )
    return measured


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _facts(machine: "Mapping[str, str]") -> str:
    return ", ".join(f"{name} {fact}" for name, fact in machine.items())
