"""The six saliency metrics of the DHF1K benchmark, how a prediction is brought to them, and whether it has a shape.

Each metric is one pure function of a map and of what people looked at. The decision that is not obvious: the
conventions are those of DHF1K's official MATLAB code (which are the MIT benchmark's), because published
figures follow them. Other libraries differ: pysaliency's NSS divides by N and not by N - 1, its SIM skips the
min-max. Where a value does not exist (nobody looked, a flat map, an empty density) the answer is NaN and
never 0, so that a mean over frames has to leave the frame out on purpose.

Cost: 1 to 15 ms each for a frame of 360x640 on one core, most for the two AUC.

Sources: Bylinskii et al., "What do different evaluation metrics tell us about saliency models?", PAMI 2019;
Judd, Durand and Torralba, MIT-CSAIL-TR-2012-001; Wang et al., "Revisiting video saliency prediction", PAMI
2019 (DHF1K).
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.floating] | NDArray[np.uint8]
Mask = NDArray[np.bool_]

# MATLAB's eps: part of the published KLD, where it stands for log 0 and for division by 0.
EPS = 2.2e-16
# Breaks ties between equal pixels; far below one step of an 8-bit map (4e-3).
JITTER = 1e-7
# From here on a sigmoid tells two logits apart no more than 8 bits do: all that is above it looks the same.
SATURATED = 0.98


def cc(prediction: Array, density: Array) -> float:
    """Pearson's correlation coefficient of two maps.

    `prediction` and `density` are (y, x) of any scale. Between -1 and 1; NaN where either map is flat.
    Source: Bylinskii et al. 2019, section 4; the N - 1 of MATLAB's deviations cancels.
    """
    first, second = _pair(prediction, density)
    if _flat(first) or _flat(second):
        return float("nan")
    first, second = first - first.mean(), second - second.mean()
    return float((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))


def sim(prediction: Array, density: Array) -> float:
    """Similarity: sum of min(p, g), both maps scaled to [0, 1] by minimum and maximum and then to sum 1.

    `prediction` and `density` are (y, x) of any scale. Between 0 and 1; NaN where either map is flat (an
    all-zero density among them). Source: Bylinskii et al. 2019, section 4; the min-max is in the MATLAB code
    only.
    """
    first, second = _pair(prediction, density)
    if _flat(first) or _flat(second):
        return float("nan")
    first, second = _min_max(first), _min_max(second)
    return float(np.minimum(first / first.sum(), second / second.sum()).sum())


def nss(prediction: Array, fixations: Mask) -> float:
    """Normalised scanpath saliency: mean of (p - mean) / deviation at the fixations, deviation by N - 1.

    `prediction` (y, x) of any scale, `fixations` (y, x) true where somebody looked. Unbounded, 0 is chance;
    NaN for a flat prediction and where nobody looked. Source: Peters et al., Vision Research 2005; N - 1 is
    MATLAB's std2.
    """
    values, fixated = _pair_with_fixations(prediction, fixations)
    if _flat(values) or not fixated.any():
        return float("nan")
    return float(((values - values.mean()) / values.std(ddof=1))[fixated].mean())


def auc_judd(prediction: Array, fixations: Mask, generator: np.random.Generator | None) -> float:
    """Area under the ROC curve with every fixated value as a threshold and every other pixel as a negative.

    At the i-th highest fixated value, tp = i / fixations and fp = (pixels at or above it - i) / (pixels -
    fixations); trapezoid from (0, 0) to (1, 1). Before that, uniform noise of up to 1e-7 breaks ties, which
    on 8-bit maps moves the score by some .002: give `prediction` (y, x) in [0, 1] then, and a `generator`;
    None leaves the noise out.

    `fixations` (y, x) is true where somebody looked. Between 0 and 1; NaN where nobody looked, where
    everything is fixated and for a flat prediction without noise (with noise, a flat prediction is at chance,
    as in MATLAB). Chance is not quite .5 where few looked: it is .5 + 1 / (2 n + 2) for n fixations. Source:
    Judd et al. 2012, AUC_Judd.m of the MIT benchmark.
    """
    values, fixated = _pair_with_fixations(prediction, fixations)
    if generator is not None:
        values = values + generator.random(values.shape) * JITTER
    hits = int(fixated.sum())
    if hits in (0, values.size) or _flat(values):
        return float("nan")
    # The min-max of the MATLAB code is left out: it keeps the order of pixels, and only that counts.
    thresholds = np.sort(values[fixated])
    passed = np.searchsorted(thresholds, values.ravel(), side="right")
    at_or_above = np.cumsum(np.bincount(passed, minlength=hits + 1)[:0:-1])  # highest threshold first
    rank = np.arange(1, hits + 1)
    return _area(fp=(at_or_above - rank) / (values.size - hits), tp=rank / hits)


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
    is .5; NaN for a flat prediction and where either mask is empty. Source: Zhang et al., J. of Vision 2008;
    AUC_shuffled.m of the MIT benchmark.
    """
    values, fixated = _pair_with_fixations(prediction, fixations)
    _same_shape(values, other)
    if _flat(values) or not fixated.any() or not other.any():
        return float("nan")
    values = _min_max(values)
    positives, pool = values[fixated], values[other.astype(bool)]
    negatives = generator.permuted(np.tile(pool, (splits, 1)), axis=1)[:, : min(positives.size, pool.size)]
    highest = max(positives.max(), negatives.max())
    # A threshold above all of a split's values adds the point (0, 0) only, so one list serves every split.
    thresholds = step * np.arange(int(highest / step), -1, -1)
    tp = (positives >= thresholds[:, None]).mean(axis=1)
    areas = [_area(fp=(drawn >= thresholds[:, None]).mean(axis=1), tp=tp) for drawn in negatives]
    return float(np.mean(areas))


