"""Loops of a few clips: frame, truth, and every map of teacher and student, of the same instants.

A loop is one still picture with its frames side by side, WebP, which CSS steps through (no script, and all loops of a
page in step). It stands still where somebody prefers that, and a printer shows one frame of it. Each map has a colour
scale of its own, brightest where the whole loop is brightest, because saliency maps peak far below 1.

The clips are those on which the run's network has its best, median and worst CC. Cost: the windows of the loops alone,
16 of a network with one output for each clip, and decoding the clips up to there.
"""

import base64
import io
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density
from tinyhd_pipe.stages.gaze.figures import Evaluation
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.overlap import ahead, in_parallel
from tinyhd_pipe.stages.networks.prediction import fastest
from tinyhd_pipe.stages.networks.teacher_maps import BATCHES_AHEAD, batch_logits, threads_for, window_batches
from tinyhd_pipe.stages.pictures.sheets import colour_loop
from tinyhd_pipe.stages.reports.words import figure
from tinyhd_pipe.stages.settings.report import ReportOptions
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.index import frame_numbers, read_frames
from tinyhd_pipe.stages.video.sources import numbering_of

Pictures = NDArray[np.uint8]
"""(frame, y, x, 3)."""
QUALITY = 82
"""Of WebP: a map of 192x256 takes 1 to 2 kB."""


@dataclass(frozen=True)
class Loop:
    """A few frames of one thing, as the page holds them."""

    title: str
    told: str
    """What one sees, for those who do not see it."""
    uri: str
    frames: int
    width: int
    """Of one frame, pixels."""
    height: int


@dataclass(frozen=True)
class Clip:
    """One clip of the gallery."""

    which: str
    """best, median or worst."""
    video: str
    told: str
    """Its figures, and the frames that are shown."""
    first: tuple[Loop, ...]
    """Frame, truth, and the final map of each network."""
    levels: Mapping[str, tuple[Loop, ...]]
    """Name of a network -> its other maps."""


@dataclass
class Speed:
    """How fast a network answered while the gallery was drawn: the windows of all clips but the first batch."""

    seconds: float = 0.0
    maps: int = 0

    @property
    def seconds_a_map(self) -> float | None:
        return self.seconds / self.maps if self.maps else None


@dataclass(frozen=True)
class Gallery:
    """The clips, and what drawing them told of the networks."""

    clips: tuple[Clip, ...]
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    without: str | None = None
    """Why the teacher's maps are not among them, where they are not."""


def chosen(scored: Evaluation, own: str) -> dict[str, str]:
    """best, median, worst -> the video on which the row `own` has that CC; fewer where there are not three."""
    ranked = sorted(
        (scores["CC"], video) for video, scores in scored.videos[own].items() if math.isfinite(scores["CC"])
    )
    if not ranked:
        return {}
    places = {"best": len(ranked) - 1}
    if len(ranked) > 2:
        places["median"] = (len(ranked) - 1) // 2
    if len(ranked) > 1:
        places["worst"] = 0
    return {which: ranked[place][1] for which, place in places.items()}


def draw_gallery(
    videos: Mapping[str, AnnotatedVideo],
    networks: Mapping[str, Network],
    figures: Mapping[str, Mapping[str, float]],
    options: ReportOptions,
) -> Gallery:
    """The loops of some videos.

    Arguments:
        videos: best, median, worst -> the video.
        networks: name -> network, in the order in which they are shown.
        figures: video id -> name of a row -> its CC there.

    Raises VideoError or DataError for a video or an annotation that cannot be read any more.
    """
    speeds = {name: Speed() for name in networks}
    ready = {name: fastest(network) for name, network in networks.items()}
    clips = []
    for which, video in videos.items():
        frames = _frames(video, options)
        maps = {name: _maps(network, video, frames, speeds[name]) for name, network in ready.items()}
        clips.append(_clip(which, video, frames, maps, figures[video.source.id], options))
    return Gallery(tuple(clips), speeds)


