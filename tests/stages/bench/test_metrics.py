"""Metrics are timed only where they agree, and the figures are those of the maps that were asked for."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.bench import metrics as bench
from tinyhd_pipe.stages.bench.matlab_metrics import matlab_scores
from tinyhd_pipe.stages.gaze.auc import auc_judd
from tinyhd_pipe.store.errors import TinyHDError

Map = NDArray[np.float64]


def test_ways_are_timed_on_the_same_maps_and_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "metrics", "--size", "72x128", "--frames", "4", "--rounds", "1", "--json"]) == 0
    said = capsys.readouterr()
    measured = json.loads(said.out)
    assert [way["name"] for way in measured["ways"]] == [
        "MATLAB's loops in NumPy",
        "ours, one thread",
        "ours",
        "ours, as evaluate goes, from files",
    ]
    assert measured["ways"][0]["ratio"] == 1
    assert all(way["frames_a_second"] > 0 for way in measured["ways"])
    assert max(difference for metric, difference in measured["agreement"].items() if metric != "s-AUC") < 1e-6
    assert "pysaliency is not installed" in said.err


def test_another_figure_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def off_by_a_little(*arguments: object) -> dict[str, float]:
        return {**matlab_scores(*arguments), "NSS": matlab_scores(*arguments)["NSS"] + 1e-5}  # type: ignore[arg-type]

    monkeypatch.setattr(bench, "matlab_scores", off_by_a_little)
    with pytest.raises(TinyHDError, match=r"NSS is .* by us and .* by the MATLAB code, .*: nothing was timed"):
        bench.bench_metrics((36, 64), frames=1, rounds=1)


def test_pysaliency_is_compared_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Metrics:
        """Its functions by their definitions, since the package is none of ours."""

        CC = staticmethod(lambda one, other: np.corrcoef(one.ravel(), other.ravel())[0, 1])
        SIM = staticmethod(lambda one, other: np.minimum(one / one.sum(), other / other.sum()).sum())
        NSS = staticmethod(lambda one, xs, ys: (one[ys, xs] - one.mean()) / one.std())
        MIT_KLDiv = staticmethod(lambda one, other: _kld(one, other))

    class Roc:
        @staticmethod
        def general_roc(positives: Map, negatives: Map) -> tuple[float]:
            pairs = positives[:, None] - negatives[None]
            return (float((pairs > 0).mean() + (pairs == 0).mean() / 2),)

    monkeypatch.setattr(bench, "import_module", {"pysaliency.metrics": Metrics, "pysaliency.roc": Roc}.__getitem__)
    measured = bench.bench_metrics((36, 64), frames=2, rounds=1)
    assert measured.missing == ""
    assert [way.name for way in measured.ways][1] == "pysaliency"


def test_a_pysaliency_that_does_not_run_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "import_module", {"pysaliency.metrics": np, "pysaliency.roc": np}.__getitem__)
    measured = bench.bench_metrics((36, 64), frames=1, rounds=1)
    assert measured.missing.startswith("pysaliency is installed and does not run: module 'numpy' has no attribute 'CC'")
    assert "pysaliency" not in [way.name for way in measured.ways]


def _kld(one: Map, other: Map) -> float:
    p, g = one / one.sum(), other / other.sum()
    return float((g * np.log(2.2204e-16 + g / (p + 2.2204e-16))).sum())


def test_the_transcription_is_the_definition() -> None:
    generator = np.random.default_rng(3)
    prediction, density = generator.random((2, 12, 17))
    fixations, other = generator.random((2, 12, 17)) > 0.9
    scored = matlab_scores(prediction, density, fixations, other, 0)
    assert scored["AUC-J"] == pytest.approx(auc_judd(prediction, fixations, None), abs=1e-12)
