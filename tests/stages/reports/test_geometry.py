"""What charts are drawn from: ticks that can be told apart, one axis for all terms, clips chosen by their CC."""

import math

import pytest

from tinyhd_pipe.stages.gaze.figures import Evaluation
from tinyhd_pipe.stages.reports.axes import HEIGHT, Scale, round_ticks, tick_labels
from tinyhd_pipe.stages.reports.comparisons import scatter, strips
from tinyhd_pipe.stages.reports.curves import panels
from tinyhd_pipe.stages.reports.gallery import chosen
from tinyhd_pipe.stages.reports.words import duration, figure, size
from tinyhd_pipe.stages.training.history import EpochReport


def _scored(ccs: dict[str, float]) -> Evaluation:
    metrics = ("CC", "SIM", "NSS", "AUC-J", "s-AUC", "KLD", "IG", "saturated")
    one = {video: dict.fromkeys(metrics, math.nan) | {"CC": cc} for video, cc in ccs.items()}
    mean = dict.fromkeys(metrics, math.nan) | {"CC": 0.5}
    return Evaluation({"own": mean, "other": mean}, {"own": one, "other": one}, 3)


@pytest.mark.parametrize(("low", "high"), [(0.956, 0.961), (0.1, 12), (-0.4, 3.3), (2, 2), (0, 1e-7)])
def test_ticks_are_round_lie_within_and_can_be_told_apart(low: float, high: float) -> None:
    ticks = round_ticks(low, high, 5)
    assert len(ticks) <= 7
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert len(set(tick_labels(ticks))) == len(ticks)


def test_a_logarithmic_axis_puts_equal_ratios_at_equal_distances() -> None:
    scale = Scale(0.1, 10, 0, 100, is_log=True)
    assert [round(scale(value)) for value in (0.1, 1, 10)] == [0, 50, 100]
    assert {0.1, 0.2, 0.5, 1, 2, 5, 10} == set(scale.ticks())


def test_curves_fall_where_losses_fall_and_all_terms_have_one_axis() -> None:
    history = [
        EpochReport(epoch, {"density": 1.0 / (epoch + 1), "final": 0.1}, {"density": 0.9} if epoch else None, 0.1)
        for epoch in range(1000)
    ]
    density, final, rate = panels(history, best_epoch=500)
    learned, left_out = density.lines
    heights = [y for _, y in learned.points]
    assert heights == sorted(heights), "down the screen is down"
    assert len(learned.points) < 500, "a long run is thinned out"
    assert learned.points[-1][1] <= HEIGHT
    assert density.y_ticks == final.y_ticks != rate.y_ticks
    assert len(left_out.points) < 500
    assert panels([], None) == []


@pytest.mark.parametrize(
    ("ccs", "which"),
    [
        ({"a": 0.1, "b": 0.9, "c": 0.5, "d": 0.4, "e": 0.8}, {"best": "b", "median": "c", "worst": "a"}),
        ({"a": 0.1, "b": 0.9}, {"best": "b", "worst": "a"}),
        ({"a": math.nan, "b": 0.9}, {"best": "b"}),
        ({"a": math.nan}, {}),
    ],
)
def test_the_best_the_median_and_the_worst_clip(ccs: dict[str, float], which: dict[str, str]) -> None:
    assert chosen(_scored(ccs), "own") == which


def test_what_does_not_exist_is_not_drawn() -> None:
    assert [strip.metric for strip in strips(_scored({"a": 0.4}), "own")] == ["CC"]
    assert scatter(_scored({"a": 0.4, "b": math.nan}), "own", "other", {}) is None
    drawn = scatter(_scored({"a": 0.4, "b": 0.6}), "own", "other", {"b": "best"})
    assert drawn is not None
    assert [dot.label for dot in drawn.dots] == ["", "best"]


def test_numbers_in_words() -> None:
    assert [figure(value) for value in (0.8594, 4.2631, -0.0204, math.nan)] == [".859", "4.263", "−.020", "–"]
    assert [duration(seconds) for seconds in (40, 180, 19_200)] == ["40 s", "3 min", "5 h 20 min"]
    assert [size(count) for count in (812, 3_960, 26.4e9, 3e12)] == ["812 bytes", "3.96 kB", "26.4 GB", "3 TB"]
