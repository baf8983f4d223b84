"""The metrics are those of the DHF1K benchmark: pinned by values that the MIT MATLAB code printed."""

import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.gaze.auc import auc_judd, auc_shuffled
from tinyhd_pipe.stages.gaze.metrics import (
    cc,
    centre_prior,
    kld,
    nss,
    quantise_as_png,
    resize_prediction,
    saturated,
    sim,
)

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]
SIZE = (12, 17)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def some_map(seed: int = 0) -> Map:
    return rng(seed).random(SIZE)


def some_fixations(seed: int = 0, count: int = 9) -> Mask:
    fixations = np.zeros(SIZE, dtype=bool)
    fixations.flat[rng(seed).choice(fixations.size, count, replace=False)] = True
    return fixations


class Road:
    """The pair of maps with values printed by the MIT benchmark's MATLAB code."""

    def __init__(self, shared: Path) -> None:
        folder = shared / "reference" / "metrics" / "road"
        values = json.loads((folder / "road_values.json").read_text())["published"]
        self.values: dict[str, float] = values["saliency1"]
        self.large_values: dict[str, float] = values["large (200x200, must be resized to 128x128)"]
        pictures = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("*.png")}
        self.saliency1, self.saliency2 = pictures["saliency1"] / 255.0, pictures["saliency2"] / 255.0
        self.large = pictures["large"]
        self.fixation, self.other = pictures["fixation"] > 128, pictures["other"] > 128


@pytest.fixture(scope="module")
def road(shared: Path) -> Road:
    return Road(shared)


@pytest.mark.shared
def test_cc_sim_and_nss_are_the_matlab_values_to_eight_digits(road: Road) -> None:
    assert cc(road.saliency1, road.saliency2) == pytest.approx(road.values["CC(saliency2)"], abs=1e-8)
    assert sim(road.saliency1, road.saliency2) == pytest.approx(road.values["SIM(saliency2)"], abs=1e-8)
    assert nss(road.saliency1, road.fixation) == pytest.approx(road.values["NSS(fixation)"], abs=1e-8)


@pytest.mark.shared
def test_auc_judd_is_the_matlab_value_within_its_jitter(road: Road) -> None:
    scores = [auc_judd(road.saliency1, road.fixation, rng(seed)) for seed in range(20)]
    assert np.mean(scores) == pytest.approx(road.values["AUC_Judd(fixation)"], abs=2e-4)
    assert auc_judd(road.saliency1, road.fixation, None) == pytest.approx(0.76067054, abs=1e-7)


@pytest.mark.shared
def test_auc_shuffled_is_the_matlab_value_within_its_sampling(road: Road) -> None:
    score = auc_shuffled(road.saliency1, road.fixation, road.other, rng(), splits=2000)
    assert score == pytest.approx(road.values["AUC_shuffled(fixation,other,10000,step 0.1)"], abs=1e-3)


@pytest.mark.shared
def test_a_larger_prediction_is_resized_as_matlab_does_it(road: Road) -> None:
    prediction = resize_prediction(road.large, road.fixation.shape)
    assert cc(prediction, road.saliency2) == pytest.approx(road.large_values["CC(saliency2)"], abs=2e-6)
    assert sim(prediction, road.saliency2) == pytest.approx(road.large_values["SIM(saliency2)"], abs=2e-6)
    assert nss(prediction, road.fixation) == pytest.approx(road.large_values["NSS"], abs=2e-6)
    assert auc_judd(prediction, road.fixation, None) == pytest.approx(road.large_values["AUC_Judd"], abs=1e-7)


@pytest.mark.shared
def test_kld_of_the_road_pair_is_the_recomputed_value(road: Road) -> None:
    assert kld(road.saliency1, road.saliency2) == pytest.approx(1.00801989, abs=1e-8)


