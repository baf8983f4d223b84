"""Compare networks with what people looked at: five figures for teacher, student and two baselines, and a sixth that
asks no truth: what share of a map's peaks is saturated.

Figures are means over frames, as DHF1K's official code takes them; predictions are brought to the size of the truth,
never the reverse. Two rows are always in the table, because a network must be seen to beat them: a centred Gaussian
(gaze is biased to the centre), and the first network shown each frame standing still (what motion is worth). Cost:
the networks' own, the first one's once more, and about 10 ms of metrics for a frame of 360x640.
"""

import csv
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze import metrics
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density, read_fixations
from tinyhd_pipe.stages.networks.inference import clip_of, predict, predict_frame, scaled_frames
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.pictures.sheets import colour, sheet
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.video.clips import WINDOW
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.index import frame_numbers, read_frames
from tinyhd_pipe.stages.video.sources import numbering_of
from tinyhd_pipe.store.errors import DataError, VideoError
from tinyhd_pipe.store.whole_file import write_whole

METRICS = ("CC", "SIM", "NSS", "AUC-J", "KLD", "saturated")
CENTRE = "centre prior"
STILL = "{}, still frames"
Scores = dict[str, float]
Predictions = Iterator[tuple[int, NDArray[np.float32] | None]]
"""(absolute frame, map); None stands for the centred Gaussian."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of every network on every video."""

    mean: Mapping[str, Scores]
    """name -> metric -> mean over all frames where the metric exists."""
    videos: Mapping[str, Mapping[str, Scores]]
    """name -> video id -> metric -> mean over that video's frames."""
    frames: int
    """Frames that were compared."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Video id -> one line, for those that could not be scored at all, which are in no figure, and for those that end
    early, whose frames before that are."""


