"""Saliency maps as 8-bit logits: how a map becomes codes, and codes a map again.

A saliency map is trained on as a distribution, so what counts is KL(live || stored) of the normalised maps,
and for that the *relative* error of a pixel matters. Eight bits spread evenly over [0, 1] cost KL 0.126 on
real maps (they peak near 0.05); the same eight bits spread evenly over logits cost 1e-4. Rounding logits to
a grid of step `s` adds noise of variance s^2 / 12 to log p, hence KL <= s^2 / 24: a budget gives the step,
no search is needed.

Codes are linear in the logit (value = code * scale_factor + add_offset, the names of the CF conventions),
so that any reader of CF data decodes them. What is out of range is clipped: 256 codes span 17.7 logits at a
budget of 2e-4.
"""

import math

import numpy as np
import numpy.typing as npt

from tinyhd_pipe.store.errors import StoreError

Codes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CODES = 256
CENTRE = -2.0  # logit of the middle code: real maps lie between -11 and 7
SMALLEST_STEP = 16.0 / CODES  # a finer grid would clip what real maps contain
DEFAULT_BUDGET = 2e-4
LARGEST_BUDGET = 0.01  # coarser maps show bands


def step_of_budget(budget: float) -> float:
    """The logit step that keeps mean KL(live || stored) within `budget` nats.

    KL <= step^2 / 24 (second-order expansion of KL under uniform rounding noise in log p); measured on real
    maps it is 0.67 of that. Raises `StoreError` where eight bits cannot hold the step and the range at
    once.
    """
    smallest = SMALLEST_STEP**2 / 24
    if not smallest <= budget <= LARGEST_BUDGET:
        raise StoreError(
            f"fidelity budget {budget:g}: expected {smallest:.2g} to {LARGEST_BUDGET:g}, what 8-bit maps keep"
        )
    return math.sqrt(24.0 * budget)


def offset_of_step(scale: float) -> float:
    """The logit of code 0 such that the middle of the codes lies at `CENTRE`."""
    return CENTRE - scale * (CODES // 2)


def quantise(logits: Floats, scale: float, offset: float) -> Codes:
    """Logits of any shape to the nearest code; out of range is clipped. All values must be finite."""
    steps = (logits - np.float32(offset)) * np.float32(1.0 / scale)
    np.rint(steps, out=steps)
    np.clip(steps, 0, CODES - 1, out=steps)
    return steps.astype(np.uint8)


def logit_table(scale: float, offset: float) -> Floats:
    """The logit of each of the 256 codes, float32."""
    return (np.arange(CODES) * scale + offset).astype(np.float32)


def map_table(scale: float, offset: float) -> Floats:
    """The map value in (0, 1) of each of the 256 codes, float32."""
    return sigmoid(logit_table(scale, offset))


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) in float32; logits within +-80, which every code is."""
    values = np.negative(logits)
    np.exp(values, out=values)
    values += np.float32(1.0)
    return np.reciprocal(values, out=values)