@pytest.mark.shared
def test_pysaliency_agrees_where_its_conventions_do(shared: Path) -> None:
    vectors: dict[str, Any] = json.loads((shared / "reference/metrics/pysaliency_vectors.json").read_text())
    y, x = np.mgrid[:40, :40]
    gaussian = np.exp(-0.5 * ((x - 20.0) ** 2 + (y - 20.0) ** 2) / np.hypot(40, 40))
    per_image, aucs = [], []
    for fixated in vectors["fixations"].values():
        fixations = np.zeros((40, 40), dtype=bool)
        fixations[fixated["y"], fixated["x"]] = True
        per_pixel = [nss(gaussian, one_pixel(at)) for at in zip(fixated["y"], fixated["x"], strict=True)]
        per_image.extend(per_pixel)
        aucs.append(auc_judd(gaussian, fixations, None))
    with_n = math.sqrt(1600 / 1599)  # pysaliency divides by N, the benchmark by N - 1
    assert np.multiply(per_image, with_n) == pytest.approx(vectors["NSS_per_fixation(G)"], abs=1e-9)
    assert kld(gaussian, np.ones((40, 40))) == pytest.approx(
        vectors["KLDiv(pred=G, gt=constant), natural log"], abs=1e-6
    )


def one_pixel(at: tuple[int, int]) -> Mask:
    fixations = np.zeros((40, 40), dtype=bool)
    fixations[at] = True
    return fixations


def judd_by_hand(prediction: Map, fixations: Mask) -> float:
    """AUC-Judd as a loop over thresholds, word for word from its definition."""
    fixated, pixels = sorted(prediction[fixations], reverse=True), prediction.size
    curve = [(0.0, 0.0)]
    for i, threshold in enumerate(fixated, start=1):
        above = int((prediction >= threshold).sum())
        curve.append(((above - i) / (pixels - len(fixated)), i / len(fixated)))
    curve.append((1.0, 1.0))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))


@pytest.mark.parametrize("levels", [3, 20, 10**9], ids=["many ties", "ties", "no ties"])
@pytest.mark.parametrize("count", [1, 2, 30])
def test_auc_judd_equals_a_loop_over_thresholds(levels: int, count: int) -> None:
    for seed in range(10):
        prediction = np.floor(some_map(seed) * levels) / levels
        fixations = some_fixations(seed, count)
        assert auc_judd(prediction, fixations, None) == pytest.approx(judd_by_hand(prediction, fixations), abs=1e-12)


def shuffled_by_hand(prediction: Map, fixations: Mask, other: Mask) -> float:
    """One split of shuffled AUC in which all of `other` is drawn, so that nothing is left to chance."""
    scaled = (prediction - prediction.min()) / (prediction.max() - prediction.min())
    positives, negatives = scaled[fixations], scaled[other]
    fp, tp = [0.0], [0.0]
    for threshold in np.arange(0, max(positives.max(), negatives.max()) + 1e-9, 0.1)[::-1]:
        tp.append(float((positives >= threshold).mean()))
        fp.append(float((negatives >= threshold).mean()))
    return float(np.trapezoid([*tp, 1.0], [*fp, 1.0]))


def test_auc_shuffled_equals_its_definition_when_all_negatives_are_drawn() -> None:
    for seed in range(10):
        prediction, fixations, other = some_map(seed), some_fixations(seed, 20), some_fixations(seed + 50, 7)
        expected = shuffled_by_hand(prediction, fixations, other)
        assert auc_shuffled(prediction, fixations, other, rng(), splits=3) == pytest.approx(expected, abs=1e-12)


def test_the_centre_earns_nothing_from_auc_shuffled_when_everyone_looks_there() -> None:
    centre = centre_prior(SIZE)
    likely = (centre / centre.sum()).ravel().astype(np.float64)
    draws = [rng(seed).choice(likely.size, 30, p=likely / likely.sum()) for seed in range(400)]
    masks = [np.isin(np.arange(likely.size), draw).reshape(SIZE) for draw in draws]
    pairs = list(zip(masks[::2], masks[1::2], strict=True))
    assert np.mean([auc_shuffled(centre, one, two, rng()) for one, two in pairs]) == pytest.approx(0.5, abs=0.02)
    assert np.mean([auc_judd(centre, one, rng()) for one, _ in pairs]) > 0.7


def test_a_perfect_prediction_has_the_best_score_of_every_metric() -> None:
    density, fixations = some_map(), some_fixations()
    assert cc(density, density) == pytest.approx(1)
    assert sim(density, density) == pytest.approx(1)
    assert kld(density, density) == pytest.approx(0, abs=1e-9)
    assert auc_judd(fixations.astype(float), fixations, rng()) == pytest.approx(1)
    assert cc(1 - density, density) == pytest.approx(-1)
    # The worst score is not 0: the curve's first point is at one hit of nine.
    assert auc_judd(1 - fixations.astype(float), fixations, rng()) == pytest.approx(1 / (2 * 9))


