"""Settings of an evaluation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from tinyhd_pipe.stages.settings.ranges import Count, Seed

ProtocolName = Literal["dhf1k", "mit", "tinyhd", "hollywood2"]
Postprocessing = Literal["none", "png", "tinyhd", "hd2s"]
Baselines = Literal["none", "centre", "still"]


@dataclass(frozen=True)
class EvaluateOptions:
    """Compare with what people looked at."""

    every: Count = 1
    """frames between two that are compared"""
    first: Annotated[int, Ge(0)] = 0
    """first frame that is compared, counted from 0"""
    protocol: ProtocolName = "dhf1k"
    """whose conventions metrics follow: dhf1k, mit, tinyhd or hollywood2 (docs/metrics.md)"""
    postprocessing: Postprocessing | None = None
    """of predictions: none, png, tinyhd (8 bit, cubic, 5x5 Gaussian) or hd2s; the protocol's own by default"""
    baselines: Baselines = "centre"
    """centre: a centred Gaussian; still: that, and the first network shown every frame standing still, at its cost"""
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """of networks; auto: bfloat16 for full-width HD2S where the device has units for it"""
    seed: Seed = 0
    """of AUC-Judd's tie-breaking noise, shuffled AUC's frames and splits, and the intervals' resampling"""
    rows: Count = 6
    """videos in the picture"""
