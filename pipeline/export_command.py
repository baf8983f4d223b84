"""The command that writes a network as a file for other programs, and says how near its maps are.

What is heavy is imported inside, so `--help` answers at once.
"""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.options import VIDEOS, Json, Weights
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.export import Exported, Wanted
    from tinyhd_pipe.stages.exports.card import Described
    from tinyhd_pipe.stages.exports.int8 import Int8, Loss
    from tinyhd_pipe.stages.exports.metrics_files import Metrics
    from tinyhd_pipe.stages.networks.network import Network
    from tinyhd_pipe.stages.video.sources import VideoSource


def export(
    weights: Weights,
    out: Annotated[Path, Option(help="Folder for the file: DIR/<name of the weights>.onnx.", metavar="DIR")],
    format: Annotated[
        Literal["onnx", "openvino", "torch", "web"],
        Option(
            "--format",
            help="onnx: one .onnx; openvino: .xml and .bin; torch: a .pt2 of torch.export; web: a page that shows maps "
            "over any video.",
        ),
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
        list[str] | None,
        Option(help="Videos on whose frames the file is compared with the network; synthetic by default.", **VIDEOS),
    ] = None,
    int8: Annotated[
        bool, Option("--int8", help="In 8 bits, with --format openvino; calibrated on --calibrate, judged on --videos.")
    ] = False,
    calibrate: Annotated[
        list[str] | None,
        Option(
            help="Videos that tell --int8 its ranges; of these every fourth is judged on, without --videos.", **VIDEOS
        ),
    ] = None,
    max_loss: Annotated[
        float, Option(help="Refuse --int8 where it costs more: mean KL of its final maps, nats.", min=0, metavar="KL")
    ] = 0.02,
    teacher: Annotated[
        str, Option(help="Kind of the network: tinyhd (a student), or hd2s.", metavar="KIND")
    ] = "tinyhd",
    runtime: Annotated[
        Path | None,
        Option(help="For --format web: a folder with ONNX Runtime Web, which is fetched otherwise.", metavar="DIR"),
    ] = None,
    metrics: Annotated[
        Path | None, Option(help="For the model card: what `evaluate --json` printed of this network.", metavar="FILE")
    ] = None,
    row: Annotated[
        str | None, Option(help="The network's row in --metrics, where that has several.", metavar="NAME")
    ] = None,
    hub_folder: Annotated[
        Path | None,
        Option("--hub-folder", help="Lay out a folder for a model hub, too; nothing is uploaded.", metavar="DIR"),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a file of that name.")] = False,
    as_json: Json = False,
) -> None:
    """Write a network as a file that runs without this package, once it has given the same maps, and its model card.

    tinyhd-pipe export --weights runs/student/best.safetensors --format onnx --out exported/
    tinyhd-pipe export --weights runs/student/best.safetensors --format web --out page/
    tinyhd-pipe export --weights runs/student/best.safetensors --out exported/ --hub-folder hub/ --metrics scores.json
    """
    from tinyhd_pipe.stages import export as stage
    from tinyhd_pipe.stages.networks.network import load_teacher

    name = weights.name.removesuffix(weights.suffix)
    figures = _figures(metrics, row, name, teacher)
    _check_hub_folder(hub_folder, overwrite=overwrite)
    wanted = stage.Wanted("onnx" if format == "web" else format, all_maps, with_preprocessing)
    sources = given_videos(videos) if videos else []
    wanted = replace(wanted, int8=_int8(calibrate, sources, max_loss, is_wanted=int8))
    page = _page(wanted, teacher, runtime, out, overwrite=overwrite) if format == "web" else ()
    if runtime is not None and not page:
        raise SettingError(f"--runtime {runtime}: a page needs it, no other format; add --format web")
    network = load_teacher(teacher, weights=weights)
    with console.progress("export") as advance:
        exported = stage.export(
            network,
            out,
            "student" if page else f"{name}.int8" if int8 else name,
            wanted,
            sources=sources,
            overwrite=overwrite,
            report=advance,
        )
    _show(exported)
    described = _described(weights, network, exported, figures)
    cards = _leave_cards(described, weights, out, hub_folder)
    if page:
        exported = _with_page(exported, out, page)
    console.result({**vars(exported), "cards": cards}, as_json=as_json)


def _int8(
    calibrate: list[str] | None, judge: "list[VideoSource]", max_loss: float, *, is_wanted: bool
) -> "Int8 | None":
    from tinyhd_pipe.stages.exports.int8 import Int8

    if bool(calibrate) != is_wanted:
        raise SettingError("--int8 and --calibrate: one says what is wanted, the other on which clips; give both")
    return Int8(given_videos(calibrate), judge, max_loss) if calibrate else None


def _figures(metrics: Path | None, row: str | None, name: str, kind: str) -> "Metrics | None":
    from tinyhd_pipe.stages.exports.metrics_files import read_metrics

    if metrics is None:
        if row is not None:
            raise SettingError(f"--row {row}: of which metrics? give --metrics, too")
        return None
    return read_metrics(metrics, row=row, names=("student" if kind == "tinyhd" else "teacher", name))


def _check_hub_folder(folder: Path | None, *, overwrite: bool) -> None:
    from tinyhd_pipe.stages.exports.card import check_hub_folder
    from tinyhd_pipe.stages.exports.packages import needed

    if folder is not None:
        needed("huggingface_hub", "--hub-folder")
        check_hub_folder(folder, overwrite=overwrite)


def _page(wanted: "Wanted", kind: str, runtime: Path | None, out: Path, *, overwrite: bool) -> tuple[Path, ...]:
    """All of a page but its network."""
    from tinyhd_pipe.stages.exports.web_page import check_web, write_page
    from tinyhd_pipe.stages.exports.web_runtime import runtime_files

    inapt = {
        "--all-maps": wanted.all_maps,
        "--with-preprocessing": wanted.with_preprocessing,
        "--int8": wanted.int8 is not None,
    }
    check_web(kind, [option for option, is_wanted in inapt.items() if is_wanted])
    return write_page(out, runtime_files(runtime), overwrite=overwrite)


def _with_page(exported: "Exported", out: Path, page: tuple[Path, ...]) -> "Exported":
    from tinyhd_pipe.stages.exports.web_page import write_facts

    files = (*exported.files, write_facts(out, exported.facts), *page)
    size = sum(file.stat().st_size for file in files)
    console.say(f"{out}: a page of {console.size(size)} that loads nothing from elsewhere; a server has to give it:")
    console.say(f"python -m http.server 8000 --directory {shlex.quote(str(out))}    then open http://localhost:8000")
    return replace(exported, files=files, bytes=size)


def _described(weights: Path, network: "Network", exported: "Exported", metrics: "Metrics | None") -> "Described":
    from tinyhd_pipe.stages.exports.card import Described
    from tinyhd_pipe.stages.networks.weights import read_weights

    return Described(
        name=weights.name.removesuffix(weights.suffix),
        network=network,
        weights=read_weights(weights),
        facts=exported.facts,
        files=exported.files,
        checked=f"Compared on {exported.compared_on}: the exported file's maps differ from the network's by "
        f"{exported.difference:.1e} at most.",
        metrics=metrics,
    )


def _leave_cards(described: "Described", weights: Path, out: Path, hub_folder: Path | None) -> list[Path]:
    """The card beside the exported file, and the folder for a hub where one is wanted."""
    from tinyhd_pipe.stages.exports.card import lay_out, write_card
    from tinyhd_pipe.stages.exports.published import facts_of_file
    from tinyhd_pipe.stages.networks.network import Unshown

    try:
        cards = [write_card(described, out / f"{described.files[0].name}.md", weights=weights.name)]
    except SettingError as missing:  # of what only the card needs; torch's format needs nothing
        console.say(f"no model card was written: {missing}")
        return []
    console.say(f"{cards[0]}: its model card")
    if hub_folder is not None:
        facts, _ = facts_of_file(weights, described.weights, described.network.kind, Unshown())
        laid_out = lay_out(described, hub_folder, facts)
        console.say(f"{hub_folder}: {', '.join(path.name for path in laid_out)}; nothing was uploaded")
        cards.append(laid_out[0])
    return cards


def _show(exported: "Exported") -> None:
    from tinyhd_pipe.stages.exports.facts import window_in_words

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
    console.say(window_in_words(facts))
    counted = ", ".join(f"{count} {name}" for name, count in exported.operators.items())
    console.say(f"operators{f' of opset {exported.opset}' if exported.opset else ''}: {counted}")
    console.say(f"terms: {facts['licence']}")
    if exported.loss:
        console.say(_cost(exported.loss))


def _cost(loss: "Loss") -> str:
    judged = f"{loss.windows} windows of {', '.join(loss.judged_on)}, which were not calibrated on"
    figures = f"KL {loss.kl:.4f} nats (at worst {loss.worst_kl:.4f}), CC {loss.cc:.4f}"
    at_peaks = f"NSS {loss.nss:.3f} of {loss.nss_float32:.3f} where the float32 maps peak"
    return f"8 bits cost, on {judged}: {figures}, {at_peaks}"
