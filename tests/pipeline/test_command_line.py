"""The command line: what people type wrong costs them one line, an exit code, and nothing else."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.moving_dot import SIZE, make_data, make_store
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.writing import write_video


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that a command may be pointed at, good and bad."""
    root = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)
    (root / "videos").mkdir()
    write_video(root / "videos" / "good.mp4", rng.integers(0, 255, (20, 32, 64, 3), dtype=np.uint8))
    (root / "nothing").mkdir()
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("not a video")
    (root / "file").write_text("a file where a folder should be")
    small = {"kind": "hd2s", "size": list(SIZE)}
    write_weights(root / "hd2s.safetensors", HD2S(width=0.0625).state_dict(), small)
    write_weights(root / "tinyhd.safetensors", TinyHD(reduction=4).state_dict(), {**small, "kind": "tinyhd"})
    (root / "misspelt.yaml").write_text("student_train:\n  learning_rat: 0.1\n")
    (root / "range.yaml").write_text("teacher_dump:\n  fidelity: -1\n")
    (root / "list.yaml").write_text("- 1\n- 2\n")
    (root / "number.yaml").write_text("student_train: 5\n")
    (root / "broken.yaml").write_text("student_train: [1\n")
    make_data(root / "dots", videos=2)
    make_store(root / "dots.zarr", find_videos([root / "dots" / "video"]))
    for damaged, file in (("rootless.zarr", "zarr.json"), ("bent.zarr", "shards/00000/zarr.json")):
        shutil.copytree(root / "dots.zarr", root / damaged)
        (root / damaged / file).write_text("{}")
    (root / "deep.zarr").mkdir()
    (root / "deep.zarr/zarr.json").write_text("[" * 100_000)
    return root