def kld(prediction: Array, density: Array) -> float:
    """Kullback-Leibler divergence: sum of g log(eps + g / (p + eps)), prediction and density of sum 1.

    `prediction` and `density` are (y, x), not negative. From 0 (equal) up, in nats; an all-zero prediction is
    left unscaled and gives a large finite value (some 20 to 36); NaN for an all-zero density. Source:
    Bylinskii et al. 2019, section 4, with eps = 2.2e-16 as in the MATLAB code.
    """
    predicted, target = _pair(prediction, density)
    if not _finite(predicted, target) or not target.any():
        return float("nan")
    predicted = predicted / predicted.sum() if predicted.any() else predicted
    target = target / target.sum()
    return float((target * np.log(EPS + target / (predicted + EPS))).sum())


def quantise_as_png(prediction: Array) -> NDArray[np.uint8]:
    """Bring a prediction to the 8 bits of the picture file that the benchmark takes.

    `prediction` (y, x), not negative, is divided by its maximum first, because saliency maps peak near 0.05
    and would otherwise keep a dozen grey levels; an all-zero map stays zero. Returns uint8 (y, x). No metric
    but AUC depends on the scale, so the division changes only the rounding.
    """
    values = np.asarray(prediction, dtype=np.float64)
    peak = values.max()
    return np.rint(values * (255.0 / peak if peak > 0 else 0.0)).clip(0, 255).astype(np.uint8)


def resize_prediction(prediction: Array, size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a prediction to the ground truth's `size` (height, width): bicubic, antialiased.

    `prediction` (y, x): uint8 (see `quantise_as_png`) is divided by 255 first, float keeps its scale. Returns
    float32 (y, x) within the range of the input: what the cubic overshoots is cut. Never resize the ground
    truth instead: it loses fixations. Source: `imresize`, which the MATLAB code calls with its defaults;
    Pillow's kernel is the same (a = -1/2).
    """
    values = np.asarray(prediction, dtype=np.float32)
    if prediction.dtype == np.uint8:
        values = values / np.float32(255)
    if values.shape == tuple(size):
        return values
    picture = Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(picture).clip(values.min(), values.max())


def centre_prior(size: tuple[int, int], *, sigma: float = 0.15) -> NDArray[np.float32]:
    """Return the baseline that looks at the middle: a Gaussian of peak 1, deviation `sigma` times each side.

    `size` is (height, width); the Gaussian is stretched to the picture's shape, as the MIT benchmark's centre
    baseline is. The default suits DHF1K best on the whole (CC .49 and .39 on videos 002 and 300). Returns
    float32 (y, x).
    """
    rows, columns = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (sigma * n)) ** 2) for n in size)
    return np.outer(rows, columns).astype(np.float32)


def saturated(prediction: Array) -> float:
    """Share of a map's peak that is cut off flat: of its pixels above half the maximum, those above .98.

    `prediction` (y, x) in [0, 1], as the network gave it. Between 0 and 1; a Gaussian of height 1 has .029, a map that
    stays below .98 has 0; NaN for an all-zero map. Ours, not DHF1K's: the other metrics ask for order or for the shape
    of the whole map, and a network may do well by them while its peaks are plateaus.
    """
    values = np.asarray(prediction, dtype=np.float64)
    peak = values[values > values.max() / 2]
    return float((peak > SATURATED).mean()) if peak.size else float("nan")


def _pair(prediction: Array, density: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _same_shape(prediction, density)
    return np.asarray(prediction, dtype=np.float64), np.asarray(density, dtype=np.float64)


def _pair_with_fixations(prediction: Array, fixations: Mask) -> tuple[NDArray[np.float64], Mask]:
    _same_shape(prediction, fixations)
    return np.asarray(prediction, dtype=np.float64), np.asarray(fixations, dtype=bool)


def _same_shape(prediction: Array, truth: Array | Mask) -> None:
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape}, truth {truth.shape} must be of one size: see resize_prediction"
        )


def _finite(*maps: NDArray[np.float64]) -> bool:
    return all(bool(np.isfinite(values).all()) for values in maps)


def _flat(values: NDArray[np.float64]) -> bool:
    """Tell whether a map has no order to score: all pixels equal, or some not a number."""
    return not _finite(values) or bool(values.max() == values.min())


def _min_max(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low)


def _area(*, fp: NDArray[np.float64], tp: NDArray[np.float64]) -> float:
    """Area under the curve through (0, 0), the given points and (1, 1) by the trapezoid rule."""
    return float(np.trapezoid(np.concatenate([[0.0], tp, [1.0]]), np.concatenate([[0.0], fp, [1.0]])))
