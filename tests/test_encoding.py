"""Maps to codes and back: how far a map may move, and that nothing but rounding happens to it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyhd_pipe.store.encoding import (
    CODES,
    logit_table,
    map_table,
    offset_of_step,
    quantise,
    step_of_budget,
)
from tinyhd_pipe.store.errors import StoreError

BUDGETS = st.floats(1.7e-4, 0.01)
LOGITS = hnp.arrays(np.float32, st.integers(1, 64), elements=st.floats(-10, 6, width=32))


@given(BUDGETS, LOGITS)
def test_a_logit_in_range_moves_by_at_most_half_a_step(budget: float, logits: np.ndarray) -> None:
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    stored = logit_table(scale, offset)[quantise(logits, scale, offset)]
    assert np.abs(stored - logits).max() <= scale / 2 + 1e-5


@given(BUDGETS, LOGITS)
def test_a_larger_logit_never_gets_a_smaller_code(budget: float, logits: np.ndarray) -> None:
    scale = step_of_budget(budget)
    codes = quantise(np.sort(logits), scale, offset_of_step(scale))
    assert (np.diff(codes.astype(int)) >= 0).all()


@given(BUDGETS)
def test_every_code_decodes_to_a_value_that_gives_it_again(budget: float) -> None:
    scale = step_of_budget(budget)
    offset = offset_of_step(scale)
    codes = np.arange(CODES, dtype=np.uint8)
    assert (quantise(logit_table(scale, offset), scale, offset) == codes).all()


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
    assert quantise(np.array([-80, 80], np.float32), scale, offset).tolist() == [0, 255]
    assert logit_table(scale, offset)[[0, 255]] == pytest.approx([-10.87, 6.8], abs=0.01)


@pytest.mark.parametrize("budget", [0.0, -1.0, 1e-5, 0.02, float("nan")])
def test_a_budget_that_eight_bits_cannot_keep_is_refused(budget: float) -> None:
    with pytest.raises(StoreError, match=r"expected 0\.00016 to 0\.01"):
        step_of_budget(budget)


def test_kl_of_rounded_maps_stays_within_the_budget() -> None:
    rng = np.random.default_rng(0)
    for budget in (2e-4, 1e-3):
        scale = step_of_budget(budget)
        offset = offset_of_step(scale)
        logits = rng.normal(-4, 1.5, (8, 4096)).astype(np.float32)
        live = 1 / (1 + np.exp(-logits.astype(np.float64)))
        stored = map_table(scale, offset)[quantise(logits, scale, offset)].astype(np.float64)
        live /= live.sum(1, keepdims=True)
        stored /= stored.sum(1, keepdims=True)
        assert (live * np.log(live / stored)).sum(1).mean() <= budget