def evaluate(
    videos: Sequence[AnnotatedVideo],
    networks: Mapping[str, Network],
    options: EvaluateOptions = EvaluateOptions(),
    *,
    baselines: bool = True,
    report: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Evaluation:
    """Score networks, and two baselines, on annotated videos.

    Arguments:
        networks: name -> network, at least one; the first one is shown still frames as well.
        options: frames between two that are compared, and the seed of AUC-Judd's tie-breaking noise, which is a
            function of it, the video and the frame.
        baselines: whether the two baselines have rows as well.
        report: told (row, videos done, videos in all), over all rows of the table.

    A video that cannot be read, or whose annotation cannot, is listed and left out of every row; the others are scored.
    Raises DataError when no frame of the videos has a density map and fixations, or none can be read.
    """
    first, network = next(iter(networks.items()))
    problems: dict[str, str] = {}
    rows: dict[str, Callable[[AnnotatedVideo, int], Predictions]] = {
        **{name: partial(_moving, network) for name, network in networks.items()},
        **({STILL.format(first): partial(_still, network, problems), CENTRE: _centred} if baselines else {}),
    }
    scores: dict[str, dict[str, list[Scores]]] = {name: {} for name in rows}
    failed: dict[str, str] = {}
    for row, (name, predictions) in enumerate(rows.items()):
        for done, video in enumerate(videos, start=1):
            if video.source.id not in failed:
                try:
                    scores[name][video.source.id] = list(
                        _scores(video, predictions(video, options.every), options.seed)
                    )
                except (VideoError, DataError) as error:
                    failed[video.source.id] = str(error)
            report(name, row * len(videos) + done, len(rows) * len(videos))
    scores = {name: {key: s for key, s in by_video.items() if key not in failed} for name, by_video in scores.items()}
    frames = sum(map(len, scores[first].values()))
    if not frames:
        reason = next(iter(failed.values()), "no frame has a density map; check the annotation folder")
        raise DataError(f"{len(videos)} videos: {reason}")
    return Evaluation(
        mean={name: _mean([s for scored in by_video.values() for s in scored]) for name, by_video in scores.items()},
        videos={name: {key: _mean(scored) for key, scored in by_video.items()} for name, by_video in scores.items()},
        frames=frames,
        problems={**problems, **failed},
    )


def comparison_sheet(
    videos: Sequence[AnnotatedVideo], networks: Mapping[str, Network], path: Path, *, rows: int = 6
) -> Path:
    """Write a PNG that shows, for the middle frame of some videos: the frame, the truth and every network's map."""
    chosen = [videos[place] for place in np.linspace(0, len(videos) - 1, min(rows, len(videos))).astype(int)]
    drawn = []
    for video in chosen:
        annotated = sorted(set(video.density_maps) & set(frame_numbers(video.source).tolist()))
        frame = annotated[len(annotated) // 2]
        picture = read_frames(video.source, np.array([frame]))[0]
        truth = read_density(video, frame)
        panels = {"frame": picture}
        panels["truth"] = np.zeros_like(picture) if truth is None else colour(truth)
        for name, network in networks.items():
            saliency = predict_frame(network, video.source, frame)
            panels[name] = colour(metrics.resize_prediction(saliency, picture.shape[:2]))
        drawn.append((f"{video.source.id}, frame {frame}", panels))
    return sheet(drawn, path)


def write_figures(scored: Evaluation, out: Path) -> None:
    """Write the figures as tables that other tools read: a file for each network, named as it is.

    `metrics/NAME.json` holds the means, metric -> figure (null where it does not exist), which DVC shows as one row;
    `videos/NAME.csv` holds a row for each video (nothing where a figure does not exist). Spaces and commas of a name
    become underscores. Files of networks that are not among these are left alone.
    """
    for name, mean in scored.mean.items():
        file = re.sub(r"\W+", "_", name)
        figures = {metric: None if math.isnan(value) else value for metric, value in mean.items()}
        lines = StringIO()
        table = csv.writer(lines, lineterminator="\n")
        table.writerow(("video", *METRICS))
        for video, scores in scored.videos[name].items():
            table.writerow((video, *("" if math.isnan(scores[metric]) else scores[metric] for metric in METRICS)))
        for path, text in (
            (out / "metrics" / f"{file}.json", json.dumps(figures, indent=2) + "\n"),
            (out / "videos" / f"{file}.csv", lines.getvalue()),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text.encode())


def _scores(video: AnnotatedVideo, predictions: Predictions, seed: int) -> Iterator[Scores]:
    """The metrics of every frame that is annotated."""
    for frame, saliency in predictions:
        density, fixations = read_density(video, frame), read_fixations(video, frame)
        if density is None:
            continue
        noise = np.random.default_rng((seed, zlib.crc32(video.source.id.encode()), frame))
        answered = metrics.centre_prior(density.shape) if saliency is None else saliency
        prediction = metrics.resize_prediction(answered, density.shape)
        yield {
            "CC": metrics.cc(prediction, density),
            "SIM": metrics.sim(prediction, density),
            "NSS": math.nan if fixations is None else metrics.nss(prediction, fixations),
            "AUC-J": math.nan if fixations is None else metrics.auc_judd(prediction, fixations, noise),
            "KLD": metrics.kld(prediction, density),
            "saturated": metrics.saturated(answered),
        }


def _moving(network: Network, video: AnnotatedVideo, every: int) -> Predictions:
    yield from ((prediction.frame, prediction.map) for prediction in predict(network, video.source, every=every))


def _still(network: Network, problems: dict[str, str], video: AnnotatedVideo, every: int) -> Predictions:
    """What the network says of windows in which nothing moves: one frame, 16 times.

    It sees every video to its end, so what does not decode on the way is noted here: video id -> `problems`.
    """
    decoding = decode(video.source)
    for frame in scaled_frames(network.scaling, decoding, numbering_of(video.source)):
        if frame.place % every == 0:
            maps = network(clip_of([frame] * WINDOW)[None])["final"][0].cpu().numpy()
            yield frame.number, maps if maps.ndim == 2 else maps[-1]
    if decoding.problem:
        problems[video.source.id] = decoding.problem


def _centred(video: AnnotatedVideo, every: int) -> Predictions:
    yield from ((frame, None) for frame in frame_numbers(video.source)[::every].tolist())


def _mean(scored: Sequence[Scores]) -> Scores:
    """Mean of every metric over the frames where it exists; NaN where it exists in none."""
    return {
        metric: float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")
        for metric in METRICS
        for values in [np.array([scores[metric] for scores in scored] or [np.nan])]
    }
