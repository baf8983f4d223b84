"""The command that writes a network as a file for other programs, and says how near its maps are.

What is heavy is imported inside, so `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import VIDEOS, Json, Weights

if TYPE_CHECKING:
    from tinyhd_pipe.stages.export import Exported


def export(
    weights: Weights,
    out: Annotated[Path, Option(help="Folder for the file: DIR/<name of the weights>.onnx.", metavar="DIR")],
    format: Annotated[
        Literal["onnx", "openvino", "torch"],
        Option("--format", help="onnx: one .onnx; openvino: .xml and .bin; torch: a .pt2 of torch.export."),
    ] = "onnx",
    all_maps: Annotated[
        bool, Option("--all-maps", help="Give the maps of D1, D2 and D3, too, behind `final`.")
    ] = False,
    with_preprocessing: Annotated[
        bool,
        Option(
            "--with-preprocessing", help="The file takes uint8 frames of any size, (B, 16, y, x, 3), and scales them."
        ),
    ] = False,
    videos: Annotated[
        list[Path] | None,
        Option(help="Videos on whose frames the file is compared with the network; synthetic by default.", **VIDEOS),
    ] = None,
    teacher: Annotated[
        str, Option(help="Kind of the network: tinyhd (a student), or hd2s.", metavar="KIND")
    ] = "tinyhd",
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a file of that name.")] = False,
    as_json: Json = False,
) -> None:
    """Write a network as a file that runs without this package, once it has given the same maps.

    tinyhd-pipe export --weights runs/student/best.safetensors --format onnx --out exported/
    """
    from tinyhd_pipe.stages import export as stage
    from tinyhd_pipe.stages.networks.network import load_teacher

    network = load_teacher(teacher, weights=weights)
    with console.progress("export") as advance:
        exported = stage.export(
            network,
            out,
            weights.name.removesuffix(weights.suffix),
            stage.Wanted(format, all_maps, with_preprocessing),
            sources=given_videos(videos) if videos else (),
            overwrite=overwrite,
            report=advance,
        )
    _show(exported)
    console.result(exported, as_json=as_json)


def _show(exported: "Exported") -> None:
    facts = exported.facts
    console.say(f"{', '.join(map(str, exported.files))}: {console.size(exported.bytes)}")
    taken, window = facts["input"], facts["window"]
    shape = ", ".join(map(str, taken["shape"]))
    console.say(f"takes {taken['name']}: {taken['dtype']} ({shape}), axes {taken['axes']}, {taken['colours']}")
    if taken["preprocessing"] == "outside":
        console.say(f"scaled before: {taken['resize']}; (pixel - {taken['mean']}) / {taken['std']}")
    for given in facts["outputs"]:
        first, last = given["frames"][0], given["frames"][-1]
        frames = f"frame {last}" if first == last else f"frames {first} to {last}"
        off = exported.differences[given["name"]]
        console.say(
            f"gives {given['name']}: axes {given['axes']}, of {frames} of {window['frames']}; differs by {off:.1e}"
        )
    console.say(f"compared on {exported.compared_on}: the largest difference is {exported.difference:.1e} of 1")
    console.say(f"a window every {window['stride']} frames; the head: {window['head_in_words']}")
    counted = ", ".join(f"{count} {name}" for name, count in exported.operators.items())
    console.say(f"operators{f' of opset {exported.opset}' if exported.opset else ''}: {counted}")
    console.say(f"terms: {facts['licence']}")
