"""All metrics of one frame by a protocol, and their means over frames or videos.

The decision that is not obvious: a frame's score is a function of its prediction, its truth, the protocol and the seed,
and of nothing that was scored before, so frames are scored side by side in any order and a killed evaluation goes on
where it was. Cost: see `bench metrics`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze import metrics
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density
from tinyhd_pipe.stages.gaze.auc import auc_judd, auc_shuffled, auc_shuffled_by_ranks
from tinyhd_pipe.stages.gaze.postprocessing import postprocessed
from tinyhd_pipe.stages.gaze.protocols import PROTOCOLS, Protocol
from tinyhd_pipe.stages.gaze.truth import Gaze, generator_of
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions, Postprocessing
from tinyhd_pipe.store.errors import DataError

METRICS = ("CC", "SIM", "NSS", "AUC-J", "s-AUC", "KLD", "IG", "saturated")
Scores = dict[str, float]
"""Metric -> figure, NaN where it does not exist."""
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """What people looked at in one frame."""

    density: Map
    """(y, x) in [0, 1], not zero everywhere."""
    fixations: metrics.Mask | None
    """(y, x); None where they were not recorded."""
    elsewhere: metrics.Mask
    """(y, x), where people looked in other frames."""


@dataclass(frozen=True)
class Scoring:
    """How predictions become figures."""

    gaze: Gaze
    name: str
    """Of the protocol."""
    protocol: Protocol
    postprocessing: Postprocessing

    @classmethod
    def of(cls, videos: Sequence[AnnotatedVideo], options: EvaluateOptions) -> "Scoring":
        protocol = PROTOCOLS[options.protocol]
        how = options.postprocessing or protocol.postprocessing
        return cls(Gaze.of(videos, options.seed), options.protocol, protocol, how)

    def scores(self, video: AnnotatedVideo, frame: int, prediction: Map | None) -> Scores:
        """The metrics of one frame.

        `prediction` (y, x) in [0, 1] of any size, as it was given; None stands for the centred Gaussian. Raises
        DataError where the frame has no truth: `Gaze.comparable` says which have.
        """
        density = read_density(video, frame)
        if density is None:
            raise DataError(f"{video.source.id}: no density map of frame {frame}, which was there before; run again")
        size = (density.shape[0], density.shape[1])
        fixations = self.gaze.fixations(video.source.id, frame, size)
        elsewhere = np.zeros(size, bool) if fixations is None else self.gaze.elsewhere(video.source.id, frame, size)
        scored = _centre(size) if prediction is None else postprocessed(prediction, size, self.postprocessing)
        figures = scores_of(
            scored,
            Truth(density, fixations, elsewhere),
            self.protocol,
            generator_of(self.gaze.seed, video.source.id, frame, "noise and splits"),
        )
        return {**figures, "saturated": metrics.saturated(scored if prediction is None else prediction)}


def scores_of(prediction: Map, truth: Truth, protocol: Protocol, generator: np.random.Generator) -> Scores:
    """All metrics of a prediction (y, x) in [0, 1] that has the size of its truth, `saturated` apart."""
    scores = dict.fromkeys(METRICS[:-1], math.nan)
    scores["CC"] = metrics.cc(prediction, truth.density)
    scores["SIM"] = metrics.sim(prediction, truth.density, min_max=protocol.sim_min_max)
    scores["KLD"] = metrics.kld(prediction, truth.density)
    if (fixations := truth.fixations) is not None:
        scores["NSS"] = metrics.nss(prediction, fixations, ddof=protocol.nss_ddof)
        scores["AUC-J"] = auc_judd(prediction, fixations, generator if protocol.noise else None, curve=protocol.auc)
        scores["s-AUC"] = (
            auc_shuffled(prediction, fixations, truth.elsewhere, generator)
            if protocol.shuffled == "splits"
            else auc_shuffled_by_ranks(prediction, fixations, truth.elsewhere)
        )
        scores["IG"] = metrics.information_gain(prediction, fixations, _centre(prediction.shape))
    return scores


@lru_cache(maxsize=16)
def _centre(size: tuple[int, int]) -> Map:
    return metrics.centre_prior(size)


def mean(scored: Sequence[Scores]) -> Scores:
    """Mean of every metric over the frames where it exists; NaN where it exists in none."""
    return {
        metric: float(np.nanmean(values)) if not np.isnan(values).all() else math.nan
        for metric in METRICS
        for values in [np.array([scores[metric] for scores in scored] or [np.nan])]
    }


def mean_over_videos(scored: Mapping[str, Sequence[Scores]], protocol: Protocol) -> Scores:
    """Mean over all videos' frames, or over the videos' own means: as the protocol has it."""
    if protocol.mean == "videos":
        return mean([mean(frames) for frames in scored.values()])
    return mean([scores for frames in scored.values() for scores in frames])
