"""What prediction is worth on this machine: the published way and each backend, on the same frames of one video.

The published way is the network in float32 as it was published, one window after the other, each frame decoded and
scaled once, each map written as a PNG before the next window is begun. Ours is `predict` itself. Every way's maps are
held against the published ones before anything is timed, and all ways are timed in turn, several rounds.

The decision that is not obvious: the floor stands beside them. A network alone is the same windows, made beforehand,
with nothing done to their maps; decoding alone and pictures alone are what is left without a network. End to end, a way
can be no faster than all of these put together on as many cores.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.bench.ways import Way, in_turn, way_of
from tinyhd_pipe.stages.exports.backends import load_exported, with_backend
from tinyhd_pipe.stages.exports.packages import Format
from tinyhd_pipe.stages.networks.inference import scaled_frames
from tinyhd_pipe.stages.networks.network import Network, Size, as_published, load_student
from tinyhd_pipe.stages.networks.overlap import in_parallel
from tinyhd_pipe.stages.networks.prediction import fastest
from tinyhd_pipe.stages.networks.prediction import predict as predicted_maps
from tinyhd_pipe.stages.networks.teacher_maps import WindowBatch, batch_logits, threads_for, window_batches
from tinyhd_pipe.stages.predict import predict
from tinyhd_pipe.stages.predictions.map_files import pictures
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import SettingError, TinyHDError

DIFFERENCE = 1e-3
"""Largest difference of a way's maps, in [0, 1], from the published ones."""
HELD = 8
"""Windows that a network alone answers over and over: those of a long clip would fill the memory."""
PUBLISHED_WINDOWS = 4
"""Windows of the published way in a round: each costs the same, so a few tell its speed."""
JUDGED = 16
"""Frames whose maps are compared, from the clip's first to its last."""
FEWEST = 17
"""Frames: one window of 16 outputs, and that of the head."""
PUBLISHED = "published"


@dataclass(frozen=True)
class PredictBenchmark:
    """All ways side by side, and what they were compared on."""

    ways: tuple[Way, ...]
    """Published, end to end and network alone; each backend likewise; decoding and scaling, and pictures, alone."""
    differences: Mapping[str, float]
    """Backend or file -> largest difference of its maps from the published ones, of values in [0, 1]."""
    frames: int
    size: Size
    """(y, x) of the network's input."""
    picture: Size
    """(y, x) of the video."""
    rounds: int
    machine: Mapping[str, str]


@dataclass(frozen=True)
class PredictBenchOptions:
    """How prediction is measured."""

    backends: tuple[Format, ...] = ("torch",)
    exported: tuple[Path, ...] = ()
    """Files that `export` has made; those of int8 may differ, and their difference is told."""
    frames: int = 96
    """Frames of the video that each way predicts in a round."""
    rounds: int = 3
    """All ways are timed in turn, so many times."""


