"""Saliency metrics of one map: those of the DHF1K benchmark but its two AUC (auc.py), information gain, and whether a
map's peaks have a shape; and how a prediction is brought to the size of the truth.

Each metric is one pure function of a map and of what people looked at. The decision that is not obvious: the
conventions are those of DHF1K's official MATLAB code (which are the MIT benchmark's former ones), because published
figures follow them; where others differ, that is an argument, and protocols.py says who takes which. Where a value does
not exist (nobody looked, a flat map, an empty density) the answer is NaN and never 0, so that a mean over frames has to
leave the frame out on purpose.

Cost: 1 to 5 ms each for a frame of 360x640 on one core.

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
# From here on a sigmoid tells two logits apart no more than 8 bits do: all that is above it looks the same.
SATURATED = 0.98


def cc(prediction: Array, density: Array) -> float:
    """Pearson's correlation coefficient of two maps.

    `prediction` and `density` are (y, x) of any scale. Between -1 and 1; NaN where either map is flat.
    Source: Bylinskii et al. 2019, section 4; the N - 1 of MATLAB's deviations cancels.
    """
    first, second = _pair(prediction, density)
    if is_flat(first) or is_flat(second):
        return float("nan")
    first, second = (first - first.mean()).ravel(), (second - second.mean()).ravel()
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def sim(prediction: Array, density: Array, *, min_max: bool = True) -> float:
    """Similarity: sum of min(p, g), both maps scaled to [0, 1] by minimum and maximum and then to sum 1.

    `prediction` and `density` are (y, x) of any scale; without `min_max` they must not be negative. Between 0 and 1;
    NaN where either map is flat (an all-zero density among them). Source: Bylinskii et al. 2019, section 4; the min-max
    is in the MATLAB code only.
    """
    first, second = _pair(prediction, density)
    if is_flat(first) or is_flat(second):
        return float("nan")
    if min_max:
        first, second = scaled_to_one(first), scaled_to_one(second)
    return float(np.minimum(first / first.sum(), second / second.sum()).sum())


def nss(prediction: Array, fixations: Mask, *, ddof: int = 1) -> float:
    """Normalised scanpath saliency: mean of (p - mean) / deviation at the fixations, deviation by N - `ddof`.

    `prediction` (y, x) of any scale, `fixations` (y, x) true where somebody looked. Unbounded, 0 is chance;
    NaN for a flat prediction and where nobody looked. Source: Peters et al., Vision Research 2005; N - 1 is
    MATLAB's std2, N is NumPy's default.
    """
    values, fixated = pair_with_fixations(prediction, fixations)
    if is_flat(values) or not fixated.any():
        return float("nan")
    return float((values[fixated].mean() - values.mean()) / values.std(ddof=ddof))


def information_gain(prediction: Array, fixations: Mask, baseline: Array) -> float:
    """Information gain over a baseline: mean of log2(eps + p) - log2(eps + b) at the fixations, bits a fixation.

    `prediction` and `baseline` (y, x), not negative, are scaled to sum 1 and nothing else: InfoGain.m of the MIT
    benchmark scales by minimum and maximum first, which makes the lowest pixel impossible. eps = 2.2e-16 as in the
    MATLAB code: a fixation where a map says 0 costs about 35 bits, so maps of 8 bits pay for their zeros. Above 0 where
    the prediction knows more than the baseline; NaN for an all-zero map and where nobody looked. Source: Kümmerer,
    Wallis and Bethge, PNAS 2015; Bylinskii et al. 2019, section 4.
    """
    values, fixated = pair_with_fixations(prediction, fixations)
    expected, _ = pair_with_fixations(baseline, fixations)
    if not _finite(values, expected) or not values.any() or not expected.any() or not fixated.any():
        return float("nan")
    gain = np.log2(EPS + values[fixated] / values.sum()) - np.log2(EPS + expected[fixated] / expected.sum())
    return float(gain.mean())


def kld(prediction: Array, density: Array) -> float:
    """Kullback-Leibler divergence: sum of g log(eps + g / (p + eps)), prediction and density of sum 1.

    `prediction` and `density` are (y, x), not negative. From 0 (equal) up, in nats; an all-zero prediction is
    left unscaled and gives a large finite value (some 20 to 36); NaN for an all-zero density. Source:
    Bylinskii et al. 2019, section 4, with eps = 2.2e-16 as in the MATLAB code.
    """
    predicted, target = _pair(prediction, density)
    if not _finite(predicted, target) or not target.any():
        return float("nan")
    # Where the density is 0, so is the term: densities are 0 nearly everywhere, and a logarithm is dear.
    looked = target > 0
    target, total = target[looked] / target.sum(), predicted.sum()
    predicted = predicted[looked] / (total or 1)
    return float(target @ np.log(EPS + target / (predicted + EPS)))


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
    same_shape(prediction, density)
    return np.asarray(prediction, dtype=np.float64), np.asarray(density, dtype=np.float64)


def pair_with_fixations(prediction: Array, fixations: Mask) -> tuple[NDArray[np.float64], Mask]:
    same_shape(prediction, fixations)
    return np.asarray(prediction, dtype=np.float64), np.asarray(fixations, dtype=bool)


def same_shape(prediction: Array, truth: Array | Mask) -> None:
    if prediction.ndim != 2 or prediction.shape != truth.shape:
        raise ValueError(
            f"prediction {prediction.shape}, truth {truth.shape} must be of one size: see resize_prediction"
        )


def _finite(*maps: NDArray[np.float64]) -> bool:
    return all(bool(np.isfinite(values.min()) and np.isfinite(values.max())) for values in maps)  # NaN spreads to both


def is_flat(values: NDArray[np.float64]) -> bool:
    """Tell whether a map has no order to score: all pixels equal, or some not a number."""
    low, high = values.min(), values.max()
    return not (np.isfinite(low) and np.isfinite(high)) or bool(low == high)


def scaled_to_one(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A map that is not flat, scaled to [0, 1] by its minimum and maximum."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low)
