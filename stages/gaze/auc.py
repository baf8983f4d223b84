"""Area under the ROC curve of a map: against every other pixel, or against where people looked in other frames.

The decision that is not obvious: three ways to draw the curve are in use, they differ in the third digit, and each is a
named choice here (`Curve`). None of them loops over thresholds: one sort, or one search for every pixel among the few
fixated values, counts them all.

Cost: 5 to 10 ms for a frame of 360x640 on one core, 1 ms for the shuffled one.

Sources: Judd, Durand and Torralba, MIT-CSAIL-TR-2012-001, and AUC_Judd.m and AUC_shuffled.m of the MIT benchmark; Zhang
et al., "SUN", J. of Vision 2008; Kümmerer, Wallis and Bethge, "Saliency benchmarking made easy", ECCV 2018.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.metrics import Array, Mask, is_flat, pair_with_fixations, same_shape, scaled_to_one

Curve = Literal["judd", "distinct", "ranks"]
"""judd: a point for every fixation, the i-th highest with tp = i / fixations, whatever is equal to it; distinct: a
point for every value that is fixated; ranks: the exact area, equal pairs count half and every pixel is a negative."""
# Breaks ties between equal pixels; far below one step of an 8-bit map (4e-3).
JITTER = 1e-7


def auc_judd(
    prediction: Array, fixations: Mask, generator: np.random.Generator | None, *, curve: Curve = "judd"
) -> float:
    """Area under the ROC curve with every fixated value as a threshold and every other pixel as a negative.

    At the i-th highest fixated value, tp = i / fixations and fp = (pixels at or above it - i) / (pixels -
    fixations); trapezoid from (0, 0) to (1, 1). Before that, uniform noise of up to 1e-7 breaks ties, which
    on 8-bit maps moves the score by some .002: give `prediction` (y, x) in [0, 1] then, and a `generator`;
    None leaves the noise out. Other curves: `Curve`.

    `fixations` (y, x) is true where somebody looked. Between 0 and 1; NaN where nobody looked, where
    everything is fixated and for a flat prediction without noise (with noise, a flat prediction is at chance,
    as in MATLAB). Chance is not quite .5 where few looked: it is .5 + 1 / (2 n + 2) for n fixations.
    """
    values, fixated = pair_with_fixations(prediction, fixations)
    if generator is not None:
        values = values + generator.random(values.shape) * JITTER
    hits = int(fixated.sum())
    if hits in (0, values.size) or is_flat(values):
        return float("nan")
    positives = np.sort(values[fixated])
    # The min-max of the MATLAB code is left out: it keeps the order of pixels, and only that counts.
    if curve == "ranks":
        return _area_by_ranks(positives, values.ravel())
    at_or_above = _at_or_above(values, positives)
    rank = np.arange(1, hits + 1)
    if curve == "distinct":
        last = np.append(positives[::-1][1:] != positives[::-1][:-1], True)  # of the equal ones
        at_or_above, rank = at_or_above[last], rank[last]
    return float(_area(fp=(at_or_above - rank) / (values.size - hits), tp=rank / hits))


def auc_shuffled(
    prediction: Array,
    fixations: Mask,
    other: Mask,
    generator: np.random.Generator,
    *,
    splits: int = 100,
    step: float = 0.1,
) -> float:
    """Shuffled AUC: negatives are where people looked in *other* frames, so the centre bias earns nothing.

    The prediction is scaled to [0, 1] by minimum and maximum; each of `splits` splits draws min(fixations,
    other) of the pixels of `other` without replacement; thresholds are 0, `step`, 2 `step` … up to the
    highest value drawn; the score is the mean of the splits' trapezoids.

    `prediction` (y, x) of any scale; `fixations` and `other` (y, x), true where somebody looked in this frame
    and in the other ones (DHF1K: the union of 10 random frames of the evaluated set). Between 0 and 1, chance
    is .5; NaN for a flat prediction and where either mask is empty.
    """
    values, fixated = pair_with_fixations(prediction, fixations)
    same_shape(values, other)
    if is_flat(values) or not fixated.any() or not other.any():
        return float("nan")
    values = scaled_to_one(values)
    positives, pool = values[fixated], values[other.astype(bool)]
    # A threshold above all of a split's values adds the point (0, 0) only, so one list serves every split.
    thresholds = step * np.arange(int(max(positives.max(), pool.max()) / step) + 1)
    # How many thresholds each pixel reaches says all that counts of it.
    reached, drawn_from = (np.searchsorted(thresholds, these, side="right") for these in (positives, pool))
    drawn = generator.permuted(np.tile(drawn_from, (splits, 1)), axis=1)[:, : min(positives.size, pool.size)]
    places = np.arange(len(thresholds), 0, -1)  # highest threshold first
    tp = np.array([(reached >= place).mean() for place in places])
    fp = np.stack([(drawn >= place).mean(axis=1) for place in places], axis=1)  # (split, threshold)
    return float(_area(fp=fp, tp=np.broadcast_to(tp, fp.shape)).mean())


def auc_shuffled_by_ranks(prediction: Array, fixations: Mask, other: Mask) -> float:
    """Shuffled AUC without chance: the exact area with all pixels of `other` as negatives, equal pairs counting half.

    Arguments, range and NaN as in `auc_shuffled`. It is what pysaliency and the MIT/Tübingen benchmark compute; steps
    of .1 see most of a saliency map, whose values lie near 0, as one level.
    """
    values, fixated = pair_with_fixations(prediction, fixations)
    same_shape(values, other)
    if is_flat(values) or not fixated.any() or not other.any():
        return float("nan")
    return _area_by_ranks(values[fixated], values[other.astype(bool)])


def _at_or_above(values: NDArray[np.float64], positives: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many pixels are at or above each of the sorted `positives`, of the highest first."""
    candidates = values[values >= positives[0]]
    passed = np.searchsorted(positives, candidates, side="right")
    return np.cumsum(np.bincount(passed, minlength=len(positives) + 1)[:0:-1])


def _area_by_ranks(positives: NDArray[np.float64], negatives: NDArray[np.float64]) -> float:
    """Share of pairs in which the positive is the higher one; equal ones count half."""
    ordered = np.sort(negatives)
    below, upto = (np.searchsorted(ordered, positives, side=side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(ordered)))


def _area(*, fp: NDArray[np.float64], tp: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under each curve through (0, 0), the points of the last axis and (1, 1) by the trapezoid rule."""
    ends = [(0, 0)] * (fp.ndim - 1) + [(1, 1)]
    fp, tp = (np.pad(rates, ends, constant_values=(0.0, 1.0)) for rates in (fp, tp))
    return np.asarray(np.trapezoid(tp, fp, axis=-1))
