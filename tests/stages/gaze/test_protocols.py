"""Protocols are what their sources compute: numbers of pysaliency 0.2.22 kept here, and definitions written out."""

import math
from dataclasses import fields, replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.auc import auc_judd, auc_shuffled_by_ranks
from tinyhd_pipe.stages.gaze.metrics import cc, centre_prior, information_gain, kld, nss, sim
from tinyhd_pipe.stages.gaze.protocols import PROTOCOLS, Protocol
from tinyhd_pipe.stages.gaze.scoring import METRICS, Scores, Truth, mean_over_videos, scores_of
from tinyhd_pipe.stages.settings.evaluate import ProtocolName

Map = NDArray[np.float64]
Y, X = np.mgrid[:48, :64].astype(float)
PREDICTION = (
    np.exp(-((X - 40) ** 2 + (Y - 20) ** 2) / 200)
    + 0.3 * np.exp(-((X - 12) ** 2 + (Y - 30) ** 2) / 90)
    + 0.02 * (1 + np.sin(0.7 * X) * np.cos(0.5 * Y))
)
DENSITY = np.exp(-((X - 36) ** 2 + (Y - 22) ** 2) / 120) + 0.2 * np.exp(-((X - 15) ** 2 + (Y - 28) ** 2) / 60)
LOOKED = ((20, 41), (22, 37), (18, 44), (29, 14), (25, 33), (10, 50), (40, 8))
ELSEWHERE = ((24, 32), (23, 30), (5, 5), (30, 60), (20, 20), (26, 35), (44, 40), (12, 33), (28, 16))
PYSALIENCY = {
    "CC": 0.8824342580577058,
    "SIM": 0.7276235522716503,
    "NSS": 1.6127766190940804,
    "KLD": 0.22332854362460908,
    "AUC-J": 0.8282877604166666,  # its AUC against all pixels
    "s-AUC": 0.746031746031746,
    "IG": 0.9214866736239803,
}
"""Of its functions NSS, CC, SIM, MIT_KLDiv and general_roc, and what its information_gains says, on these maps."""
PYSALIENCY_JUDD = 0.8745513866231647
"""Its general_roc with judd=1, against the pixels that are not fixated, without noise."""
PYSALIENCY_TIES = {"ranks": 0.829892113095238, "shuffled": 0.746031746031746}
"""Of the same prediction in steps of 1/20."""


def _mask(points: tuple[tuple[int, int], ...]) -> NDArray[np.bool_]:
    mask = np.zeros(PREDICTION.shape, bool)
    mask[tuple(np.transpose(points))] = True
    return mask


FIXATIONS, OTHER = _mask(LOOKED), _mask(ELSEWHERE)
TRUTH = Truth(DENSITY.astype(np.float32), FIXATIONS, OTHER)


def _scores(protocol: Protocol, seed: int = 0) -> Scores:
    return scores_of(PREDICTION.astype(np.float32), TRUTH, protocol, np.random.default_rng(seed))


def test_the_mit_protocol_gives_what_pysaliency_gives() -> None:
    scored = _scores(PROTOCOLS["mit"])
    assert {metric: scored[metric] for metric in PYSALIENCY} == pytest.approx(PYSALIENCY, abs=2e-6)
    exact = {
        "CC": cc(PREDICTION, DENSITY),
        "SIM": sim(PREDICTION, DENSITY, min_max=False),
        "NSS": nss(PREDICTION, FIXATIONS, ddof=0),
        "KLD": kld(PREDICTION, DENSITY),
        "IG": information_gain(PREDICTION, FIXATIONS, centre_prior(PREDICTION.shape)),
    }
    assert exact == pytest.approx({metric: PYSALIENCY[metric] for metric in exact}, abs=1e-7)


def test_ranks_are_pysaliencys_ties_and_all() -> None:
    stepped = np.round(PREDICTION * 20) / 20
    assert auc_judd(PREDICTION, FIXATIONS, None) == pytest.approx(PYSALIENCY_JUDD, abs=1e-12)
    assert auc_judd(stepped, FIXATIONS, None, curve="ranks") == pytest.approx(PYSALIENCY_TIES["ranks"], abs=1e-12)
    assert auc_shuffled_by_ranks(stepped, FIXATIONS, OTHER) == pytest.approx(PYSALIENCY_TIES["shuffled"], abs=1e-12)


