"""The command that makes maps of any video: what it asks for, its progress, and what it says when it is done.

What is heavy is imported inside, so `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Exit, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.allocator import keep_freed_memory
from tinyhd_pipe.pipeline.given import given_videos
from tinyhd_pipe.pipeline.given_network import given_network
from tinyhd_pipe.pipeline.options import Device, Json, Overrides, Params, Weights, expanded
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.applications.reframing import Reframing
    from tinyhd_pipe.stages.predict import Predicted, PredictProgress
    from tinyhd_pipe.stages.settings.predict import PredictOptions
    from tinyhd_pipe.stages.video.sources import VideoSource
    from tinyhd_pipe.stages.video.streams import Stream


def predict(
    videos: Annotated[
        list[str],
        Argument(
            help="Videos, folders of them or of frames, tars, s3://…; -, a pipe, /dev/video0, rtsp://… as they come.",
            metavar="PATH…",
        ),
    ],
    weights: Weights,
    out: Annotated[Path, Option(help="Folder for the maps: DIR/VIDEO/0001.png.", metavar="DIR")],
    format: Annotated[
        Literal["png", "npz", "zarr", "video"],
        Option(
            "--format",
            help="png: a picture of 8 bits for each frame; npz, zarr: float16, one for a video; video: grey, lossless.",
        ),
    ] = "png",
    brightness: Annotated[
        Literal["peak", "absolute"],
        Option(help="Of 8 bits: peak, each map's maximum is 255; absolute, 1 is."),
    ] = "peak",
    overlay: Annotated[
        bool, Option("--overlay", help="Write VIDEO.overlay.mp4, too: maps over the frames, with the sound.")
    ] = False,
    colours: Annotated[
        Literal["heat", "rainbow", "light"],
        Option(help="Of the overlay; light: the frame is dark where nobody looks."),
    ] = "heat",
    side_by_side: Annotated[
        bool, Option("--side-by-side", help="Of the overlay: the frame on the left, its map over it on the right.")
    ] = False,
    reframe: Annotated[
        str | None,
        Option(
            help="Write VIDEO.9x16.mp4, too, cropped to what is looked at, with the sound; VIDEO.9x16.csv says where.",
            metavar="W:H",
        ),
    ] = None,
    roi: Annotated[
        Literal["ffmpeg", "kvazaar"] | None,
        Option(help="Write VIDEO.roi.FORMAT.txt, too, by which encoders give more bits to what is looked at."),
    ] = None,
    thumbnail: Annotated[
        int | None,
        Option(
            help="Write VIDEO.thumbnails/1.jpg …, too: the N frames and crops that draw most attention.",
            metavar="N",
            min=1,
            max=1000,
        ),
    ] = None,
    qpfile: Annotated[bool, Option("--qpfile", hidden=True)] = False,
    teacher: Annotated[
        str, Option(help="Kind of the network: tinyhd (a student), or hd2s.", metavar="KIND")
    ] = "tinyhd",
    backend: Annotated[
        Literal["auto", "torch", "onnx", "openvino"],
        Option(help="What runs a student on the CPU; auto says what it chose."),
    ] = "auto",
    overwrite: Annotated[
        bool, Option("--overwrite", help="Make maps anew that --out has by other weights; refused otherwise.")
    ] = False,
    device: Device = "auto",
    params: Params = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Make one map for every frame of any video; a rerun makes what is missing.

    tinyhd-pipe predict clips/*.mp4 --weights runs/student/best.safetensors --out maps/
    """
    from tinyhd_pipe.pipeline.params import load_params
    from tinyhd_pipe.stages import predict as stage
    from tinyhd_pipe.stages.applications.quantisers import Quantising
    from tinyhd_pipe.stages.applications.thumbnails import Thumbnails
    from tinyhd_pipe.stages.pictures.overlay import Overlay
    from tinyhd_pipe.stages.predictions.products import Wanted

    if qpfile:
        raise SettingError(
            "--qpfile: x264's and x265's QP files have a QP for a frame, not for a block; use --roi ffmpeg"
        )
    keep_freed_memory()
    options = load_params(params, overrides).predict
    wanted = Wanted(
        format,
        brightness,
        Overlay(colours, options.strength, side_by_side) if overlay else None,
        options.fps,
        _reframing(reframe, options) if reframe else None,
        Quantising(options.roi_strength, options.roi_limit, seconds=options.roi_seconds, format=roi) if roi else None,
        Thumbnails(thumbnail, options.thumbnail_zoom, options.thumbnail_apart) if thumbnail else None,
    )
    sources = _given(videos, out)
    network = given_network(weights, teacher, backend=backend, precision=options.precision, device=device)
    with console.progress("predict") as advance:
        predicted = stage.predict(
            sources,
            network,
            out,
            wanted,
            overwrite=overwrite,
            report=lambda at: advance(at.frames, at.frames_in_all, _note(at)),
        )
    _show(predicted, as_json=as_json)


def _given(words: list[str], out: Path) -> "list[VideoSource | Stream]":
    """The videos at the paths among these words, those below `out` left out, and the streams that the others name."""
    from tinyhd_pipe.stages.video.streams import stream_of

    streams = {word: stream for word in words if (stream := stream_of(word))}
    paths = expanded([word for word in words if word not in streams]) or []
    found = given_videos(paths) if paths else []
    return [*(s for s in found if s.remote or out.resolve() not in s.path.resolve().parents), *streams.values()]


def _reframing(shape: str, options: "PredictOptions") -> "Reframing":
    from tinyhd_pipe.stages.applications.reframing import Reframing, shape_of

    return Reframing(shape_of(shape), options.reframe_speed, options.reframe_calm, options.reframe_ahead)


def _note(at: "PredictProgress") -> str:
    return f"frames, {at.frames_a_second:.1f} a second; {at.videos} of {at.videos_in_all} videos"


def _show(predicted: "Predicted", *, as_json: bool) -> None:
    new = f"{predicted.frames} maps made now, {predicted.already_there} videos were there already"
    console.say(f"{predicted.out}: {predicted.videos} videos; {new}")
    console.problems(predicted.problems)
    console.result(predicted, as_json=as_json)
    if predicted.problems:
        raise Exit(1)
