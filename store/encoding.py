"""Saliency maps as 8-bit logits: how maps become codes, and codes maps again.

A saliency map is trained on as a distribution, so what counts is KL(live || stored) of the normalised maps,
and for that the *relative* error of a pixel matters. Eight bits spread evenly over [0, 1] cost KL 0.126 on
real maps (they peak near 0.05); the same eight bits spread evenly over logits cost 1e-4. Rounding logits to
a grid of step `s` adds noise of variance s^2 / 12 to log p, hence KL <= s^2 / 24: a budget gives the step.

The decision that is not obvious: a pixel keeps the code of the frame before for as long as that is close
enough. An error e in a logit costs p e^2 / 2 of KL, so where the map is faint a larger error costs no more
than half a step does at mean density. Holding such pixels still takes 10 to 40 % off the size of real maps
at equal KL (a sixth on average), and half as much again off the time to decode them. Readers do not have to
know.

Codes are linear in the logit (value = code * scale_factor + add_offset, the names of the CF conventions),
so that any reader of CF data decodes them. What is out of range is clipped: 256 codes span 17.7 logits at a
budget of 2e-4.
"""

import math

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.store.errors import StoreError

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]

CODES = 256
CENTRE = -3.0
"""Logit of the middle code: real maps lie between -11 and 5."""
CHUNK_FRAMES = 8
"""Maps that are encoded together; the first of them holds nothing from before.

Sixteen would take a twentieth off the bytes; eight make random windows of 16 frames a fifth faster to read, and single
frames almost twice as fast.
"""
SMALLEST_STEP = 14.0 / CODES  # a finer grid would clip what real maps contain
LARGEST_TOLERANCE = 1.0  # logits
KL_STEPS = 18.0
"""step^2 / KL: 24 bounds what rounding costs; with what holding adds, real maps had 20 to 37."""
DEFAULT_BUDGET = 2e-4
LARGEST_BUDGET = 0.01  # coarser maps show bands


def step_of_budget(budget: float) -> float:
    """The logit step that, unmeasured, keeps mean KL(live || stored) of real maps within `budget` nats.

    A dump that measures can take a coarser one. Raises `StoreError` where eight bits cannot hold the step
    and the range at once.
    """
    smallest = SMALLEST_STEP**2 / KL_STEPS
    if not smallest <= budget <= LARGEST_BUDGET:
        raise StoreError(
            f"fidelity budget {budget:g}: expected {smallest:.2g} to {LARGEST_BUDGET:g}, what 8-bit maps keep"
        )
    return math.sqrt(KL_STEPS * budget)


def offset_of_step(scale: float, top: float | None = None) -> float:
    """The logit of code 0 such that the middle of the codes lies at `CENTRE`, or the last of them at `top`."""
    return CENTRE - scale * (CODES // 2) if top is None else top - scale * (CODES - 1)


def quantise(logits: Floats, scale: float, offset: float, chunk_frames: int = CHUNK_FRAMES) -> Codes:
    """The codes of consecutive maps, (frame, y, x) to (frame, y, x); out of range is clipped.

    A pixel moves by at most `tolerance` of its map; at the first map of each `chunk_frames` it gets the
    nearest code. All values must be finite.
    """
    steps = (logits - np.float32(offset)) * np.float32(1.0 / scale)
    np.clip(steps, 0, CODES - 1, out=steps)
    codes: Codes = np.rint(steps).astype(np.uint8)
    for frame in range(len(codes)):
        if frame % chunk_frames:
            allowed = tolerance(steps[frame] * np.float32(scale) + np.float32(offset), scale) / np.float32(scale)
            held = np.abs(steps[frame] - codes[frame - 1]) <= allowed
            np.copyto(codes[frame], codes[frame - 1], where=held)
    return codes


def tolerance(logits: Floats, scale: float) -> Floats:
    """How far each pixel of one map (y, x) may be stored from its logit: half a step where it is dense.

    Where it is fainter than its mean, an error costs less: half a step over the root of the density
    relative to the mean, so that every pixel may cost the same KL.
    """
    maps = sigmoid(logits)
    allowed = np.float32(scale / 2) * np.sqrt(maps.mean() / maps)
    bounded: Floats = np.clip(allowed, np.float32(scale / 2), np.float32(max(LARGEST_TOLERANCE, scale / 2)))
    return bounded


def logit_table(scale: float, offset: float) -> Floats:
    """The logit of each of the 256 codes, float32."""
    return (np.arange(CODES) * scale + offset).astype(np.float32)


def map_table(scale: float, offset: float) -> Floats:
    """The map value in (0, 1) of each of the 256 codes, float32."""
    return sigmoid(logit_table(scale, offset))


def pair_table(table: Floats) -> NDArray[np.complex64]:
    """The values of all pairs of codes, (65536,) of two float32 each: half as many look-ups."""
    pairs = np.empty((CODES, CODES, 2), np.float32)  # (second code, first code, value) in little-endian order
    pairs[:, :, 0] = table
    pairs[:, :, 1] = table[:, None]
    return pairs.reshape(-1).view(np.complex64)


def look_up(pairs: NDArray[np.complex64], codes: Codes, out: Floats) -> None:
    """Fill `out` with the values of `codes`; both contiguous and of one shape."""
    flat, values = codes.reshape(-1), out.reshape(-1)
    even = flat.size & ~1
    index = flat[:even].view("<u2")
    np.take(pairs, index, out=values[:even].view(np.complex64), mode="clip")
    if even < flat.size:
        values[even:] = pairs[flat[-1]].real


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) in float32; logits within +-80, which every code is."""
    values = np.negative(logits)
    return sigmoid_of_negative(values)


def sigmoid_of_negative(values: Floats) -> Floats:
    """1 / (1 + exp(x)), in place."""
    np.exp(values, out=values)
    values += np.float32(1.0)
    return np.reciprocal(values, out=values)
