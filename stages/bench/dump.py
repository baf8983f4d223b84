"""What the dump is worth on this machine: the published way and ours, on the same clips, with the same weights.

The published way is one frame at a time: read the 16 frames of its window, scale them, run the network in float32 as
it was published, write one picture for each map. Ours is the dump itself. Maps are compared before anything is timed.

The decision that is not obvious: agreement means something on trained weights only. Untrained stand-ins, which have
the right cost but not the right numbers, turn float32's own rounding into differences of 1e-3; where they are timed,
fitted weights may be given beside them to be judged.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.bench.ways import Way, in_turn, way_of
from tinyhd_pipe.stages.dump.fidelity import kl_of, to_size
from tinyhd_pipe.stages.dump.shard_work import make_shard
from tinyhd_pipe.stages.networks.levels import LEVELS
from tinyhd_pipe.stages.networks.network import Network, Precision, Size, as_published, load_teacher
from tinyhd_pipe.stages.networks.overlap import in_parallel
from tinyhd_pipe.stages.networks.teacher_maps import batch_logits, teacher_maps, threads_for, window_batches
from tinyhd_pipe.stages.video.clips import teacher_window
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, digest, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import SettingError, TinyHDError
from tinyhd_pipe.store.plan import Source
from tinyhd_pipe.store.schema import Description, Level
from tinyhd_pipe.store.writer import create_or_open

FLOAT32_DIFFERENCE = 1e-5
"""Largest difference between two float32 maps, in [0, 1]."""
UNTRAINED_KL = 1e-6
"""The same for stand-in weights: mean KL, nats; a window that is one frame off costs thousands of times as much."""
BFLOAT16_KL = 5e-4
"""Largest mean KL(published ‖ bfloat16), nats."""
BFLOAT16_CC = 0.9995
"""Smallest mean correlation of the two."""
JUDGED_FRAMES = 8
PUBLISHED_FRAMES = 6
"""Frames that the published way makes in a round: each costs the same, so a few tell its speed."""
CLIPS, SHORTEST = 2, 48
"""Clips at most, and frames of a clip at least: in shorter ones, filling the last chunk would count for too much."""
HELD_BATCHES = 32
"""Preprocessed batches of each clip for the teacher alone: those of a long clip would fill the memory."""


@dataclass(frozen=True)
class Agreement:
    """How far the maps of our way are from the published ones."""

    precision: str
    weights: str
    difference: float
    """Largest, of values in [0, 1]."""
    kl: float
    """Mean KL(published ‖ ours) over all maps, nats."""
    cc: float
    """Mean correlation over all maps."""


@dataclass(frozen=True)
class DumpBenchmark:
    """Both ways side by side, and what they were compared on."""

    agreements: tuple[Agreement, ...]
    ways: tuple[Way, ...]
    """Published, ours in float32 (where another precision is faster), ours in the fastest precision with windows
    one at a time and (where that is another way) in runs that share work, the teacher alone like that."""
    share: float
    """Speed of our way as a share of the teacher's alone: median of the ratios within a round."""
    frames: int
    size: Size
    """(y, x) of the teacher's input."""
    rounds: int
    machine: Mapping[str, str]


@dataclass(frozen=True)
class DumpBenchOptions:
    """How the dump is measured."""

    trained: Path | None = None
    """Weights to judge agreement on where the teacher's own are untrained."""
    precision: Precision = "auto"
    """Of our fastest way; `auto` goes by the rule of a dump."""
    size: Size | None = None
    """(y, x) of the teacher's input; its own by default."""
    frames: int = 96
    """Frames that our way makes in a round."""
    rounds: int = 3
    """All ways are timed in turn, so many times."""
    device: str = "cpu"


