"""The figures of an evaluation as files: what other tools read is what was measured."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

from tinyhd_pipe.stages.gaze.evaluation_file import Scored, Setting, read_evaluation, write_evaluation
from tinyhd_pipe.stages.gaze.figures import Evaluation, write_figures
from tinyhd_pipe.stages.gaze.intervals import Difference
from tinyhd_pipe.stages.gaze.scoring import METRICS
from tinyhd_pipe.stages.gaze.truth import LeftOut

SCORES = dict(zip(METRICS, (0.8, 0.6, 3.5, 0.95, 0.7, 0.6, 1.2, 0.1), strict=True))
UNRECORDED = {**SCORES, **dict.fromkeys(("NSS", "AUC-J", "s-AUC", "IG"), math.nan)}
SCORED = Evaluation(
    mean={"teacher": SCORES, "teacher, still frames": UNRECORDED},
    videos={
        "teacher": {"001.mp4": SCORES, "a, b/002.mp4": UNRECORDED},
        "teacher, still frames": {"001.mp4": UNRECORDED, "a, b/002.mp4": UNRECORDED},
    },
    frames=40,
)


def test_means_are_one_flat_file_a_network_with_null_where_nothing_was_recorded(tmp_path: Path) -> None:
    write_figures(SCORED, tmp_path)
    files = {path.name: json.loads(path.read_text()) for path in (tmp_path / "metrics").iterdir()}
    assert files == {
        "teacher.json": SCORES,
        "teacher_still_frames.json": {**SCORES, **dict.fromkeys(("NSS", "AUC-J", "s-AUC", "IG"))},
    }


def test_videos_are_one_table_a_network_with_nothing_where_nothing_was_recorded(tmp_path: Path) -> None:
    write_figures(SCORED, tmp_path)
    with (tmp_path / "videos" / "teacher.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("video") for row in rows] == ["001.mp4", "a, b/002.mp4"]
    assert {name: float(value) for name, value in rows[0].items()} == SCORES
    assert (rows[1]["NSS"], rows[1]["AUC-J"], float(rows[1]["CC"])) == ("", "", SCORES["CC"])
    assert (tmp_path / "videos" / "teacher_still_frames.csv").exists()


def test_a_second_evaluation_takes_the_place_of_the_first_and_leaves_nothing_beside(tmp_path: Path) -> None:
    write_figures(Evaluation({"teacher": UNRECORDED}, {"teacher": {}}, 0), tmp_path)
    write_figures(SCORED, tmp_path)
    assert json.loads((tmp_path / "metrics" / "teacher.json").read_text()) == SCORES
    assert not list(tmp_path.rglob("*.partial"))


def test_an_evaluation_is_read_back_as_it_was_what_does_not_exist_included(tmp_path: Path) -> None:
    whole = replace(
        SCORED,
        intervals={"teacher": {"CC": (0.7, 0.9), "NSS": (math.nan, math.nan)}},
        differences=(Difference("teacher", "teacher, still frames", "CC", 0.1, (0.05, 0.2), math.nan, 1),),
        left_out=(LeftOut("001.mp4", 2, 9, "are black"),),
        problems={"003.mp4": "does not decode"},
    )
    setting = Setting({"teacher": Scored("hd2s", "t.pt", "abc")}, {"data": ["clips"]}, "/home")
    write_evaluation(whole, setting, tmp_path)
    read = read_evaluation(tmp_path)
    assert read is not None
    assert str(read.scored) == str(whole), "NaN is not equal to itself, and is written as nan"
    assert read.setting == setting
    assert (read.row_of("abc"), read.row_of("abd")) == ("teacher", None)
    (tmp_path / "evaluation.json").write_text('{"version": 0}')
    assert read_evaluation(tmp_path) is None
