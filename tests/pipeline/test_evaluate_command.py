"""What an evaluation is asked for: rows have names that tell them apart, and a mistake is one line."""

from pathlib import Path

import pytest

from tests.moving_dot import SIZE, make_data
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.pipeline.evaluate_command import named
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.store.errors import SettingError


def test_rows_are_named_by_what_tells_their_files_apart() -> None:
    assert named("student", ["runs/student/best.safetensors"]) == {"student": "runs/student/best.safetensors"}
    assert list(named("student", [Path("a/s.pth"), Path("a/m.pth")])) == ["s", "m"]
    assert list(named("student", ["runs/s/best.safetensors", "runs/m/best.safetensors"])) == ["s/best", "m/best"]
    assert list(named("store", ["s3://one/maps.zarr", "s3://two/maps.zarr/"])) == ["one/maps", "two/maps"]
    assert named("maps", []) == {}
    with pytest.raises(SettingError, match="two of them would have one name; give each once"):
        named("maps", ["a/maps", "a/maps"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("", "nothing to score; give --weights, --teacher-weights, --store or --maps"),
        ("--maps nowhere", "nowhere: no such file or folder; expected predicted maps: DIR/001/0001.png"),
        ("--maps nowhere --frames", "--frames: give --out, the folder that holds them"),
        ("--maps nowhere --resume", "--resume: give --out, the folder that holds them"),
        ("--maps nowhere --protocol matlab", "'matlab' is not one of"),
        ("--maps nowhere --set evaluate.first=-1", "evaluate.first = -1"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(f"evaluate --data nowhere {arguments}".split()) == 2
    said = capsys.readouterr().err.strip()
    assert line in said
    assert "\n" not in said


def test_students_stand_side_by_side_and_the_first_is_compared_with_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(tmp_path / "dots", videos=2)
    for seed, name in enumerate("ab"):
        state = TinyHD(reduction=4, outputs=16, seed=seed).state_dict()
        write_weights(tmp_path / f"{name}.safetensors", state, {"kind": "tinyhd", "size": list(SIZE)})
    weights = f"{tmp_path / 'a.safetensors'} {tmp_path / 'b.safetensors'}"
    assert run(f"evaluate --weights {weights} --data {tmp_path / 'dots'} --set evaluate.every=12".split()) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "2 videos, 4 frames; protocol dhf1k, postprocessing none" in said.replace("│", "").replace("  ", " ")
    assert "a − b" in said
    assert "a − centre" not in said, "baselines have rows, and no line of differences"
