"""A page holds what was found, says what was not, and shows nothing of other weights."""

import json
import re
import shutil
from pathlib import Path

import pytest
from markupsafe import escape

from tests.stages.reports.conftest import HOSTILE
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.gaze.evaluation_file import read_evaluation
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.stages.report import Reported, report
from tinyhd_pipe.stages.reports.places import Asked
from tinyhd_pipe.stages.settings.report import ReportOptions

SHORT = ReportOptions(loop_frames=3)


def _page(root: Path, **asked: object) -> tuple[Reported, str]:
    written = report(Asked(root / "runs/student", **asked), root / "page.html", SHORT)  # type: ignore[arg-type]
    return written, written.path.read_text()


def test_a_whole_run_lacks_nothing_and_holds_all_pictures_itself(copied: Path) -> None:
    moved = {"data": copied / "clips", "stores": (str(copied / "maps.zarr"),)}
    written, html = _page(copied, **moved, teacher_weights=copied / "teacher.safetensors")
    assert written.missing == ()
    assert written.bytes == len(html.encode()) < 500_000
    shown = re.findall(r'<img src="(.{30})', html)
    assert len(shown) == 3 * (2 + 5 + 6), "frame and truth, five maps of HD2S, six of a student with D1 and D2"
    assert {start.partition(";")[0] for start in shown} == {"data:image/webp"}
    sizes = re.findall(r'<img src="[^"]+" alt="[^"]+" width="(\d+)" height="(\d+)"', html)
    assert set(sizes) == {("64", "32")}, "maps have the frames' shape, so that places correspond"


def test_figures_are_those_of_the_evaluation(made: Path, tmp_path: Path) -> None:
    kept = read_evaluation(made / "runs/student/evaluation")
    assert kept is not None
    cc = kept.scored.mean["student"]["CC"]
    html = _page_of(made, tmp_path)
    assert f'<td data-metric="CC">{f"{cc:.3f}".replace("0.", ".").replace("-", "−")}' in html
    assert kept.row_of(read_weights(made / "runs/student/best.safetensors").sha256) == "student"
    assert html.count("<polyline") == 2 * 6 + 1, "learned from and left out: density and five levels; and the rate"


def _page_of(root: Path, out: Path) -> str:
    report(Asked(root / "runs/student"), out / "page.html", SHORT)
    return (out / "page.html").read_text()


def test_all_is_found_again_from_where_the_run_was_made(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report(Asked(made / "runs/student"), tmp_path / "page.html", SHORT).missing == ()


def test_names_of_videos_and_terms_are_text_and_nothing_else(made: Path, tmp_path: Path) -> None:
    html = _page_of(made, tmp_path)
    harmful, braces, other = HOSTILE
    for name in (harmful, other, "<img src=x", "<i>mine</i>", "<script"):
        assert name not in html
    for name in (harmful, braces, other, "<i>mine</i>"):
        assert str(escape(name)) in html


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("runs/student/evaluation", "No evaluation of these weights was found; tinyhd-pipe evaluate --weights"),
        ("clips", "the clips that were evaluated are not at"),
        ("maps.zarr", "The store could not be read"),
        ("teacher.safetensors", "The teacher's maps are not shown: --teacher-weights names its weights."),
        ("runs/student/run.json", "The run does not say where its store lies; --store names it."),
        ("runs/student/history.jsonl", "No curves: the run has no history.jsonl"),
        ("runs/student/validation.png", "No picture of clips left out"),
    ],
)
def test_what_is_missing_is_a_sentence_in_its_place(gone: str, said: str, copied: Path) -> None:
    path = copied / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    moved = {"data": copied / "clips", "teacher_weights": None}
    moved["stores"] = () if gone.endswith("run.json") else (str(copied / "maps.zarr"),)  # type: ignore[assignment]
    written, html = _page(copied, **moved)
    assert any(said in line for line in written.missing), written.missing
    assert said in html.replace("&#39;", "'")


def test_an_evaluation_of_other_weights_is_not_shown(copied: Path) -> None:
    best = copied / "runs/student/best.safetensors"
    read = read_weights(best)
    write_weights(best, {name: of + 1 for name, of in read.state.items()}, read.facts)
    written, html = _page(copied)
    assert any("is of other weights; run it again with --weights" in line for line in written.missing)
    assert 'data-metric="CC"' not in html


def test_a_store_of_another_teacher_is_not_shown(copied: Path) -> None:
    best = copied / "runs/student/best.safetensors"
    read = read_weights(best)
    write_weights(best, read.state, {**read.facts, "teacher": {"kind": "hd2s", "weights_sha256": "0" * 64}})
    written, _ = _page(copied, stores=(str(copied / "maps.zarr"),))
    assert any("holds the maps of another teacher" in line for line in written.missing)


def test_what_training_took_and_when_the_dump_has_paid(made: Path, tmp_path: Path) -> None:
    record = json.loads((made / "runs/student/run.json").read_text())
    assert (record["videos"], record["labelled"], record["device"]) == (2, 2, "cpu")
    assert record["seconds"] > 0
    html = report(Asked(made / "runs/student"), tmp_path / "p.html", ReportOptions(loop_frames=3, price=3600.0)).path
    text = html.read_text().replace("&#39;", "'")
    in_loop = 4 * record["samples_an_epoch"]
    assert f"these 4 epochs would have taken {in_loop:,} of its windows; the dump took 60, once." in text
    assert f"as much as {60 / record['samples_an_epoch']:,.1f} epochs with the teacher in the loop" in text
    assert "cost at 3600 an hour" in text


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        ("--run nowhere", 2, "--run nowhere: no run there; give a folder that student-train or teacher-train left"),
        ("--run {run}/best.safetensors", 2, "best.safetensors: is a file; give the folder of the run"),
        ("--run {run} --evaluation {run}", 2, "no evaluation.json there; 'tinyhd-pipe evaluate' leaves it"),
        ("--run {run} --teacher-weights {run}/best.safetensors", 1, "holds a tinyhd network, not hd2s"),
        ("--run {run} --out {run}", 2, "is a folder; name the page in it, as"),
        ("--run {run} --set report.loop_frames=0", 2, "report.loop_frames = 0"),
        (
            "--run {run} --out {run}/best.safetensors/page.html",
            1,
            "best.safetensors: is a file, and a folder is wanted there; give another place",
        ),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str, code: int, line: str, made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(made.rglob("*"))
    assert run(["report", *arguments.format(run=made / "runs/student").split()]) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("tinyhd-pipe: ")
    assert line in said[-1]
    assert sorted(made.rglob("*")) == before
