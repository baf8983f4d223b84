"""Settings of an evaluation."""

from dataclasses import dataclass

from tinyhd_pipe.stages.settings.ranges import Count, Seed


@dataclass(frozen=True)
class EvaluateOptions:
    """Compare with what people looked at."""

    every: Count = 1
    """frames between two that are compared"""
    seed: Seed = 0
    """of AUC-Judd's tie-breaking noise"""
    rows: Count = 6
    """videos in the picture"""
