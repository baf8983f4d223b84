"""Intervals hold what they promise, and a test of no difference finds one as often as it says."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.intervals import differences, intervals
from tinyhd_pipe.stages.gaze.protocols import PROTOCOLS
from tinyhd_pipe.stages.gaze.scoring import METRICS, Scores

FRAMES, VIDEOS = PROTOCOLS["dhf1k"], PROTOCOLS["tinyhd"]
Scored = dict[str, list[Scores]]


def _scored(figures: dict[str, list[float]], metric: str = "CC") -> Scored:
    nothing = dict.fromkeys(METRICS, math.nan)
    return {video: [{**nothing, metric: figure} for figure in frames] for video, frames in figures.items()}


def _videos(means: NDArray[np.float64], frames: int = 3) -> Scored:
    return _scored({str(number): [float(mean)] * frames for number, mean in enumerate(means)})


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(60):
        low, high = intervals(_videos(generator.normal(0.5, 0.1, 25)), FRAMES, seed)["CC"]
        held += low <= 0.5 <= high
    assert 50 <= held <= 60


def test_intervals_are_over_videos_and_not_over_frames() -> None:
    means = np.linspace(0.2, 0.8, 10)
    few, many = (intervals(_videos(means, frames), FRAMES, 0)["CC"] for frames in (1, 50))
    assert many == pytest.approx(few)
    assert many[1] - many[0] > 0.15


def test_long_videos_weigh_more_where_the_mean_is_over_frames() -> None:
    scored = _scored({"long": [0.0] * 9, "short": [1.0]})
    assert intervals(scored, FRAMES, 0)["CC"] == intervals(scored, VIDEOS, 0)["CC"] == (0.0, 1.0)
    several = _scored({**{f"long {n}": [0.0] * 9 for n in range(8)}, **{f"short {n}": [1.0] for n in range(8)}})
    assert intervals(several, FRAMES, 0)["CC"][1] < 0.35 < 0.65 < intervals(several, VIDEOS, 0)["CC"][1]


def test_where_there_is_one_video_there_is_no_interval() -> None:
    assert all(map(math.isnan, intervals(_videos(np.array([0.5])), FRAMES, 0)["CC"]))
    assert all(map(math.isnan, intervals(_videos(np.array([0.5, 0.6])), FRAMES, 0)["NSS"]))


def test_a_difference_on_every_video_is_found_and_none_is_not() -> None:
    generator = np.random.default_rng(1)
    means = generator.normal(0.5, 0.2, 12)
    (better,) = differences("a", _videos(means + 0.01), "b", _videos(means), 0)
    assert (better.metric, better.videos) == ("CC", 12)
    assert better.difference == pytest.approx(0.01)
    assert better.interval == pytest.approx((0.01, 0.01))
    assert better.p == pytest.approx(2 / 2**12)
    (same,) = differences("a", _videos(means), "b", _videos(means), 0)
    assert (same.difference, same.p) == (0, 1)


def test_a_test_of_no_difference_finds_one_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    found = 0
    for seed in range(100):
        one, other = (_videos(generator.normal(0.5, 0.1, 9)) for _ in range(2))
        found += differences("a", one, "b", other, seed)[0].p < 0.2
    assert 10 <= found <= 31


def test_videos_that_only_one_of_two_has_are_not_compared() -> None:
    one, other = _videos(np.array([0.5, 0.6, 0.7])), _videos(np.array([0.4, 0.5]))
    (difference,) = differences("a", one, "b", other, 0)
    assert difference.videos == 2
    assert difference.difference == pytest.approx(0.1)
