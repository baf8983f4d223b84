"""What scoring costs on this machine: all metrics of a frame by us, by pysaliency, and by a plain transcription of the
MATLAB code, on the same maps, once they agree.

The decision that is not obvious: nobody is timed who has another figure. The transcription has to agree with protocol
`dhf1k` and pysaliency with protocol `mit`, to rounding; shuffled AUC of other random splits agrees within chance. Ours
is timed on maps in memory as the others are, and as an evaluation runs it, from files, with the prediction brought to
its size.

Cost: frames * rounds * some 0.3 s for the slowest.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.bench.matlab_metrics import matlab_scores
from tinyhd_pipe.stages.bench.ways import Way, in_turn, way_of
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.protocols import PROTOCOLS, Protocol
from tinyhd_pipe.stages.gaze.scoring import Map, Scores, Scoring, Truth, scores_of
from tinyhd_pipe.stages.networks.network import Size
from tinyhd_pipe.stages.networks.overlap import cores, in_parallel
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import TinyHDError

DIFFERENCE = 1e-6
"""Largest between two figures of one metric; predictions are float32."""
CHANCE = 0.02
"""The same of shuffled AUC over other splits."""
NETWORK_SIZE: Size = (192, 256)
FIXATIONS = 70
"""In a frame, as in DHF1K."""
VALIDATION_FRAMES = 60_000
"""Of DHF1K's videos 601 to 700, about."""


@dataclass(frozen=True)
class MetricsBenchmark:
    """All ways side by side, and what they were compared on."""

    ways: tuple[Way, ...]
    agreement: Mapping[str, float]
    """Metric -> largest difference of two ways that have to agree; shuffled AUC's is chance."""
    missing: str
    """Why pysaliency is not among the ways, in one line; empty where it is."""
    size: Size
    frames: int
    rounds: int
    machine: Mapping[str, str]

    @property
    def minutes_for_dhf1k(self) -> float:
        """For 60,000 frames, by the way that an evaluation goes."""
        return VALIDATION_FRAMES / self.ways[-1].frames_a_second / 60


@dataclass(frozen=True)
class _Frame:
    prediction: Map
    """(y, x) at the truth's size."""
    small: Map
    """The same at a network's size."""
    truth: Truth


def bench_metrics(
    size: Size = (360, 640),
    *,
    frames: int = 16,
    rounds: int = 3,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> MetricsBenchmark:
    """Compare the ways on made-up frames of `size` (y, x).

    Arguments:
        report: told (steps done, steps in all, what comes next).

    Raises TinyHDError where figures do not agree: then no time is worth a look.
    """
    made = [_made_up(size, seed) for seed in range(frames)]
    report(0, rounds + 1, "comparing figures")
    pysaliency, missing = _pysaliency()
    agreement = _agreement(made, pysaliency)
    dhf1k = partial(_ours, PROTOCOLS["dhf1k"])
    ways: dict[str, Callable[[], object]] = {"MATLAB's loops in NumPy": lambda: [_matlab(frame) for frame in made]}
    if pysaliency:
        ways["pysaliency"] = lambda: [pysaliency(frame) for frame in made]
    ways["ours, one thread"] = lambda: [dhf1k(frame) for frame in made]
    ways["ours"] = lambda: list(in_parallel(dhf1k, iter(made), cores()))
    with TemporaryDirectory(prefix="tinyhd-bench-") as folder:
        scoring, video = _as_data_set(made, Path(folder))

        def from_files(at: int) -> Scores:
            return scoring.scores(video, at, made[at].small)

        ways["ours, as evaluate goes, from files"] = lambda: list(in_parallel(from_files, iter(range(frames)), cores()))

        def timed(way: Callable[[], object]) -> float:
            scoring.gaze.kept.clear()
            started = time.perf_counter()
            way()
            return frames / (time.perf_counter() - started)

        speeds = in_turn({name: partial(timed, way) for name, way in ways.items()}, rounds, report)
    slowest = next(iter(speeds.values()))
    return MetricsBenchmark(
        ways=tuple(way_of(name, each, slowest) for name, each in speeds.items()),
        agreement=agreement,
        missing=missing,
        size=size,
        frames=frames,
        rounds=rounds,
        machine=machine(),
    )


def _made_up(size: Size, seed: int) -> _Frame:
    """People look at three places, and the prediction knows two of them."""
    generator = np.random.default_rng(seed)
    y, x = (axis.astype(np.float32) for axis in np.mgrid[: NETWORK_SIZE[0], : NETWORK_SIZE[1]])
    places = generator.uniform(0.2, 0.8, (3, 2)) * NETWORK_SIZE
    spots = [np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 300) for at in places]
    texture = generator.random(NETWORK_SIZE, dtype=np.float32)
    small = (0.05 * (spots[0] + 0.6 * spots[1]) + 0.004 + 0.001 * texture).astype(np.float32)
    wide = [_resized(each, size) for each in (small, spots[0] + spots[1] + 0.4 * spots[2])]
    likely = (wide[1] / wide[1].sum()).ravel().astype(np.float64)
    looked = [
        np.isin(np.arange(likely.size), generator.choice(likely.size, count, p=likely / likely.sum())).reshape(size)
        for count in (FIXATIONS, 10 * FIXATIONS)
    ]
    return _Frame(
        wide[0], small, Truth(np.round(wide[1] * 127) / np.float32(255), looked[0], np.roll(looked[1], 40, 1))
    )


