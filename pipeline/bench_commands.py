"""Commands that measure, on the user's own machine."""

from pathlib import Path
from typing import Annotated

from typer import Option, Typer

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.commands import Device, Json, TeacherKind

app = Typer(help="Measure on this machine; equal answers are asserted before anything is timed.", no_args_is_help=True)


@app.callback()
def _several() -> None:
    """Keep `predict` a name of its own while it is the only one."""


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