def bench_predict(
    weights: Path,
    source: VideoSource,
    options: PredictBenchOptions = PredictBenchOptions(),
    *,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> PredictBenchmark:
    """Compare the published way of a student with ours, by every backend, on the first frames of a video.

    Raises TinyHDError where maps do not agree: then no time is worth a look. SettingError for fewer than
    17 frames.
    """
    if options.frames < FEWEST:
        raise SettingError(f"frames {options.frames}: expected at least {FEWEST}, so that windows lie behind the head")
    rounds = options.rounds
    with TemporaryDirectory(prefix="tinyhd-bench-") as place:
        folder = Path(place)
        report(0, rounds + 1, "cutting a clip")
        write_video(folder / "clip.avi", islice((each for each in decode(source) if each is not None), options.frames))
        (clip,) = find_videos([folder / "clip.avi"])
        student = load_student(weights)
        published = as_published(student)
        report(0, rounds + 1, "comparing maps")
        networks: dict[str, Network] = {backend: with_backend(student, backend) for backend in options.backends}
        networks |= {path.name: load_exported(path) for path in options.exported}
        frames = sum(1 for _ in decode(clip))
        if frames < FEWEST:
            raise SettingError(
                f"{source.where}: {frames} frames of it decode, expected at least {FEWEST}: give a longer one"
            )
        judged = frozenset(range(0, frames, -(-frames // JUDGED)))
        right = dict(predicted_maps(published, clip, judged))
        differences = {name: _largest(right, network, clip) for name, network in networks.items()}
        _refuse_other_maps(differences, networks)
        ways = _ways_published(published, clip, folder)
        for name, network in networks.items():
            ways[f"{name}, end to end"] = partial(_end_to_end, network, clip, folder)
            ways[f"{name}, network alone"] = partial(_alone, fastest(network), _held(network, clip))
        ways["decoding and scaling alone"] = partial(_decoded, fastest(student), clip)
        ways["pictures alone"] = partial(_pictured, list(right.values()), folder)
        speeds = in_turn(ways, rounds, report)
    shape = next(decode(source))
    assert shape is not None, "which was written above"
    return PredictBenchmark(
        ways=tuple(way_of(name, each, speeds[f"{PUBLISHED}, end to end"]) for name, each in speeds.items()),
        differences=differences,
        frames=frames,
        size=student.scaling.size,
        picture=(shape.shape[0], shape.shape[1]),
        rounds=rounds,
        machine=machine(),
    )


def _largest(right: Mapping[int, NDArray[np.float32]], network: Network, clip: VideoSource) -> float:
    made = predicted_maps(fastest(network), clip, right.keys())
    return float(np.max([np.abs(saliency - right[frame]).max() for frame, saliency in made]))


def _refuse_other_maps(differences: Mapping[str, float], networks: Mapping[str, Network]) -> None:
    for name, off in differences.items():
        if networks[name].facts.get("precision") == "float32" and not off <= DIFFERENCE:
            raise TinyHDError(
                f"{name}: maps differ from the published ones by {off:.1e}, expected {DIFFERENCE:g} at most; "
                "nothing was timed"
            )


def _ways_published(network: Network, clip: VideoSource, folder: Path) -> dict[str, Callable[[], float]]:
    return {
        f"{PUBLISHED}, end to end": partial(_published_way, network, clip, folder),
        f"{PUBLISHED}, network alone": partial(_one_by_one, network, _held(network, clip)),
    }


def _published_way(network: Network, clip: VideoSource, folder: Path) -> float:
    """Frames a second of windows one after the other, in torch's own threads, a PNG for each map."""
    made, started = 0, time.perf_counter()
    with pictures(folder / "published", 1, "peak") as add:
        coming = window_batches(network, decode(clip), as_taught=True)
        if network.outputs > 1:
            next(coming)  # the head's, which answers for one frame
        for batch in islice(coming, PUBLISHED_WINDOWS):
            for frame, saliency in zip(batch.frames, _maps(network, batch), strict=True):
                add(frame.number, saliency)
                made += 1
    return made / (time.perf_counter() - started)


def _end_to_end(network: Network, clip: VideoSource, folder: Path) -> float:
    """Frames a second of `predict`, from a file to a picture for each frame."""
    with TemporaryDirectory(dir=folder) as out:
        started = time.perf_counter()
        return predict([clip], network, Path(out)).frames / (time.perf_counter() - started)


def _held(network: Network, clip: VideoSource) -> list[WindowBatch]:
    """`HELD` windows, without those at head and end that answer for fewer frames than others."""
    windows = islice(window_batches(network, decode(clip), as_taught=True), HELD)
    whole = [batch for batch in windows if len(batch.frames) == network.outputs]
    return list(islice(cycle(whole), HELD))


def _maps(network: Network, batch: WindowBatch) -> NDArray[np.float32]:
    maps: NDArray[np.float32] = torch.sigmoid(batch_logits(network, batch, ("final",))["final"]).numpy()
    return maps


def _one_by_one(network: Network, batches: Sequence[WindowBatch]) -> float:
    batches = batches[:PUBLISHED_WINDOWS]
    started = time.perf_counter()
    for batch in batches:
        _maps(network, batch)
    return sum(len(batch.frames) for batch in batches) / (time.perf_counter() - started)


def _alone(network: Network, batches: Sequence[WindowBatch]) -> float:
    """Frames a second of the same windows side by side."""
    started = time.perf_counter()
    made = sum(len(maps) for maps in in_parallel(partial(_maps, network), iter(batches), threads_for(network)))
    return made / (time.perf_counter() - started)


def _decoded(network: Network, clip: VideoSource) -> float:
    started = time.perf_counter()
    return sum(1 for _ in scaled_frames(network.scaling, decode(clip))) / (time.perf_counter() - started)


def _pictured(maps: Sequence[NDArray[np.float32]], folder: Path) -> float:
    started = time.perf_counter()
    with pictures(folder / "alone", 1, "peak") as add:
        for frame, saliency in enumerate(maps):
            add(frame, saliency)
    return len(maps) / (time.perf_counter() - started)
