"""Offsets give bits to what is looked at and take them elsewhere, by as much as is expected to come out even."""

import numpy as np
import pytest

from tinyhd_pipe.stages.applications.quantisers import (
    Quantising,
    attention,
    expense,
    grid,
    offsets,
    regions,
)

RNG = np.random.default_rng(0)


def _blob(shape: tuple[int, int] = (23, 40)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.exp(-((y - 8) ** 2 + (x - 25) ** 2) / 40)


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("limit", [1.0, 4.0, 12.0])
def test_the_bits_that_are_expected_are_those_without_offsets(strength: float, limit: float) -> None:
    spent = RNG.gamma(1.0, size=(23, 40)) + 0.1
    found = offsets(_blob(), spent, Quantising(strength, limit))
    assert (spent * 2 ** (-found / 6)).sum() == pytest.approx(spent.sum(), rel=1e-6)
    assert np.abs(found).max() <= limit
    order = np.argsort(_blob().ravel())
    assert (np.diff(found.ravel()[order]) <= 1e-9).all(), "the more looked at, the better"
    assert found.min() < 0 < found.max()


@pytest.mark.parametrize("level", [0.0, 0.3])
def test_where_all_blocks_are_looked_at_alike_nothing_is_changed(level: float) -> None:
    assert offsets(np.full((4, 6), level), RNG.random((4, 6)) + 0.1, Quantising()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("size", [(360, 640), (361, 641), (16, 16), (17, 5)])
def test_every_pixel_belongs_to_a_block(size: tuple[int, int]) -> None:
    rows, columns = grid(*size)
    assert rows * 16 >= size[0] > rows * 16 - 16
    assert columns * 16 >= size[1] > columns * 16 - 16
    picture = RNG.integers(0, 255, (*size, 3), dtype=np.uint8)
    assert expense(None, picture).shape == expense(picture, picture).shape == (rows, columns)
    assert attention(RNG.random((24, 32)).astype(np.float32), (rows, columns)).shape == (rows, columns)


def test_bits_are_expected_where_something_is_new() -> None:
    before = np.full((64, 64, 3), 90, np.uint8)
    after = before.copy()
    before[:, :32] = after[:, :32] = RNG.integers(0, 255, (64, 32, 1), dtype=np.uint8)  # is there, and stays
    after[:, 48:] = RNG.integers(0, 255, (64, 16, 1), dtype=np.uint8)
    spent = expense(before, after)
    assert spent[:, 3].min() > 2 * spent[:, 0].max() > 2 * spent[:, 2].max()


def test_regions_painted_one_under_the_other_are_the_offsets() -> None:
    for shape in ((1, 1), (1, 7), (23, 40)):
        steps = np.rint(3 * _blob(shape)).astype(np.int64) - RNG.integers(0, 2, shape)
        found = regions(steps)
        painted = np.full(shape, 99)
        for region in reversed(found):
            painted[region.top : region.bottom, region.left : region.right] = region.offset
        np.testing.assert_array_equal(painted, steps)
        assert len(found) <= steps.size + 1
