"""Compare whatever has maps with what people looked at: networks, stores, maps of others, and baselines, side by side.

Figures follow a named protocol (gaze/protocols.py), DHF1K's by default; predictions are brought to the size of the
truth, never the reverse. A centred Gaussian is always in the table, because a network must be seen to beat it (gaze is
biased to the centre). The decision that is not obvious: all rows are over the same frames. What one contender has no
map of is left out of all rows, counted, and said, as is what cannot be compared at all.

Cost: the networks' own, run as a dump runs them, and some 20 ms of metrics for a frame of 360x640, side by side.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.figures import ByVideo, Evaluation, summary
from tinyhd_pipe.stages.gaze.kept_scores import ByFrame, KeptScores
from tinyhd_pipe.stages.gaze.scoring import Scores, Scoring
from tinyhd_pipe.stages.gaze.truth import Comparable, LeftOut
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.overlap import cores, in_parallel
from tinyhd_pipe.stages.predictions.comparison import comparison_loop, comparison_sheet
from tinyhd_pipe.stages.predictions.contender import Contender
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.store.errors import DataError, VideoError


@dataclass(frozen=True)
class Watch:
    """How an evaluation is watched, and what it leaves while it runs."""

    report: Callable[[str, int, int], None] = lambda name, done, total: None
    """Told (row, videos done, videos in all), over all rows of the table."""
    kept: Path | None = None
    """Folder of scores that are kept, and taken where they are there."""
    frames: Callable[[Mapping[str, ByVideo]], None] = lambda scored: None
    """Given the scores of every frame at the end: name -> video -> frame -> metric."""


def evaluate(
    videos: Sequence[AnnotatedVideo],
    contenders: Sequence[Contender],
    options: EvaluateOptions = EvaluateOptions(),
    watch: Watch = Watch(),
) -> Evaluation:
    """Score contenders on annotated videos.

    Arguments:
        contenders: at least one, of different names; `with_baselines` lines them up.

    A video that cannot be read is listed and left out of every row; the others are scored. So is a frame whose
    annotation cannot be read, is empty, or has no frame in the video.
    Raises DataError when no frame of the videos can be compared.
    """
    scoring = Scoring.of(videos, options)
    scored: dict[str, dict[str, ByFrame]] = {contender.name: {} for contender in contenders}
    left_out: list[LeftOut] = []
    problems: dict[str, str] = {}
    for done, video in enumerate(videos):
        work = _VideoWork(contenders, scoring, watch, done, len(videos))
        try:
            looked_at, problem = _look_at(video, scoring, options)
            left_out += looked_at.left_out
            answers = work.scores(looked_at) if looked_at.frames else {}
        except (VideoError, DataError) as error:
            problems[video.source.id] = str(error)
            continue
        if problem:
            problems[video.source.id] = problem
        common, missed = _common(looked_at, answers)
        left_out += missed
        if common:
            for name, by_frame in answers.items():
                scored[name][video.source.id] = {frame: by_frame[frame] for frame in common}
    watch.report("", len(contenders) * len(videos), len(contenders) * len(videos))
    if not any(scored[contenders[0].name].values()):
        reasons = (*problems.values(), *map(str, left_out), "no frame has a density map; check the annotation folder")
        raise DataError(f"{len(videos)} videos: {reasons[0]}")
    watch.frames(scored)
    return summary(scored, scoring, left_out, problems)


def _look_at(video: AnnotatedVideo, scoring: Scoring, options: EvaluateOptions) -> tuple[Comparable, str | None]:
    """Which frames of a video can be compared, and what of it does not decode.

    It is decoded once more than its contenders decode it: of stores and pictures nothing else says how long it is.
    """
    decoding = decode(video.source)
    for _ in decoding:
        pass
    numbers = decoding.numbering.numbers(np.arange(decoding.frames))
    looked_at = scoring.gaze.comparable(video, numbers, first=options.first, every=options.every)
    return looked_at, decoding.problem


@dataclass(frozen=True)
class _VideoWork:
    """Everything that the work on one video needs."""

    contenders: Sequence[Contender]
    scoring: Scoring
    watch: Watch
    done: int
    """Videos before this one."""
    videos: int

    def scores(self, looked_at: Comparable) -> dict[str, ByFrame]:
        """Name -> the scores of every frame that the contender has."""
        answers: dict[str, ByFrame] = {}
        kept = KeptScores.of(self.watch.kept, self.scoring, looked_at) if self.watch.kept else None
        for row, contender in enumerate(self.contenders):
            self.watch.report(
                contender.name, self.done * len(self.contenders) + row, self.videos * len(self.contenders)
            )
            found = kept.read(contender.identity) if kept else None
            answers[contender.name] = self._of(contender, looked_at) if found is None else found
            if kept and found is None:
                kept.write(contender.identity, answers[contender.name])
        return answers

    def _of(self, contender: Contender, looked_at: Comparable) -> ByFrame:
        def scores(answer: tuple[int, NDArray[np.float32] | None]) -> tuple[int, Scores]:
            frame, saliency = answer
            return frame, self.scoring.scores(looked_at.video, frame, saliency)

        predictions = contender.maps(looked_at.video, looked_at.frames)
        with closing(in_parallel(scores, predictions, cores())) as coming:
            return dict(coming)


def _common(looked_at: Comparable, answers: Mapping[str, ByFrame]) -> tuple[list[int], list[LeftOut]]:
    """The frames that all contenders have, and what the others are left out for."""
    frames, left_out = list(looked_at.frames), []
    for name, by_frame in answers.items():
        there = [frame for frame in frames if frame in by_frame]
        if missing := len(frames) - len(there):
            reason = f"are left out: {name} has no map of them"
            left_out.append(LeftOut(looked_at.video.source.id, missing, len(looked_at.frames), reason))
        frames = there
    return frames, left_out


def comparison(
    videos: Sequence[AnnotatedVideo], networks: Mapping[str, Network], out: Path, *, rows: int = 6
) -> tuple[Path, Path]:
    """Write comparison.png and comparison.webp below `out`: frame, truth and every network's map, still and moving.

    Arguments:
        rows: videos that are shown at most; the loop has half of them.
    """
    still = comparison_sheet(videos, networks, out / "comparison.png", rows=rows)
    return still, comparison_loop(videos, networks, out / "comparison.webp", rows=max(1, rows // 2))
