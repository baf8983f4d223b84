"""Commands that measure, on the user's own machine."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option, Typer

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.commands import Device, Json, TeacherKind

app = Typer(help="Measure on this machine; equal answers are asserted before anything is timed.", no_args_is_help=True)


@app.command("predict")
def predict(
    weights: Annotated[Path, Option(help="Weights of the network, .pth or .safetensors.")],
    video: Annotated[Path, Option(help="A video of at least 16 frames.")],
    kind: TeacherKind = "tinyhd",
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Compare memory layouts and precisions of one network: what one window of 16 frames costs.

    tinyhd-pipe bench predict --weights runs/student/best.safetensors --video clips/001.AVI
    """
    import numpy as np

    from tinyhd_pipe.stages.benchmark import bench_networks
    from tinyhd_pipe.stages.video import find_videos, read_frames

    clip = read_frames(find_videos([video])[0], np.arange(16))
    with console.progress("rounds") as advance:
        measured = bench_networks(kind, weights, clip, device=device, report=advance)
    rows = [
        (v.name, f"{1e3 * v.seconds:.0f}", f"{v.spread:.0%}", f"{v.ratio:.2f}", f"{v.kl:.1e}")
        for v in measured.variants
    ]
    facts = ", ".join(f"{name} {fact}" for name, fact in measured.machine.items())
    columns = ("", "ms a window", "spread", "times as fast", "KL, nats")
    console.table(f"{weights}: {facts}", columns, rows)
    if not measured.agree:
        console.say("bfloat16 does not keep this network's maps: judge it on trained weights, or stay with float32")
    console.result(measured, as_json=as_json)


@app.command("dump")
def dump(
    weights: Annotated[Path, Option(help="The teacher's weights, .pth or .safetensors.")],
    videos: Annotated[list[Path], Option(help="Video files, folders of videos, folders of frames.")],
    teacher: TeacherKind = "hd2s",
    trained: Annotated[
        Path | None, Option(help="Fitted weights to judge agreement on, where --weights are untrained stand-ins.")
    ] = None,
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        Option(help="Of our fastest way: float32, bfloat16, or auto, which measures."),
    ] = "auto",
    frames: Annotated[int, Option(min=17, help="Frames that our way makes in each round.")] = 48,
    rounds: Annotated[int, Option(min=1, help="All ways are timed in turn, so many times.")] = 3,
    device: Device = "cpu",
    as_json: Json = False,
) -> None:
    """Compare the dump with the published way, map by map, then frames a second.

    tinyhd-pipe bench dump --weights hd2s.pt --videos clips/
    """
    from tinyhd_pipe.stages.bench_dump import bench_dump
    from tinyhd_pipe.stages.video import find_videos

    with console.progress("bench dump") as advance:
        measured = bench_dump(
            teacher,
            weights,
            find_videos(videos),
            trained=trained,
            precision=precision,
            frames=frames,
            rounds=rounds,
            device=device,
            report=advance,
        )
    facts = ", ".join(f"{name} {fact}" for name, fact in measured.machine.items())
    agreed = [
        (a.weights, a.precision, f"{a.difference:.1e}", f"{a.kl:.1e}", f"{a.cc:.5f}") for a in measured.agreements
    ]
    console.table("maps agree", ("weights", "precision", "largest difference", "KL, nats", "CC"), agreed)
    rows = [(w.name, f"{w.frames_a_second:.2f}", f"{w.spread:.0%}", f"{w.ratio:.2f}") for w in measured.ways]
    title = f"{weights} at {measured.size[0]}x{measured.size[1]}, {measured.frames} frames, {measured.rounds} rounds"
    console.table(f"{title}: {facts}", ("", "frames a second", "spread", "times as fast"), rows)
    console.say(f"end to end, the dump has {measured.share:.2f} of the teacher's own speed")
    console.result(measured, as_json=as_json)