def _resized(values: Map, size: Size) -> Map:
    picture = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32)


def _ours(protocol: Protocol, frame: _Frame) -> Scores:
    return scores_of(frame.prediction, frame.truth, protocol, np.random.default_rng(0))


def _matlab(frame: _Frame) -> dict[str, float]:
    prediction, density = frame.prediction.astype(np.float64), frame.truth.density.astype(np.float64)
    assert frame.truth.fixations is not None
    return matlab_scores(prediction, density, frame.truth.fixations, frame.truth.elsewhere, 0)


def _pysaliency() -> tuple[Callable[[_Frame], dict[str, float]] | None, str]:
    """pysaliency's figures of a frame, where it is installed and runs; else None, and a line that says so."""
    try:
        metrics, roc = import_module("pysaliency.metrics"), import_module("pysaliency.roc")
        ways = partial(_by_pysaliency, metrics, roc)
        ways(_made_up((24, 32), 0))
    except ImportError:
        return None, "pysaliency is not installed: pip install pysaliency compares with it, too"
    except Exception as error:  # whatever a version of it meets with a version of NumPy: 0.2.22 needs one before 2.4
        return None, f"pysaliency is installed and does not run: {error}"
    return ways, ""


def _by_pysaliency(metrics: Any, roc: Any, frame: _Frame) -> dict[str, float]:
    prediction, density = frame.prediction.astype(np.float64), frame.truth.density.astype(np.float64)
    assert frame.truth.fixations is not None
    ys, xs = np.nonzero(frame.truth.fixations)
    positives = prediction[ys, xs]
    return {
        "CC": float(metrics.CC(prediction, density)),
        "SIM": float(metrics.SIM(prediction, density)),
        "NSS": float(metrics.NSS(prediction, xs, ys).mean()),
        "AUC-J": float(roc.general_roc(positives, prediction.ravel())[0]),
        "s-AUC": float(roc.general_roc(positives, prediction[frame.truth.elsewhere])[0]),
        "KLD": float(metrics.MIT_KLDiv(prediction, density)),
    }


def _agreement(frames: Sequence[_Frame], pysaliency: Callable[[_Frame], dict[str, float]] | None) -> dict[str, float]:
    """Metric -> largest difference from those who have to agree. Raises TinyHDError where one is too large."""
    worst: dict[str, float] = {}
    without_noise = replace(PROTOCOLS["dhf1k"], noise=False)
    for frame in frames:
        compared = [("the MATLAB code", _ours(without_noise, frame), _matlab(frame))]
        if pysaliency:
            compared.append(("pysaliency", _ours(PROTOCOLS["mit"], frame), pysaliency(frame)))
        for who, ours, theirs in compared:
            for metric, figure in theirs.items():
                difference = abs(ours[metric] - figure)
                worst[metric] = max(worst.get(metric, 0), difference)
                allowed = CHANCE if metric == "s-AUC" and who != "pysaliency" else DIFFERENCE
                if not difference <= allowed:
                    raise TinyHDError(
                        f"{metric} is {ours[metric]:.8f} by us and {figure:.8f} by {who}, expected a difference of at "
                        f"most {allowed:g}: nothing was timed; this is a fault of one of them"
                    )
    return worst


def _as_data_set(frames: Sequence[_Frame], folder: Path) -> tuple[Scoring, AnnotatedVideo]:
    """The same frames as files, as an evaluation finds them."""
    (folder / "maps").mkdir()
    (folder / "fixation").mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray((255 * frame.truth.density).astype(np.uint8)).save(folder / f"maps/{number:04d}.png")
        Image.fromarray(255 * np.asarray(frame.truth.fixations, np.uint8)).save(folder / f"fixation/{number:04d}.png")
    files = {kind: {n: f"{kind}/{n:04d}.png" for n in range(len(frames))} for kind in ("maps", "fixation")}
    video = AnnotatedVideo(VideoSource("made up", folder), folder, files["maps"], files["fixation"])
    return Scoring.of([video], EvaluateOptions()), video
