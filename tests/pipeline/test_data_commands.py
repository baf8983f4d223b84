"""The data commands: gaze tables to maps and back, as people type them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.gaze_exports import FPS, SIZE, plain, recording
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.video.writing import write_video


def test_a_table_becomes_a_data_set_and_a_table_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "video").mkdir()
    write_video(tmp_path / "video/001.mp4", np.full((20, *SIZE, 3), 90, np.uint8), fps=FPS)
    (tmp_path / "gaze.csv").write_text(plain(recording(), "001.mp4").replace("x_norm", "rechts"))
    made = ["data", "from-gaze", "gaze.csv", "--videos", "video", "--out", "."]
    made = [str(tmp_path / word) if word in ("gaze.csv", "video", ".") else word for word in made]
    assert run(made) == 1
    assert "no column for x (found: video, observer, time_ms, rechts" in capsys.readouterr().err
    column = ["--column", "x=rechts", "--set", "from_gaze.position_unit=share", "from_gaze.fixations=both"]
    assert run([*made, *column, "--json"]) == 0
    said = capsys.readouterr()
    assert "x rechts" in said.err
    assert "; positions in shares of the picture" in said.err
    assert json.loads(said.out)["videos"] == 1
    assert run(["data", "to-gaze", str(tmp_path), "--out", str(tmp_path / "back.csv"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["points"] > 0
    assert (tmp_path / "back.csv").read_text().startswith("video,frame,x [share],y [share]\n001.mp4,0,")
    assert run([*made, "--column", "x=rechts"]) == 0
    assert "; positions in pixels (shares of the picture: --set" in capsys.readouterr().err, "what nothing says is told"
    assert run([*made, "--column", "x"]) == 2
    assert "--column 'x': expected ROLE=NAME" in capsys.readouterr().err
