"""Maps to codes and back: how far a map may move, and that nothing but rounding happens to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyhd_pipe.store.codec import encode_chunk
from tinyhd_pipe.store.encoding import (
    CENTRE,
    CHUNK_FRAMES,
    CODES,
    logit_table,
    map_table,
    offset_of_step,
    quantise,
    step_of_budget,
    tolerance,
)
from tinyhd_pipe.store.errors import StoreError

BUDGETS = st.floats(1.7e-4, 0.01)
VIDEOS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 40), st.integers(1, 4), st.integers(1, 4)),
    elements=st.floats(-9.5, 3.5, width=32),
)


@given(BUDGETS, VIDEOS)
def test_a_logit_in_range_moves_by_at_most_its_tolerance(budget: float, logits: np.ndarray) -> None:
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    stored = logit_table(scale, offset)[quantise(logits, scale, offset)]
    for live, read in zip(logits, stored, strict=True):
        assert (np.abs(read - live) <= tolerance(live, scale) + 1e-4).all()


@given(BUDGETS, VIDEOS)
def test_the_first_map_of_a_chunk_and_every_dense_pixel_move_by_at_most_half_a_step(
    budget: float, logits: np.ndarray
) -> None:
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    error = np.abs(logit_table(scale, offset)[quantise(logits, scale, offset)] - logits)
    maps = 1 / (1 + np.exp(-logits))
    dense = maps >= maps.mean(axis=(1, 2), keepdims=True) * 1.01
    assert (error[::CHUNK_FRAMES] <= scale / 2 + 1e-4).all()
    assert (error[dense] <= scale / 2 + 1e-4).all()


@given(BUDGETS, VIDEOS)
def test_chunks_do_not_depend_on_each_other(budget: float, logits: np.ndarray) -> None:
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    starts = range(0, len(logits), CHUNK_FRAMES)
    apart = [quantise(logits[start : start + CHUNK_FRAMES], scale, offset) for start in starts]
    np.testing.assert_array_equal(quantise(logits, scale, offset), np.concatenate(apart))


@given(BUDGETS, hnp.arrays(np.float32, st.integers(1, 64), elements=st.floats(-10, 4, width=32)))
def test_a_larger_logit_of_a_map_never_gets_a_smaller_code(budget: float, logits: np.ndarray) -> None:
    scale = step_of_budget(budget)
    codes = quantise(np.sort(logits)[None, None], scale, offset_of_step(scale))
    assert (np.diff(codes.astype(int)) >= 0).all()


@given(BUDGETS, VIDEOS)
def test_storing_a_still_map_again_changes_nothing(budget: float, logits: np.ndarray) -> None:
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    still = np.repeat(logits[:1], 16, axis=0)
    codes = quantise(still, scale, offset)
    assert (codes == codes[0]).all()
    np.testing.assert_array_equal(quantise(logit_table(scale, offset)[codes], scale, offset), codes)


@given(BUDGETS)
def test_every_code_decodes_to_a_value_that_gives_it_again(budget: float) -> None:
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    codes = np.arange(CODES, dtype=np.uint8).reshape(1, 16, 16)
    assert (quantise(logit_table(scale, offset)[codes], scale, offset) == codes).all()


@given(BUDGETS)
def test_maps_rise_with_their_code_and_stay_inside_zero_to_one(budget: float) -> None:
    scale = step_of_budget(budget)
    values = map_table(scale, offset_of_step(scale))
    assert values.dtype == np.float32
    assert (np.diff(values) >= 0).all()
    assert values[0] > 0
    assert values[-1] <= 1


def test_what_is_out_of_range_is_clipped() -> None:
    scale = step_of_budget(2e-4)
    offset = offset_of_step(scale)
    assert quantise(np.array([[[-80, CENTRE, 80]]], np.float32), scale, offset).ravel().tolist() == [
        0,
        128,
        255,
    ]
    assert logit_table(scale, offset)[[0, 255]] == pytest.approx([-10.68, 4.62], abs=0.01)


@pytest.mark.parametrize("budget", [0.0, -1.0, 1e-5, 0.02, float("nan")])
def test_a_budget_that_eight_bits_cannot_keep_is_refused(budget: float) -> None:
    with pytest.raises(StoreError, match=r"expected 0\.00017 to 0\.01"):
        step_of_budget(budget)


def wandering_maps(frames: int) -> np.ndarray:
    """A bright spot on its way over a faint, restless background, as logits (frame, y, x)."""
    rng = np.random.default_rng(0)
    time = np.arange(frames)[:, None, None] / frames
    y, x = np.mgrid[0:1:48j, 0:1:64j]
    spot = 5 * np.exp(-((y - time) ** 2 + (x - 0.5) ** 2) * 30)
    return (-6 + spot + np.cumsum(rng.normal(0, 0.02, (frames, 48, 64)), axis=0)).astype(np.float32)


def kl_of_stored(live: np.ndarray, budget: float) -> float:
    """Mean KL(live || stored) in nats."""
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    stored = map_table(scale, offset)[quantise(live, scale, offset)].astype(np.float64)
    maps = 1 / (1 + np.exp(-live.astype(np.float64)))
    maps /= maps.sum(axis=(1, 2), keepdims=True)
    stored /= stored.sum(axis=(1, 2), keepdims=True)
    return float((maps * np.log(maps / stored)).sum(axis=(1, 2)).mean())


@pytest.mark.parametrize("budget", [2e-4, 1e-3])
def test_kl_of_stored_maps_keeps_the_budget(budget: float) -> None:
    assert budget / 4 < kl_of_stored(wandering_maps(64), budget) <= budget


def test_kl_is_far_beyond_the_budget_for_maps_one_frame_off() -> None:
    live = wandering_maps(64)
    scale = step_of_budget(2e-4)
    stored = map_table(scale, offset_of_step(scale))[quantise(live, scale, offset_of_step(scale))]
    maps = 1 / (1 + np.exp(-live))
    shifted = (maps[1:] / maps[1:].sum()) * np.log(maps[1:] / stored[:-1])
    assert shifted.sum() > 5 * 2e-4


def test_holding_faint_pixels_makes_chunks_smaller() -> None:
    live = wandering_maps(CHUNK_FRAMES)
    scale = step_of_budget(2e-4)
    held = quantise(live, scale, offset_of_step(scale))
    nearest = quantise(live, scale, offset_of_step(scale), chunk_frames=1)
    assert len(encode_chunk(held)) < 0.9 * len(encode_chunk(nearest))