def test_no_metric_depends_on_the_scale_of_the_prediction() -> None:
    prediction, density, fixations, other = some_map(1), some_map(2), some_fixations(3), some_fixations(4)
    for metric in (cc, sim, kld):
        assert metric(prediction * 3e-3, density * 200) == pytest.approx(metric(prediction, density), abs=1e-9)
    assert nss(prediction * 7 + 2, fixations) == pytest.approx(nss(prediction, fixations))
    assert auc_judd(prediction * 7, fixations, None) == auc_judd(prediction, fixations, None)
    assert auc_shuffled(prediction * 7, fixations, other, rng()) == pytest.approx(
        auc_shuffled(prediction, fixations, other, rng())
    )


def test_random_metrics_are_a_function_of_their_generator() -> None:
    prediction, fixations = np.round(some_map() * 3) / 3, some_fixations()
    assert auc_judd(prediction, fixations, rng(1)) == auc_judd(prediction, fixations, rng(1))
    assert auc_judd(prediction, fixations, rng(1)) != auc_judd(prediction, fixations, rng(2))


def test_the_jitter_breaks_ties_and_reorders_nothing_else() -> None:
    levels = rng(5).permutation(SIZE[0] * SIZE[1]).reshape(SIZE) / 255.0
    assert auc_judd(levels, some_fixations(), rng()) == auc_judd(levels, some_fixations(), None)


def test_auc_shuffled_draws_as_many_negatives_as_there_are_fixations() -> None:
    prediction, fixated, other = np.array([[0.5, 0.0, 1.0]]), np.array([[1, 0, 0]]), np.array([[0, 1, 1]])
    single_draws = {
        auc_shuffled(prediction, fixated.astype(bool), other.astype(bool), rng(seed), splits=1) for seed in range(20)
    }
    assert single_draws == {1.0, 0.0}, "one fixation: either the low pixel is drawn or the high one, never both"


FLAT = np.full(SIZE, 0.3)
NOBODY = np.zeros(SIZE, dtype=bool)
WITHOUT_VALUE: dict[str, Callable[[], float]] = {
    "cc of a flat prediction": lambda: cc(FLAT, some_map()),
    "cc with an all-zero density": lambda: cc(some_map(), FLAT * 0),
    "sim of a flat prediction": lambda: sim(FLAT, some_map()),
    "sim with an all-zero density": lambda: sim(some_map(), FLAT * 0),
    "nss of a flat prediction": lambda: nss(FLAT, some_fixations()),
    "nss where nobody looked": lambda: nss(some_map(), NOBODY),
    "auc_judd where nobody looked": lambda: auc_judd(some_map(), NOBODY, rng()),
    "auc_judd where everything is fixated": lambda: auc_judd(some_map(), ~NOBODY, rng()),
    "auc_judd of a flat prediction without jitter": lambda: auc_judd(FLAT, some_fixations(), None),
    "auc_shuffled where nobody looked": lambda: auc_shuffled(some_map(), NOBODY, some_fixations(), rng()),
    "auc_shuffled where nobody looked elsewhere": lambda: auc_shuffled(some_map(), some_fixations(), NOBODY, rng()),
    "auc_shuffled of a flat prediction": lambda: auc_shuffled(FLAT, some_fixations(), some_fixations(1), rng()),
    "kld with an all-zero density": lambda: kld(some_map(), FLAT * 0),
    "cc of a prediction with a NaN": lambda: cc(with_nan(), some_map()),
    "sim of a prediction with a NaN": lambda: sim(with_nan(), some_map()),
    "nss of a prediction with a NaN": lambda: nss(with_nan(), some_fixations()),
    "auc_judd of a prediction with a NaN": lambda: auc_judd(with_nan(), some_fixations(), rng()),
    "kld of a prediction with a NaN": lambda: kld(with_nan(), some_map()),
}


def with_nan() -> Map:
    prediction = some_map()
    prediction[3, 4] = np.nan
    return prediction


@pytest.mark.parametrize("case", WITHOUT_VALUE)
def test_where_a_metric_has_no_value_it_is_nan_and_not_zero(case: str) -> None:
    assert math.isnan(WITHOUT_VALUE[case]())