def _distinct_by_hand(prediction: Map, fixations: NDArray[np.bool_]) -> float:
    """A point for every value that is fixated, from the sets themselves."""
    positives, negatives = prediction[fixations], prediction[~fixations]
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(positives.tolist()), reverse=True):
        curve.append((float((negatives >= threshold).mean()), float((positives >= threshold).mean())))
    curve.append((1.0, 1.0))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(curve))


@pytest.mark.parametrize("steps", [4, 20, 10**6])
def test_the_distinct_curve_has_a_point_for_every_fixated_value(steps: int) -> None:
    prediction = np.round(PREDICTION * steps) / steps
    expected = _distinct_by_hand(prediction, FIXATIONS)
    assert auc_judd(prediction, FIXATIONS, None, curve="distinct") == pytest.approx(expected, abs=1e-12)


def test_the_noise_is_all_that_chance_adds_to_dhf1ks_auc() -> None:
    with_noise = _scores(PROTOCOLS["dhf1k"])["AUC-J"]
    assert with_noise == pytest.approx(PYSALIENCY_JUDD, abs=1e-4)
    assert _scores(replace(PROTOCOLS["dhf1k"], noise=False))["AUC-J"] == pytest.approx(PYSALIENCY_JUDD, abs=2e-6)


def test_shuffled_auc_is_a_function_of_its_seed() -> None:
    ones = [_scores(PROTOCOLS["dhf1k"], seed)["s-AUC"] for seed in (1, 1, 2)]
    assert ones[0] == ones[1] != ones[2]


@pytest.mark.parametrize(
    ("convention", "other", "metric"),
    [
        ("nss_ddof", 0, "NSS"),
        ("sim_min_max", False, "SIM"),
        ("auc", "ranks", "AUC-J"),
        ("noise", False, "AUC-J"),
        ("shuffled", "ranks", "s-AUC"),
    ],
)
def test_each_convention_moves_its_metric_and_no_other(convention: str, other: object, metric: str) -> None:
    stepped = (np.round(PREDICTION * 20) / 20).astype(np.float32)
    plain = replace(PROTOCOLS["dhf1k"], shuffled="ranks") if convention == "noise" else PROTOCOLS["dhf1k"]
    one, two = (
        scores_of(stepped, TRUTH, protocol, np.random.default_rng(0))
        for protocol in (plain, replace(plain, **{convention: other}))
    )
    moved = {name for name in METRICS[:-1] if one[name] != two[name]}
    # Without noise before them, the same generator gives shuffled AUC other splits.
    assert moved - ({"s-AUC"} if convention == "noise" else set()) == {metric}


def test_a_long_video_weighs_more_over_frames_and_as_much_over_videos() -> None:
    nothing = dict.fromkeys(METRICS, math.nan)
    scored = {"long": [{**nothing, "CC": 0.2}] * 9 + [nothing], "short": [{**nothing, "CC": 1.0}]}
    assert mean_over_videos(scored, PROTOCOLS["dhf1k"])["CC"] == pytest.approx(0.28)
    assert mean_over_videos(scored, PROTOCOLS["tinyhd"])["CC"] == pytest.approx(0.6)
    assert math.isnan(mean_over_videos(scored, PROTOCOLS["tinyhd"])["NSS"])


def test_every_protocol_has_a_source_and_no_two_are_the_same() -> None:
    assert set(PROTOCOLS) == set(get_args(ProtocolName))
    assert all(protocol.source for protocol in PROTOCOLS.values())
    conventions = [
        tuple(getattr(protocol, field.name) for field in fields(Protocol) if field.name != "source")
        for protocol in PROTOCOLS.values()
    ]
    assert len(set(conventions)) == len(conventions)


def test_information_gain_is_in_bits_over_the_baseline() -> None:
    baseline = np.ones(PREDICTION.shape)
    assert information_gain(baseline, FIXATIONS, baseline) == 0
    twice = np.where(X < 32, 3.0, 1.0)  # 3/2 of the baseline on the left, 1/2 on the right
    left, right = X < 8, X > 56
    assert information_gain(twice, left, baseline) == pytest.approx(math.log2(1.5))
    assert information_gain(twice, right, baseline) == pytest.approx(-1)
    assert information_gain(twice * 7, right, baseline) == pytest.approx(-1)
    zero = np.where(X < 32, 1.0, 0.0)
    assert information_gain(zero, right, baseline) < -35
    assert math.isnan(information_gain(zero * 0, right, baseline))
    assert math.isnan(information_gain(zero, left & right, baseline))