def bench_dump(
    kind: str,
    weights: Path,
    sources: Sequence[VideoSource],
    options: DumpBenchOptions = DumpBenchOptions(),
    *,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> DumpBenchmark:
    """Compare the published way with ours on the first frames of the first videos.

    Arguments:
        kind, weights: of the teacher.
        report: told (steps done, steps in all, what comes next).

    Raises TinyHDError when maps do not agree: then no time is worth a look. SettingError for fewer than 17 frames.
    """
    trained, frames, rounds = options.trained, options.frames, options.rounds
    if frames < 17:
        raise SettingError(f"frames {frames}: expected at least 17, so that there are windows behind the head")
    with TemporaryDirectory(prefix="tinyhd-bench-") as place:
        folder = Path(place)
        report(0, rounds + 1, "cutting clips")
        clips = _first_frames(sources, frames, folder)
        load = partial(load_teacher, kind, size=options.size, device=options.device)
        fastest = load(weights=weights, precision=options.precision)
        precisions: list[Precision] = list(dict.fromkeys(["float32", fastest.precision]))
        report(0, rounds + 1, "comparing maps")
        agreements = [agreement(load, trained or weights, clips, each) for each in precisions]
        if trained is not None:
            agreements.append(agreement(load, weights, clips, "float32", trained=False))
        published = as_published(load(weights=weights))
        ways: dict[str, Callable[[], float]] = {"published": partial(published_way, published, clips, folder)}
        ours = partial(our_way, clips=clips, levels=_native_levels(fastest, clips[0]), folder=folder)
        if fastest.precision != "float32":
            ways["ours, float32"] = partial(ours, load(weights=weights))
        if fastest.takes_runs:
            ways[f"ours, {fastest.precision}, one window at a time"] = partial(ours, replace(fastest, batch=1))
        ways[f"ours, {fastest.precision}"] = partial(ours, fastest)
        ways[f"teacher alone, {fastest.precision}"] = _teacher_alone(fastest, clips)
        speeds = in_turn(ways, rounds, report)
    *_, dump, alone = speeds.values()
    return DumpBenchmark(
        agreements=tuple(agreements),
        ways=tuple(way_of(name, each, speeds["published"]) for name, each in speeds.items()),
        share=float(np.median(np.divide(dump, alone))),
        frames=sum(clip.frames for clip in clips),
        size=fastest.scaling.size,
        rounds=rounds,
        machine=machine(options.device),
    )


@dataclass(frozen=True)
class _Clip:
    source: VideoSource
    frames: int


def _first_frames(sources: Sequence[VideoSource], frames: int, folder: Path) -> list[_Clip]:
    """The first frames of the first videos as clips of their own, MPEG-4 as in DHF1K: both ways read these."""
    count = max(1, min(len(sources), CLIPS, frames // SHORTEST))
    for number, source in enumerate(sources[:count]):
        pictures = (picture for picture in decode(source) if picture is not None)
        write_video(folder / f"{number}.avi", islice(pictures, frames // count))
    return [_Clip(source, sum(1 for _ in decode(source))) for source in find_videos([folder])]


def agreement(
    load: Callable[..., Network], weights: Path, clips: Sequence[_Clip], precision: Precision, *, trained: bool = True
) -> Agreement:
    """Compare our maps of a few frames with the published ones; raises TinyHDError where they are not the same."""
    published = as_published(load(weights=weights))
    ours = load(weights=weights, precision=precision)
    figures = []
    for clip in clips:
        judged = set(range(0, clip.frames, -(-clip.frames * len(clips) // JUDGED_FRAMES)))
        for frames, logits in teacher_maps(ours, decode(clip.source)):  # of every frame, as a dump makes them
            full = {level: to_size(maps, ours.scaling.size) for level, maps in logits.items()}
            for place, frame in enumerate(frames):
                if frame.number in judged:
                    live = _published_maps(published, clip, frame.number)
                    figures += [_compared(live[level], full[level][place]) for level in LEVELS]
    difference, kl, cc = np.array(figures).T
    found = Agreement(precision, str(weights), float(difference.max()), float(kl.mean()), float(cc.mean()))
    _refuse_other_maps(found, trained=trained)
    return found


def _compared(live: Tensor, logits: Tensor) -> tuple[float, float, float]:
    """Largest difference, KL and correlation of a live map (y, x) in [0, 1] and one of ours in logits (y, x)."""
    live, ours = live.cpu().double(), logits.cpu().double().sigmoid()
    cc = torch.corrcoef(torch.stack([live.flatten(), ours.flatten()]))[0, 1]
    size = (live.shape[0], live.shape[1])
    return float((live - ours).abs().max()), kl_of(live[None].logit(1e-7), ours[None].logit(1e-7), size), float(cc)


def _refuse_other_maps(found: Agreement, *, trained: bool) -> None:
    if found.precision == "bfloat16":
        fits = found.kl <= BFLOAT16_KL and found.cc >= BFLOAT16_CC
        measured = f"KL {found.kl:.1e} and CC {found.cc:.5f}"
        expected = f"KL at most {BFLOAT16_KL:g} and CC at least {BFLOAT16_CC:g}"
    elif trained:
        fits = found.difference <= FLOAT32_DIFFERENCE
        measured, expected = f"a difference of {found.difference:.1e}", f"at most {FLOAT32_DIFFERENCE:g}"
    else:
        fits = found.kl <= UNTRAINED_KL
        measured, expected = f"KL {found.kl:.1e}", f"at most {UNTRAINED_KL:g}"
    if not fits:
        advice = "if these are untrained weights, judge on fitted ones with --trained; else this is a fault of the dump"
        raise TinyHDError(
            f"{found.weights}: our {found.precision} maps are not the published ones: {measured}, "
            f"expected {expected}: nothing was timed; {advice}"
        )


def _published_maps(teacher: Network, clip: _Clip, frame: int) -> dict[str, Tensor]:
    """Level -> (y, x) in [0, 1]: the window's frames read and scaled for this one map alone."""
    window = teacher_window(frame, clip.frames)
    return {level: maps[0] for level, maps in teacher(teacher.preprocess(read_frames(clip.source, window))).items()}


def published_way(teacher: Network, clips: Sequence[_Clip], folder: Path) -> float:
    """Frames a second of the published way: one frame at a time, its maps written as pictures of 8 bits."""
    started = time.perf_counter()
    made = 0
    for clip in clips:
        for frame in np.linspace(0, clip.frames - 1, -(-PUBLISHED_FRAMES // len(clips))).astype(int).tolist():
            for level, saliency in _published_maps(teacher, clip, frame).items():
                picture = Image.fromarray((255 * saliency).to(torch.uint8).cpu().numpy())
                picture.save(folder / f"{clip.source.path.stem}-{frame:04d}-{level}.png")
            made += 1
    return made / (time.perf_counter() - started)


def our_way(teacher: Network, clips: Sequence[_Clip], levels: tuple[Level, ...], folder: Path) -> float:
    """Frames a second of the dump, from files to a finished store."""
    description = Description(
        levels=levels,
        teacher_grid=teacher.scaling.size,
        teacher=teacher.facts,
    )
    videos = {clip.source.id: clip.source for clip in clips}
    known = [Source(clip.source.id, digest(clip.source), clip.frames) for clip in clips]
    with TemporaryDirectory(dir=folder) as place:
        writer = create_or_open(Path(place) / "maps.zarr", description)
        with writer.exclusive():
            tasks = writer.plan(known).todo
            started = time.perf_counter()
            for task in tasks:
                make_shard(writer, task, videos, teacher)
            return sum(clip.frames for clip in clips) / (time.perf_counter() - started)


def _native_levels(teacher: Network, clip: _Clip) -> tuple[Level, ...]:
    """Each level on the largest grid it may take."""
    answer = batch_logits(teacher, next(window_batches(teacher, decode(clip.source))))
    return tuple(Level.at_budget(level, (maps.shape[-2], maps.shape[-1])) for level, maps in answer.items())


def _teacher_alone(teacher: Network, clips: Sequence[_Clip]) -> Callable[[], float]:
    """Frames a second of the same windows, decoded and scaled beforehand, with nothing done to the maps."""
    held = [batch for clip in clips for batch in islice(window_batches(teacher, decode(clip.source)), HELD_BATCHES)]
    frames = sum(len(batch.frames) for batch in held)

    def way() -> float:
        started = time.perf_counter()
        for _ in in_parallel(partial(batch_logits, teacher), iter(held), threads_for(teacher)):
            pass
        return frames / (time.perf_counter() - started)

    return way