def test_flat_and_empty_predictions_get_the_values_that_are_documented() -> None:
    chance = [auc_judd(FLAT, some_fixations(seed), rng(seed)) for seed in range(200)]
    assert np.mean(chance) == pytest.approx(0.5 + 1 / (2 * 9 + 2), abs=0.02)
    assert 20 < kld(FLAT * 0, some_map()) < 37
    one_point = FLAT * 0
    one_point[5, 5] = 1
    assert 20 < kld(some_map() * 0, one_point) < 37


def test_maps_of_two_sizes_are_refused_and_not_broadcast() -> None:
    for metric in (cc, sim, kld):
        with pytest.raises(ValueError, match="resize_prediction"):
            metric(some_map(), some_map()[:1])
    with pytest.raises(ValueError, match="resize_prediction"):
        nss(some_map(), NOBODY[:, :1])
    with pytest.raises(ValueError, match="resize_prediction"):
        auc_shuffled(some_map(), some_fixations(), some_fixations()[:1], rng())


def test_a_png_prediction_has_its_peak_at_255_and_errs_by_half_a_grey_level() -> None:
    prediction = some_map() * 0.05
    png = quantise_as_png(prediction)
    assert png.dtype == np.uint8
    assert png.max() == 255
    assert np.abs(png / 255.0 - prediction / prediction.max()).max() <= 0.5 / 255 + 1e-12
    assert not quantise_as_png(FLAT * 0).any()


def test_resizing_keeps_the_place_the_scale_and_the_range() -> None:
    wide = centre_prior((48, 80))
    narrow = resize_prediction(wide, (24, 40))
    assert narrow.shape == (24, 40)
    assert narrow.dtype == np.float32
    assert cc(narrow, centre_prior((24, 40))) > 0.999
    assert resize_prediction(np.full((9, 9), 0.37), (5, 31)) == pytest.approx(0.37)
    spot = np.zeros((10, 10))
    spot[5, 5] = 0.8
    enlarged = resize_prediction(spot, (40, 40))
    assert enlarged.min() >= 0
    assert enlarged.max() <= 0.8 + 1e-6
    assert resize_prediction(quantise_as_png(spot), (10, 10)) == pytest.approx(spot / 0.8)


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((64, 64))
    stripes[::2] = 1.0
    assert resize_prediction(stripes, (16, 16)) == pytest.approx(0.5, abs=0.05)


def test_the_centre_prior_is_centred_symmetric_and_stretched() -> None:
    prior = centre_prior((9, 15))
    assert prior.argmax() == 4 * 15 + 7
    assert np.array_equal(prior, prior[::-1, ::-1])
    assert prior.max() == 1
    rows, columns = centre_prior((100, 200))[:, 100], centre_prior((100, 200))[50]
    assert rows[20] == pytest.approx(columns[40], rel=0.05)


def test_the_more_a_peak_is_driven_into_the_sigmoid_the_more_of_it_is_saturated() -> None:
    peak = centre_prior((200, 300))
    shares = [saturated(1 / (1 + np.exp(-(12 * peak + shift)))) for shift in (-14, -12, -9, -6, -3)]
    assert shares[:2] == [0, 0], "a peak of at most 1/2 keeps its shape"
    assert shares[2:] == sorted(shares[2:])
    assert shares[2] == 0 < shares[3] < shares[4] < 1
    assert saturated(peak) == pytest.approx(-np.log2(0.98), abs=1e-3), "a Gaussian of height 1"
    assert saturated(0.97 * peak) == 0
    assert saturated(np.ones(SIZE)) == 1
    assert math.isnan(saturated(np.zeros(SIZE)))


@pytest.mark.shared
def test_the_centre_prior_scores_on_dhf1k_what_was_measured_there(shared: Path) -> None:
    folder = shared / "data" / "dhf1k" / "annotation" / "0002"
    densities = [np.asarray(Image.open(path)) for path in sorted((folder / "maps").glob("*.png"))[15::64]]
    prior = centre_prior(densities[0].shape)
    assert np.mean([cc(prior, density) for density in densities]) == pytest.approx(0.497, abs=0.03)
    assert np.mean([sim(prior, density) for density in densities]) == pytest.approx(0.249, abs=0.03)
