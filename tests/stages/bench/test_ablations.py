"""Ablations: a variant is the recipe but for what it names, compared seed by seed; a kill loses no finished run."""

import json
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.dvc_copies import TINY
from tests.warm_command import WarmCommand
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.bench.ablations import WHOLE, Variant, _row, variants
from tinyhd_pipe.stages.gaze.scoring import METRICS
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.stages.training.checkpoint import first_difference

RECIPE = {**TINY["student_train"], "batch": 4, "decoders": ["d1", "d2"], "unlabelled_per_labelled": 0.5}

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings that take seconds, and nothing of `make run`."""
    folder = tmp_path_factory.mktemp("ablations")
    paths = {name: value for name, value in TINY["data"].items() if isinstance(value, str)}
    nowhere = {name: str(folder / "nowhere" / name) for name in paths}
    settings = {**TINY, "data": nowhere, "student_train": RECIPE, "evaluate": {"every": 31}}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    return folder


def _command(place: Path, out: str, *more: str) -> list[str]:
    return f"bench ablations --out {place / out} --params {place / 'params.yaml'} --json".split() + list(more)


SOME = ("--only", "no-conspicuity", "two-teachers", "assistant", "--seeds", "2")


@pytest.fixture(scope="module")
def measured(place: Path, one_thread: None) -> Path:
    """A folder in which four variants of two seeds have been compared."""
    assert run(_command(place, "whole", *SOME)) == 0
    return place / "whole"


def _facts(folder: Path) -> Mapping[str, Any]:
    return read_weights(folder / "best.safetensors").facts


def _difference(one: Path, other: Path) -> str | None:
    """The first fact, or else the weights, in which two runs differ; None where their files have the same bytes."""
    files = [folder / "best.safetensors" for folder in (one, other)]
    if files[0].read_bytes() == files[1].read_bytes():
        return None
    first, second = map(read_weights, files)
    weights = [name for name, weight in first.state.items() if not torch.equal(weight, second.state[name])]
    return first_difference(dict(first.facts), dict(second.facts)) or f"{len(weights)} weights: {weights[:3]}"


def test_every_run_is_the_recipe_but_for_what_its_variant_names(measured: Path) -> None:
    for seed in (0, 1):
        recipe = dict(_facts(measured / WHOLE / f"seed-{seed}")["recipe"])
        assert recipe["seed"] == seed
        assert recipe["decoders"] == RECIPE["decoders"]
        assert _facts(measured / "no-conspicuity" / f"seed-{seed}")["recipe"] == {**recipe, "conspicuity_weight": 0}
        fused = _facts(measured / "two-teachers" / f"seed-{seed}")
        assert fused["recipe"] == recipe
        taught = _facts(measured / "assistant" / f"seed-{seed}")
        assert taught["recipe"] == recipe
        assert taught["teacher"]["weights_sha256"] == read_weights(measured / "rc1" / "best.safetensors").sha256
        assert "d2" in taught["stores"][0]["levels"], "an assistant has a target for every decoder"
        first, second = (teacher["weights_sha256"] for teacher in fused["teacher"]["fused"])
        assert first == read_weights(measured / "teacher" / "best.safetensors").sha256
        assert second == read_weights(measured / "second" / "best.safetensors").sha256 != first


def test_asked_again_it_makes_what_is_missing_and_nothing_else(
    place: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in measured.rglob("*.safetensors")}
    lost = measured / WHOLE / "seed-1"
    there = json.loads((lost / "figures.json").read_text())
    for path in lost.iterdir():
        path.unlink()
    assert run(_command(place, "whole", *SOME)) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert json.loads((lost / "figures.json").read_text()) == there
    after = {path: path.stat().st_mtime_ns for path in measured.rglob("*.safetensors")}
    assert {path.parent for path in after if after[path] != before[path]} == {lost}

    assert [row["variant"]["name"] for row in rows] == [WHOLE, "no-conspicuity", "two-teachers", "assistant"]
    assert [row["figures"]["CC"][1] for row in rows[:1]] == [there["figures"]["CC"]]
    table = (measured / "ablations.md").read_text().splitlines()
    assert len(table) == 2 + len(rows) + 1
    assert table[3].startswith(f"| no-conspicuity (conspicuity_weight 0) | {rows[1]['mean']['CC']:.3f} ± ")


def _settings_with_data(place: Path, measured: Path, folder: Path, teacher: str) -> None:
    """The same settings, which name clips, a teacher and a store that are there."""
    clips = {"labelled": "train", "unlabelled": "unlabelled", "heldout": "heldout"}
    data = {
        **{name: str(measured / "sample" / split) for name, split in clips.items()},
        "teacher_weights": str(measured / teacher / "best.safetensors"),
        "store": str(measured / "teacher" / "maps.zarr"),
    }
    settings = yaml.safe_load((place / "params.yaml").read_text()) | {"data": data}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))


@pytest.mark.slow
def test_killed_it_goes_on_and_ends_with_the_same_weights(place: Path, measured: Path, tmp_path: Path) -> None:
    _settings_with_data(place, measured, tmp_path, "teacher")
    command = _command(tmp_path, "killed", "--only", "no-conspicuity", "--seeds", "1")
    first, last = (tmp_path / "killed" / variant / "seed-0" for variant in (WHOLE, "no-conspicuity"))
    with WarmCommand() as warm:
        running = warm.start(command, tmp_path / "log")
        running.until(last.exists)
        running.signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        finished = (first / "best.safetensors").stat().st_mtime_ns
        assert not (last / "figures.json").exists(), "it was killed too late to mean anything"
        assert warm.run(command, tmp_path / "log")[0] == 0
    assert (first / "best.safetensors").stat().st_mtime_ns == finished
    for folder in (first, last):
        whole = measured / folder.parent.name / "seed-0"
        assert _difference(folder, whole) is None


def test_what_make_run_left_is_used_where_its_store_is_of_its_teacher(
    place: Path, measured: Path, tmp_path: Path
) -> None:
    _settings_with_data(place, measured, tmp_path, "teacher")
    assert run(_command(tmp_path, "own", "--only", WHOLE, "--seeds", "1")) == 0
    assert not (tmp_path / "own" / "teacher").exists()
    assert _difference(measured / WHOLE / "seed-0", tmp_path / "own" / WHOLE / "seed-0") is None

    _settings_with_data(place, measured, tmp_path, "second")
    assert run(_command(tmp_path, "other", "--only", WHOLE, "--seeds", "1")) == 0
    assert (tmp_path / "other" / "teacher" / "best.safetensors").exists(), "that store is of another teacher"


def test_other_settings_are_refused_in_one_line_that_names_the_first(
    place: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(_command(place, "whole", *SOME, "--set", "student_train.batch=3")) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{WHOLE}/seed-0: holds a run with other settings: recipe.batch = 4, not 3" in said
    assert run(_command(place, "whole", "--only", "no-labels")) == 2
    assert "variant 'no-labels' is not known: expected some of recipe, no-conspicuity" in capsys.readouterr().err


@given(epochs=st.integers(1, 50), share=st.floats(0, 3))
def test_variants_take_as_many_steps_as_the_recipe(epochs: int, share: float) -> None:
    recipe = StudentRecipe(epochs=epochs, unlabelled_per_labelled=share)
    for variant in variants(recipe):
        changed = replace(recipe, **variant.changes)
        drawn = [r.epochs * (1 + r.unlabelled_per_labelled) for r in (recipe, changed)]
        assert abs(drawn[0] - drawn[1]) <= 0.5 + 1e-9, variant.name


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(-0.5, 0.5)), min_size=2, max_size=5))
def test_a_difference_is_taken_seed_by_seed(pairs: list[tuple[float, float]]) -> None:
    whole = [dict.fromkeys(METRICS, figure) for figure, _ in pairs]
    other = [dict.fromkeys(METRICS, figure + more) for figure, more in pairs]
    row = _row(Variant("other", {}), other, whole)
    more = [more for _, more in pairs]
    assert row.difference["CC"] == pytest.approx(np.mean(more), abs=1e-9)
    assert row.difference_spread["NSS"] == pytest.approx(np.std(more, ddof=1), abs=1e-9)
    assert row.spread["NSS"] == pytest.approx(np.std([scores["NSS"] for scores in other], ddof=1), abs=1e-9)
    alone = _row(Variant("other", {}), other[:1], whole[:1])
    assert np.isnan(alone.spread["CC"])
    assert alone.difference["CC"] == pytest.approx(more[0], abs=1e-9)
