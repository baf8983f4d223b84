"""How maps were saved is seen in them: 8 bits, division by the maximum, and what blur they cannot have had."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from tinyhd_pipe.stages.dump.map_traits import traits_of

Maps = list[NDArray[np.float32]]


def _blurred(sigma: float, count: int = 4) -> Maps:
    """Points blurred by a Gaussian, each map divided by its maximum."""
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(count):
        points = np.zeros((120, 160), np.float32)
        points[rng.integers(20, 100, 6), rng.integers(20, 140, 6)] = rng.uniform(0.5, 1, 6)
        blurred = gaussian_filter(points, sigma, truncate=8) if sigma else points + 1e-3
        maps.append((blurred / blurred.max()).astype(np.float32))
    return maps


def _rounded(maps: Maps, levels: int, scale: float = 1) -> Maps:
    return [np.rint(one * levels).astype(np.float32) * np.float32(scale) for one in maps]


@pytest.mark.parametrize(
    ("levels", "scale", "bits"), [(255, 1, 8), (255, 1 / 255, 8), (65535, 1, 16), (65535, 1 / 65535, 16)]
)
def test_values_that_are_levels_of_so_many_bits_are_seen_as_such(levels: int, scale: float, bits: int) -> None:
    traits = traits_of(_rounded(_blurred(5), levels, scale))
    assert (traits.bits, traits.divided_by_maximum) == (bits, True)
    assert f"whole numbers of {levels + 1} levels" in traits.bits_how
    darker = [one * np.float32(share) for one, share in zip(_blurred(5), (0.3, 0.5, 0.7, 1), strict=True)]
    absolute = traits_of(_rounded(darker, levels, scale))
    assert (absolute.bits, absolute.divided_by_maximum) == (bits, False)


def test_floats_are_of_no_bits_and_count_as_divided_only_where_all_have_one_maximum() -> None:
    maps = _blurred(5)
    assert (traits_of(maps).bits, traits_of(maps).divided_by_maximum) == (None, True)
    other = [one * np.float32(factor) for one, factor in zip(maps, (0.31, 0.37, 0.41, 0.43), strict=True)]
    assert not traits_of(other).divided_by_maximum


@pytest.mark.parametrize("sigma", [2.0, 4.0, 7.0])
def test_a_blur_is_bounded_from_above_and_closely_also_through_8_bits(sigma: float) -> None:
    exact, eight_bits = traits_of(_blurred(sigma)).blur, traits_of(_rounded(_blurred(sigma), 255)).blur
    assert exact is not None
    assert eight_bits is not None
    assert sigma <= exact <= 1.3 * sigma
    assert 0.97 * sigma <= eight_bits <= 1.5 * sigma


def test_points_and_noise_had_no_blur() -> None:
    noise = [np.random.default_rng(1).uniform(0.2, 1, (120, 160)).astype(np.float32)]
    assert traits_of(noise).blur is None
    assert traits_of(_rounded(noise, 255)).blur is None