def _frames(video: AnnotatedVideo, options: ReportOptions) -> list[int]:
    """Numbers of the frames of a loop, from the middle of the video."""
    numbers = frame_numbers(video.source)
    every = min(options.loop_every, max(1, len(numbers) // options.loop_frames))
    span = min(options.loop_frames, -(-len(numbers) // every))
    first = max(0, (len(numbers) - (span - 1) * every - 1) // 2)
    return [int(number) for number in numbers[first::every][:span]]


def _maps(
    network: Network, video: AnnotatedVideo, frames: Sequence[int], speed: Speed
) -> dict[str, NDArray[np.float32]]:
    """Level -> maps in [0, 1] of these frames, (frame, y, x) on the level's own grid; the time goes to `speed`."""
    source = video.source
    batches = window_batches(
        network, decode(source), numbering=numbering_of(source), wanted=frozenset(frames), as_taught=True
    )
    answers = []
    with (
        closing(ahead(batches, BATCHES_AHEAD)) as coming,
        closing(in_parallel(partial(batch_logits, network), coming, threads_for(network))) as answered,
    ):
        before = None
        for logits in answered:
            answers.append({level: maps.sigmoid().cpu().numpy() for level, maps in logits.items()})
            now = time.perf_counter()
            if before is not None:  # the first ones wait for frames and choose kernels
                speed.seconds += now - before
                speed.maps += len(answers[-1][FINAL])
            before = now
    return {level: np.concatenate([answer[level] for answer in answers]) for level in answers[0]}


def _clip(
    which: str,
    video: AnnotatedVideo,
    frames: Sequence[int],
    maps: Mapping[str, Mapping[str, NDArray[np.float32]]],
    figures: Mapping[str, float],
    options: ReportOptions,
) -> Clip:
    id_ = video.source.id
    pictures = read_frames(video.source, np.array(frames))
    width = min(options.panel, pictures.shape[2])
    size = (width, max(1, round(width * pictures.shape[1] / pictures.shape[2])))
    first = [
        _loop("frame", f"frames of {id_}", pictures, size),
        _loop("truth", f"where people looked in {id_}", colour_loop(_truth(video, frames, pictures)), size),
    ]
    levels: dict[str, tuple[Loop, ...]] = {}
    for name, of in maps.items():
        drawn = {level: colour_loop(stack) for level, stack in of.items()}
        first.append(_loop(name, f"final map of the {name} on {id_}", drawn[FINAL], size))
        others = [level for level in drawn if level != FINAL]
        levels[name] = tuple(
            _loop(level.replace("_", " "), f"{level} of the {name} on {id_}", drawn[level], size) for level in others
        )
    told = "; ".join(f"{name} {figure(cc)}" for name, cc in figures.items())
    step = frames[1] - frames[0] if len(frames) > 1 else 1
    return Clip(
        which, id_, f"CC: {told}. Frames {frames[0]} to {frames[-1]}, every {_nth(step)}.", tuple(first), levels
    )


def _nth(step: int) -> str:
    return "one" if step == 1 else {2: "2nd", 3: "3rd"}.get(step, f"{step}th")


def _truth(video: AnnotatedVideo, frames: Sequence[int], pictures: Pictures) -> NDArray[np.float32]:
    """Density maps (frame, y, x); black where none was recorded."""
    densities = [read_density(video, frame) for frame in frames]
    size = next((density.shape for density in densities if density is not None), pictures.shape[1:3])
    return np.stack([np.zeros(size, np.float32) if density is None else density for density in densities])


def _loop(title: str, told: str, pictures: Pictures, size: tuple[int, int]) -> Loop:
    """`size` (width, height) is that of the frames, whatever grid a map lies on: places in all panels correspond."""
    frames = len(pictures)
    strip = Image.new("RGB", (size[0] * frames, size[1]))
    for place, picture in enumerate(pictures):
        strip.paste(Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR), (place * size[0], 0))
    return Loop(title, told, as_uri(strip), frames, *size)


def as_uri(picture: Image.Image, quality: int = QUALITY) -> str:
    """A picture as text that a page holds itself."""
    packed = io.BytesIO()
    picture.save(packed, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(packed.getvalue()).decode()}"
