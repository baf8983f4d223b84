"""The MATLAB code of the MIT benchmark, which DHF1K took over, as a plain transcription to NumPy: a loop for a loop.

It is what most evaluation scripts in Python are, and here for comparison alone: `bench metrics` holds ours against it,
figure by figure, before it times both. Written from the metrics' definitions (stages/gaze/metrics.py and auc.py name
the sources), with the loops and full sorts that the MATLAB files have.
"""

import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float64]
Mask = NDArray[np.bool_]
EPS = 2.2e-16


def matlab_scores(prediction: Map, density: Map, fixations: Mask, other: Mask, seed: int) -> dict[str, float]:
    """All metrics of one frame; AUC-Judd without its noise, so that it can be compared to the last digit."""
    return {
        "CC": _cc(prediction, density),
        "SIM": _sim(prediction, density),
        "NSS": _nss(prediction, fixations),
        "AUC-J": _auc_judd(prediction, fixations),
        "s-AUC": _auc_shuffled(prediction, fixations, other, np.random.default_rng(seed)),
        "KLD": _kld(prediction, density),
    }


def _scaled(values: Map) -> Map:
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low)


def _cc(prediction: Map, density: Map) -> float:
    one = (prediction - prediction.mean()) / prediction.std(ddof=1)
    other = (density - density.mean()) / density.std(ddof=1)
    return float(np.corrcoef(one.ravel(), other.ravel())[0, 1])


def _sim(prediction: Map, density: Map) -> float:
    one, other = _scaled(prediction), _scaled(density)
    return float(np.minimum(one / one.sum(), other / other.sum()).sum())


def _nss(prediction: Map, fixations: Mask) -> float:
    return float(((prediction - prediction.mean()) / prediction.std(ddof=1))[fixations].mean())


def _kld(prediction: Map, density: Map) -> float:
    one, other = prediction / prediction.sum(), density / density.sum()
    return float((other * np.log(EPS + other / (one + EPS))).sum())


def _auc_judd(prediction: Map, fixations: Mask) -> float:
    values = _scaled(prediction).ravel()
    thresholds = np.sort(values[fixations.ravel()])[::-1]
    tp, fp = np.zeros(len(thresholds) + 2), np.zeros(len(thresholds) + 2)
    tp[-1] = fp[-1] = 1
    for place, threshold in enumerate(thresholds, start=1):
        above = (values >= threshold).sum()
        tp[place] = place / len(thresholds)
        fp[place] = (above - place) / (values.size - len(thresholds))
    return float(np.trapezoid(tp, fp))


def _auc_shuffled(
    prediction: Map, fixations: Mask, other: Mask, generator: np.random.Generator, splits: int = 100, step: float = 0.1
) -> float:
    values = _scaled(prediction).ravel()
    fixated, places = values[fixations.ravel()], np.flatnonzero(other)
    count = min(len(fixated), len(places))
    areas = np.zeros(splits)
    for split in range(splits):
        drawn = values[generator.permutation(places)[:count]]
        thresholds = np.arange(0, max(fixated.max(), drawn.max()) + 1e-12, step)[::-1]
        tp, fp = np.zeros(len(thresholds) + 2), np.zeros(len(thresholds) + 2)
        tp[-1] = fp[-1] = 1
        for place, threshold in enumerate(thresholds, start=1):
            tp[place] = (fixated >= threshold).sum() / len(fixated)
            fp[place] = (drawn >= threshold).sum() / count
        areas[split] = np.trapezoid(tp, fp)
    return float(areas.mean())
