"""The figures of an evaluation: means, intervals and differences of everything that was scored, and their files.

The decision that is not obvious: means are one small file for each row, so that DVC shows each network as one row and
git keeps them; what is longer stands in tables, one row a video, and on request one row a frame.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from tinyhd_pipe.stages.gaze.intervals import Difference, Interval, differences, intervals
from tinyhd_pipe.stages.gaze.kept_scores import ByFrame
from tinyhd_pipe.stages.gaze.scoring import METRICS, Scores, Scoring, mean, mean_over_videos
from tinyhd_pipe.stages.gaze.truth import LeftOut
from tinyhd_pipe.store.whole_file import write_whole

ByVideo = Mapping[str, ByFrame]
"""Video id -> absolute frame -> metric -> figure."""


@dataclass(frozen=True)
class Evaluation:
    """Figures of every contender on every video."""

    mean: Mapping[str, Scores]
    """name -> metric -> mean over frames or videos, as the protocol has it, where the metric exists."""
    videos: Mapping[str, Mapping[str, Scores]]
    """name -> video id -> metric -> mean over that video's frames."""
    frames: int
    """Frames that were compared."""
    protocol: str = "dhf1k"
    postprocessing: str = "none"
    intervals: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """name -> metric -> 95 % interval of the mean over videos drawn again; NaN of fewer than two."""
    differences: tuple[Difference, ...] = ()
    """Of the first contender from every other one, on the same videos."""
    left_out: tuple[LeftOut, ...] = ()
    """Annotated frames that are in no figure, and others that are not as they were, with their reasons."""
    frames_left_out: int = 0
    """Annotated frames that are in no figure."""
    not_taken: tuple[str, ...] = ()
    """Lines on what the data set holds beside these videos: annotation without a video, videos without annotation."""
    problems: Mapping[str, str] = field(default_factory=dict)
    """Video id -> one line, for those that could not be scored at all, which are in no figure, and for those that end
    early, whose frames before that are."""


def summary(
    scored: Mapping[str, ByVideo], scoring: Scoring, left_out: Sequence[LeftOut], problems: Mapping[str, str]
) -> Evaluation:
    """The figures of what was scored: name -> the same frames of the same videos."""
    rows = {
        name: {video: list(by_frame.values()) for video, by_frame in by_video.items()}
        for name, by_video in scored.items()
    }
    protocol, seed = scoring.protocol, scoring.gaze.seed
    first, *others = rows
    return Evaluation(
        mean={name: mean_over_videos(by_video, protocol) for name, by_video in rows.items()},
        videos={name: {video: mean(scores) for video, scores in by_video.items()} for name, by_video in rows.items()},
        frames=sum(map(len, rows[first].values())),
        protocol=scoring.name,
        postprocessing=scoring.postprocessing,
        intervals={name: intervals(by_video, protocol, seed) for name, by_video in rows.items()},
        differences=tuple(
            difference for other in others for difference in differences(first, rows[first], other, rows[other], seed)
        ),
        left_out=tuple(left_out),
        frames_left_out=sum(of.count for of in left_out if of.is_out),
        problems=dict(problems),
    )


def write_figures(scored: Evaluation, out: Path) -> None:
    """Write the figures as tables that other tools read: a file for each row, named as it is.

    `metrics/NAME.json` holds the means, metric -> figure (null where it does not exist), which DVC shows as one row;
    `videos/NAME.csv` holds a row for each video (nothing where a figure does not exist). Spaces and commas of a name
    become underscores. Files of rows that are not among these are left alone.
    """
    for name, figures in scored.mean.items():
        plain = {metric: None if math.isnan(value) else value for metric, value in figures.items()}
        _write(out / "metrics" / f"{_file(name)}.json", json.dumps(plain, indent=2) + "\n")
        rows = ((video, *_cells(scores)) for video, scores in scored.videos[name].items())
        _write(out / "videos" / f"{_file(name)}.csv", _table(("video", *METRICS), rows))


def write_frames(scored: Mapping[str, ByVideo], out: Path) -> None:
    """Write `frames/NAME.csv`, a row for each frame, which counts from 0."""
    for name, by_video in scored.items():
        rows = (
            (video, frame, *_cells(scores))
            for video, by_frame in by_video.items()
            for frame, scores in by_frame.items()
        )
        _write(out / "frames" / f"{_file(name)}.csv", _table(("video", "frame", *METRICS), rows))


def _file(name: str) -> str:
    return re.sub(r"\W+", "_", name)


def _cells(scores: Scores) -> list[float | str]:
    return ["" if math.isnan(scores[metric]) else scores[metric] for metric in METRICS]


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(columns)
    table.writerows(rows)
    return lines.getvalue()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())
