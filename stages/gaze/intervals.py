"""How sure figures are: intervals over videos, and whether two contenders differ on the same videos.

The decision that is not obvious: videos are drawn and not frames. Frames of one video are as good as copies of each
other, so an interval over frames would be ten times too narrow. With few videos an interval says little, and it is too
narrow rather than too wide; of one video there is none.

Cost: a tenth of a second for each row of the table, and a second to import SciPy's statistics.

Sources: Efron and Tibshirani, "An introduction to the bootstrap", 1993 (percentile intervals; permutation tests of
paired samples by exchanging signs), as `scipy.stats` has them.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.protocols import Protocol
from tinyhd_pipe.stages.gaze.scoring import METRICS, Scores, mean

RESAMPLES = 2000
PERMUTATIONS = 9999
"""At most; of up to 13 videos all exchanges of signs are tried."""
CONFIDENCE = 0.95

Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """What one contender has more than another of one metric, by the means of the videos."""

    name: str
    other: str
    metric: str
    difference: float
    """Mean over videos of `name`'s mean minus `other`'s."""
    interval: Interval
    """95 %; NaN of one video."""
    p: float
    """Of so large a difference, either way, if names were exchanged at random within each video; NaN of one video."""
    videos: int


def intervals(scored: Mapping[str, Sequence[Scores]], protocol: Protocol, seed: int) -> dict[str, Interval]:
    """95 % intervals of a contender's means; (NaN, NaN) where a metric exists in fewer than two videos.

    `scored`: video -> the scores of its frames.
    """
    found = {}
    for metric in METRICS:
        figures = [np.array([scores[metric] for scores in frames]) for frames in scored.values()]
        sums = np.array([np.nansum(of_video) for of_video in figures])
        counts = np.array([np.isfinite(of_video).sum() for of_video in figures])
        weights = np.where(counts > 0, 1.0, 0.0) if protocol.mean == "videos" else counts.astype(float)
        if protocol.mean == "videos":
            sums = sums / np.maximum(counts, 1)
        found[metric] = _interval(sums[counts > 0], weights[counts > 0], seed)
    return found


def differences(
    name: str, scored: Mapping[str, Sequence[Scores]], other: str, others: Mapping[str, Sequence[Scores]], seed: int
) -> list[Difference]:
    """`name` against `other` in every metric that both have, on the videos of both."""
    found = []
    ours, theirs = ({video: mean(frames) for video, frames in these.items()} for these in (scored, others))
    for metric in METRICS:
        pairs = np.array([ours[video][metric] - theirs[video][metric] for video in ours if video in theirs])
        pairs = pairs[np.isfinite(pairs)]
        if len(pairs):
            interval = _interval(pairs, np.ones(len(pairs)), seed)
            found.append(
                Difference(name, other, metric, float(pairs.mean()), interval, _p_value(pairs, seed), len(pairs))
            )
    return found


def _interval(sums: NDArray[np.float64], weights: NDArray[np.float64], seed: int) -> Interval:
    """Of sum(sums) / sum(weights), where videos are drawn again with replacement."""
    if len(sums) < 2:
        return float("nan"), float("nan")
    from scipy.stats import bootstrap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of videos that are all alike, which have an interval of no width
        drawn = bootstrap(
            (sums, weights),
            lambda some, of, axis: some.sum(axis=axis) / of.sum(axis=axis),
            paired=True,
            vectorized=True,
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    return float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def _p_value(differences: NDArray[np.float64], seed: int) -> float:
    """Two-sided, of a mean that is not zero, by exchanging signs."""
    if len(differences) < 2:
        return float("nan")
    from scipy.stats import permutation_test

    tested = permutation_test(
        (differences,),
        lambda some, axis: np.abs(some.mean(axis=axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=PERMUTATIONS,
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(tested.pvalue)
