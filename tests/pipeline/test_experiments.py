"""DVC in a git checkout: runs are compared by figure, by setting and by curve, and experiments are kept."""

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from tests.dvc_copies import MAKE_RUN, TINY, copy_project, output_of, stages_run_by, start, write_settings
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.store import open_store

NETWORKS = {"teacher", "student", "teacher_still_frames", "centre_prior"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose commit has the figures of one run, as ours has, and nothing else that a run leaves."""
    folder = copy_project(tmp_path_factory.mktemp("checkout") / "tinyhd-pipe")
    epochs = {group: {**TINY[group], "epochs": 3, "validate_every": 2} for group in ("teacher_train", "student_train")}
    write_settings(folder, {**TINY, **epochs})
    _git(folder, "init", "--quiet")
    output_of(folder, *MAKE_RUN)
    _commit(folder)
    return folder


def _git(folder: Path, *arguments: str) -> str:
    return output_of(folder, "git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", *arguments)


def _commit(folder: Path) -> None:
    _git(folder, "add", ".")
    _git(folder, "reset", "--quiet", "dvc.lock")
    _git(folder, "commit", "--quiet", "--message=A run")


def test_git_has_the_figures_of_a_run_and_none_of_its_data(checkout: Path) -> None:
    kept = set(_git(checkout, "ls-files", "data", "runs", "dvc_plots").split())
    assert kept == {f"runs/evaluation/metrics/{name}.json" for name in NETWORKS}


def test_figures_fit_a_screen_one_row_a_network_and_a_column_a_metric(checkout: Path) -> None:
    header, *rows = output_of(checkout, "dvc", "metrics", "show").splitlines()
    assert header.split() == ["Path", "AUC-J", "CC", "IG", "KLD", "NSS", "SIM", "s-AUC", "saturated"]
    assert {Path(row.split()[0]).stem for row in rows} == NETWORKS
    assert max(map(len, rows)) <= 125


def test_curves_and_videos_are_drawn_with_their_titles_and_axes(checkout: Path) -> None:
    output_of(checkout, "dvc", "plots", "show")
    page = (checkout / "dvc_plots" / "index.html").read_text()
    plots = [json.loads(spec) for spec in re.findall(r"var spec = (\{.*?\});?\s*vegaEmbed", page, re.DOTALL)]
    titles = {plot["title"]["text"]: plot for plot in plots}
    declared = [
        named for plot in yaml.safe_load((checkout / "dvc.yaml").read_text())["plots"] for named in plot.values()
    ]
    assert titles.keys() == {plot["title"] for plot in declared}
    for plot in declared:
        drawn = titles[plot["title"]]
        text = json.dumps(drawn)
        assert f'"title": "{plot["x_label"]}"' in text
        assert f'"title": "{plot["y_label"]}"' in text
        fields = {
            name for of_file in plot["y"].values() for name in ([of_file] if isinstance(of_file, str) else of_file)
        }
        shown = drawn["data"]["values"]
        assert fields <= shown[0].keys()
        assert len(shown) >= len(plot["y"])
        if plot.get("template") == "curves":
            assert {value["field"] for value in shown} == fields
            assert "" in {value["dvc_inferred_y_value"] for value in shown}, "epochs that were not validated"
            assert drawn["transform"][-1] == {"filter": "isValid(datum.nats)"}, "which are no points at zero"


def test_an_experiment_is_run_shown_and_compared_with_what_was_before(checkout: Path) -> None:
    ran = stages_run_by(checkout, "dvc", "exp", "run", "--name", "wider", "-S", "student_train.reduction=2")
    assert ran == {"student_train", "evaluate", "report"}
    settings = output_of(checkout, "dvc", "params", "diff").splitlines()
    assert [line.split() for line in settings[1:]] == [["params.yaml", "student_train.reduction", "4", "2"]]
    figures = output_of(checkout, "dvc", "metrics", "diff").splitlines()
    assert figures[0].split() == ["Path", "Metric", "HEAD", "workspace", "Change"]
    assert {Path(line.split()[0]).stem for line in figures[1:]} == {"student"}
    shown = output_of(checkout, "dvc", "exp", "show", "--only-changed")
    assert "[wider]" in shown
    assert "student.json:CC" in shown
    assert output_of(checkout, "dvc", "status").strip() == "Data and pipelines are up to date."
    (experiment,) = _git(checkout, "for-each-ref", "--format=%(objectname)", "refs/exps/**/wider").split()
    kept = set(_git(checkout, "ls-tree", "-r", "--name-only", experiment, "data", "runs").split())
    assert kept == {f"runs/evaluation/metrics/{name}.json" for name in NETWORKS}, "no maps in git"


def test_an_assistant_between_teacher_and_student_is_switched_on_by_two_settings(checkout: Path) -> None:
    assert "assistant" not in output_of(checkout, "dvc", "stage", "list")
    switched_on = ("-S", "data.assistant=[rc2]", "-S", "data.student_store=data/rc2.zarr")
    forgotten = start(checkout, "dvc", "exp", "run", *switched_on[:2])
    assert "output 'data/maps.zarr' is specified in" in forgotten.communicate()[0], "the assistant needs a store"
    assert forgotten.returncode != 0

    ran = stages_run_by(checkout, "dvc", "exp", "run", "--name", "assisted", *switched_on)
    assert ran == {"assistant_train@rc2", "assistant_dump@rc2", "student_train", "evaluate", "report"}
    teacher, student = (_losses(checkout / "runs" / name) for name in ("rc2", "student"))
    assert student - teacher == {"loss_d2", "loss_d3"}
    assert student >= teacher
    store = open_store(checkout / "data" / "rc2.zarr")
    assert store.levels == ("conspicuity_2", "conspicuity_3", "conspicuity_4", "conspicuity_5", "d2", "d3", "final")
    assert store.info()["teacher"]["weights_sha256"] == read_weights(checkout / "runs/rc2/best.safetensors").sha256
    dag = output_of(checkout, "dvc", "dag", "--dot", "student_train")
    assert '"assistant_dump@rc2" -> "student_train"' in dag
    assert '"teacher_dump" -> "student_train"' not in dag


def _losses(run: Path) -> set[str]:
    with (run / "history.csv").open() as file:
        (*_, last) = csv.DictReader(file)
    return {name for name, value in last.items() if name.startswith("loss_") and value}