DUMP = "teacher-dump --weights hd2s.safetensors --store new.zarr --videos"
STUDENT = "student-train --videos dots/video --out run --store"
MISTAKES = {
    "no such path": (f"{DUMP} missing", 1, "missing: no such file or folder"),
    "no video in it": (f"{DUMP} nothing", 1, "nothing: no video in it"),
    "not a video": (f"{DUMP} text.mp4", 1, "text.mp4: not a video"),
    "empty file": (f"{DUMP} empty.mp4", 1, "empty.mp4: the file is empty"),
    "no such weights": ("teacher-dump --weights gone.pt --store n.zarr --videos videos", 1, "gone.pt"),
    "weights of another network": (
        "teacher-dump --weights tinyhd.safetensors --store n.zarr --videos videos",
        1,
        "holds a tinyhd network, not hd2s",
    ),
    "unknown teacher": (f"{DUMP} videos --teacher vinet", 2, "use hd2s or tinyhd"),
    "no store": (f"{STUDENT} none.zarr", 1, "none.zarr: no store there"),
    "a folder that is no store": (f"{STUDENT} nothing", 1, "nothing: no store there"),
    "a student of nothing": (
        "student-train --videos videos --out run",
        2,
        "add --store URL, --online, or --labels DIR",
    ),
    "a live teacher without weights": (f"{STUDENT} dots.zarr --online", 2, "add --teacher-weights FILE"),
    "a teacher that is not asked": (f"{STUDENT} dots.zarr --teacher-weights hd2s.safetensors", 2, "add --online"),
    "one teacher, two stores": (
        f"{STUDENT} dots.zarr --store other.zarr --online --teacher-weights hd2s.safetensors",
        2,
        "2 stores are given",
    ),
    "a store of another teacher": (
        f"{STUDENT} dots.zarr --online --teacher-weights hd2s.safetensors",
        1,
        "dots.zarr: made with teacher.kind = dots, not hd2s",
    ),
    "a store folder that is a file": (f"{DUMP} videos --store file/new.zarr", 1, "file/new.zarr"),
    "output not writable": ("student-train --videos dots/video --store dots.zarr --out file/run", 1, "file/run"),
    "misspelt setting": (f"{STUDENT} dots.zarr --params misspelt.yaml", 2, "did you mean 'learning_rate'?"),
    "setting out of range": (f"{DUMP} videos --params range.yaml", 2, "teacher_dump.fidelity = -1"),
    "settings that are a list": (f"{DUMP} videos --params list.yaml", 2, "list.yaml: expected stages"),
    "no settings file": (f"{DUMP} videos --params gone.yaml", 2, "gone.yaml: No such file"),
    "override without a value": (f"{DUMP} videos --set every", 2, "expected stage.key=value"),
    "override of nothing": (f"{DUMP} videos --set teacher_dump.evry=2", 2, "did you mean 'every'?"),
    "a level that does not exist": (
        f'{DUMP} videos --set teacher_dump.levels={{"fin":{{"grid":[32,64],"step":0.07}}}}',
        2,
        "level 'fin' is not known: the levels are conspicuity_2",
    ),
    "a level without a grid": (
        f'{DUMP} videos --set teacher_dump.levels={{"final":{{"step":0.07}}}}',
        2,
        "levels.final.grid",
    ),
    "a list that is not closed": ("params --set student_train.size=[64", 2, "--set student_train.size: not YAML"),
    "a tag of Python": ("params --set x.y=!!python/none", 2, "--set x.y: not YAML (could not determine"),
    "a month 13": ("params --set student_train.epochs=2024-13-45", 2, "not YAML (month must be in 1..12)"),
    "a tag without a number": ("params --set student_train.epochs=!!int", 2, "student_train.epochs: not YAML"),
    "brackets without end": (f"params --set student_train.epochs={'[' * 5000}", 2, "not YAML (maximum recursion"),
    "an infinite rate": ("params --set student_train.learning_rate=.inf", 2, "input should be a finite number"),
    "a stage that is a number": (
        "params --params number.yaml --set student_train.epochs=3",
        2,
        "number.yaml: student_train = 5: expected settings below it",
    ),
    "a settings file that is no YAML": ("params --params broken.yaml", 2, "broken.yaml: not YAML (while parsing"),
    "no annotation": ("teacher-train --data videos --out run", 1, "no density maps in it; expected videos or fold"),
    "no such data set": ("data check missing", 1, "missing: no such folder; give the one that holds videos and"),
    "nothing paired": ("data check nothing", 1, "nothing: no density maps in it; expected videos or folders"),
    "unknown layout": ("data check dots --layout kitti", 2, "--layout kitti: expected one of dhf1k, ucf-sports, "),
    "another layout": ("data check videos --layout dhf1k", 1, "has no folder 'annotation'; give the folder that hol"),
    "unknown split": ("data check dots --split half", 2, "--split half: expected train, val, test, or a file"),
    "a split that is empty": ("data check dots --split val", 1, "--split val: none of the 2 videos with density"),
    "a split that names others": ("data check dots --split list.yaml", 1, "list.yaml: 2 of its 2 videos are missing"),
    "a split of no labels": ("student-train --videos videos --store s --out r --split val", 2, "add --labels DIR"),
    "predict nothing": (
        "predict missing --weights tinyhd.safetensors --out maps",
        1,
        "missing: no such file or folder",
    ),
    "predict by a teacher": (
        "predict videos --weights hd2s.safetensors --out maps",
        1,
        "holds a hd2s network, not tinyhd: use --teacher hd2s",
    ),
    "predict into a file": (
        "predict videos --weights tinyhd.safetensors --out file/maps",
        1,
        "file/maps/good.mp4.json: file: is a file, and a folder is wanted there; give another place",
    ),
    "unknown command": ("teacher-dmp", 2, "No such command"),
    "missing option": ("student-train --videos videos", 2, "Missing option"),
    "no store and no list of teachers": ("teacher-dump --videos videos", 2, "or several teachers with --teachers FILE"),
    "verify of nothing": ("store verify none.zarr", 1, "none.zarr: no store there"),
    "repair of nothing": ("store verify none.zarr --repair", 1, "none.zarr: no store there"),
    "verify of another folder": ("store verify nothing", 1, "nothing: no store there"),
    "a damaged root": ("store info rootless.zarr", 1, "or damaged: 'tinyhd-pipe store verify' tells"),
    "a root of 100,000 brackets": (f"{DUMP} videos --store deep.zarr", 1, "not a document of tinyhd-pipe, or damaged"),
    "a damaged manifest": ("store info bent.zarr", 1, "zarr.json is damaged"),
    "lost maps and no teacher": ("store verify bent.zarr --repair", 1, "are lost: give --weights and --videos"),
    "lost maps and another teacher": (
        "store verify bent.zarr --repair --weights hd2s.safetensors --videos dots/video",
        1,
        "made with teacher.kind = dots, not hd2s",
    ),
    "a sample without a teacher": ("store verify dots.zarr --sample 3", 2, "--sample 3: these maps are made again"),
    "a sample of no frame": ("store verify dots.zarr --sample 0", 2, "--sample"),
    "a teacher without videos": ("store verify dots.zarr --weights hd2s.safetensors", 2, "give both, or neither"),
    "no such video in the store": ("store show dots.zarr 00", 1, "00: not in dots.zarr: it holds 2 videos, 00"),
    "frames past the end": ("store show dots.zarr 001 --frames 24:", 2, "the video has frames 0 to 23"),
    "a plan for labels that are none": (
        f"{DUMP} videos --plan --labels videos",
        1,
        "no density maps in it; expected videos or fold",
    ),
    "no such encoder weights": (f"{STUDENT} dots.zarr --set student_train.encoder_weights=gone.pth", 1, "gone.pth"),
    "encoder weights of another network": (
        f"{STUDENT} dots.zarr --set student_train.encoder_weights=tinyhd.safetensors",
        1,
        "tinyhd.safetensors: not MobileNetV2 in torchvision's format (features.0.0.weight is missing)",
    ),
    "a decoder that does not exist": (
        f"{STUDENT} dots.zarr --set student_train.decoders=[d1,d4]",
        2,
        "decoders.1 = 'd4'",
    ),
    "one D1 map for 16 frames": (
        f"{STUDENT} dots.zarr --set student_train.decoders=[d1,d1] student_train.outputs=16",
        2,
        "use d1_outputs=16",
    ),
    "mixed precision on a CPU": (f"{STUDENT} dots.zarr --set student_train.mixed_precision=true", 2, "GPU"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_costs_one_line(
    mistake: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, code, line = MISTAKES[mistake]
    monkeypatch.chdir(place)
    before = sorted(path for path in place.rglob("*") if path.is_file())
    assert run(command.split()) == code
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("tinyhd-pipe: ")
    assert line in said[-1]
    assert not [other for other in said if "Traceback" in other]
    assert set(before) <= {path for path in place.rglob("*") if path.is_file()}, "nothing is lost"


def test_a_stage_without_settings_in_the_file_takes_those_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text("student_train:\n")
    assert run(["params", "--params", str(tmp_path / "params.yaml"), "--set", "student_train.epochs=7"]) == 0
    assert "  epochs: 7" in capsys.readouterr().out


def test_help_answers_in_well_under_a_second() -> None:
    command = [sys.executable, "-X", "importtime", "-c", _HELP]
    started = time.process_time()
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in shown.stderr.splitlines() if "|" in line}
    assert "student-train" in shown.stdout
    assert "rich" in imported, "the probe must see imports"
    assert not imported & {"torch", "av", "zarr", "dask", "scipy", "pydantic", "numpy"}
    assert time.process_time() - started < 1


_HELP = "from tinyhd_pipe.pipeline.app import run; run(['--help'])"


def test_every_command_has_an_example_that_can_be_copied() -> None:
    from tinyhd_pipe.pipeline.app import app

    groups = [("", app), *((f"{group.name} ", group.typer_instance) for group in app.registered_groups)]
    for prefix, group in groups:
        assert group is not None
        for command in group.registered_commands:
            assert command.callback is not None
            assert f"tinyhd-pipe {prefix}{command.name}" in (command.callback.__doc__ or "")


def test_params_prints_every_setting_and_reads_its_own_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["params"]) == 0
    printed = capsys.readouterr().out
    (tmp_path / "params.yaml").write_text(printed)
    assert run(["params", "--params", str(tmp_path / "params.yaml"), "--set", "student_train.epochs=7"]) == 0
    teacher, student = printed.split("student_train:")
    assert capsys.readouterr().out == teacher + "student_train:" + student.replace("epochs: 200", "epochs: 7")


def test_a_dump_and_a_training_give_json(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    store = tmp_path / "maps.zarr"
    dump = f"teacher-dump --weights hd2s.safetensors --videos videos --videos text.mp4 --store {store} --json"
    assert run([*dump.split(), "--set", "teacher_dump.precision=float32", "--set", "teacher_dump.fidelity=0.01"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["frames"] == 20
    assert list(result["problems"]) == ["text.mp4"]


def test_a_store_says_what_it_is_and_a_flipped_bit_is_found(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run(["store", "info", "dots.zarr", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["videos"], facts["frames_with_maps"]) == (2, 48)
    assert run(["store", "verify", "dots.zarr"]) == 0
    (data,) = Path("dots.zarr").glob("shards/*/final/c/0/0/0")
    sound = data.read_bytes()
    data.write_bytes(bytes([sound[0] ^ 1]) + sound[1:])
    assert run(["store", "verify", "dots.zarr"]) == 1
    assert "001" in capsys.readouterr().err
    data.write_bytes(sound)


def test_layouts_and_precisions_are_compared_on_equal_maps(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    bench = "bench predict --weights hd2s.safetensors --kind hd2s --video videos/good.mp4 --json"
    assert run(bench.split()) == 0
    measured = json.loads(capsys.readouterr().out)["networks"]
    assert [variant["ratio"] > 0 for variant in measured["variants"]] == [True] * 3
    assert measured["variants"][0]["kl"] < 1e-6
