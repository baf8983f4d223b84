"""From a teacher's weights file its terms go into the store, and from there into its students."""

import json
from pathlib import Path

import pytest

from tests.given_maps import dots, pictures
from tests.moving_dot import SIZE, make_data
from tests.small_dumps import dump_of, write_teacher, write_videos
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.store import open_store

SMALL = ("epochs=1", "validation_clips=1", f"size={list(SIZE)}", "validation_share=0.5")
TERMS = "CC BY 4.0 (Example Lab)"


def _settings(stage: str, *settings: str) -> list[str]:
    return ["--set", *(f"{stage}.{setting}" for setting in (*SMALL, *settings))]


def _run(*arguments: object) -> int:
    return run([*map(str, arguments), "--device", "cpu", "--json"])


def _fit(data: Path, out: Path, *more: str) -> int:
    return _run("teacher-train", "--data", data, "--out", out, *more, *_settings("teacher_train", "width=0.0625"))


def _dump(data: Path, store: Path, weights: Path) -> dict[str, object]:
    where = ("--videos", data / "video", "--store", store, "--weights", weights)
    assert _run("teacher-dump", *where, "--set", "teacher_dump.fidelity=0.01") == 0
    return dict(open_store(store).description.provenance)


def test_an_owners_terms_reach_store_and_student(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path, videos=2)
    assert _fit(tmp_path, tmp_path / "teacher", "--licence", TERMS) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == TERMS
    best = tmp_path / "teacher/best.safetensors"
    assert read_weights(best).facts["licence"] == TERMS
    assert _dump(tmp_path, tmp_path / "maps.zarr", best)["licence"] == TERMS
    assert run(["store", "info", str(tmp_path / "maps.zarr")]) == 0
    assert TERMS in capsys.readouterr().err
    learned = ("--store", tmp_path / "maps.zarr", "--videos", tmp_path / "video", "--out", tmp_path / "student")
    assert _run("student-train", *learned, *_settings("student_train", "reduction=4", "decoders=[d1]")) == 0
    student = tmp_path / "student/best.safetensors"
    assert read_weights(student).facts["licence"] == TERMS
    assert load_student(student).facts["licence"] == TERMS, "which its own store would carry"


def test_nothing_is_claimed_for_a_teacher_whose_owner_said_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(tmp_path, videos=2)
    assert _fit(tmp_path, tmp_path / "teacher") == 0
    best = tmp_path / "teacher/best.safetensors"
    assert read_weights(best).facts["licence"] == "none stated"
    assert _dump(tmp_path, tmp_path / "maps.zarr", best)["licence"] == "none stated"
    assert _fit(tmp_path, tmp_path / "teacher", "--licence", "", "--overwrite") == 2
    assert "--licence: licence '': expected one line of text" in capsys.readouterr().err


def test_an_owner_gives_terms_to_weights_that_were_fitted_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(tmp_path, videos=2)
    write_weights(tmp_path / "w.safetensors", HD2S(width=0.0625).state_dict(), {})
    taken = ("--weights", str(tmp_path / "w.safetensors"))
    assert _fit(tmp_path, tmp_path / "plain", *taken) == 0
    assert _fit(tmp_path, tmp_path / "owned", *taken, "--licence", TERMS) == 0
    licences = [read_weights(tmp_path / out / "best.safetensors").facts["licence"] for out in ("plain", "owned")]
    assert licences == ["none stated", TERMS]
    assert _fit(tmp_path, tmp_path / "both", *taken, "--kinetics", "s3d.pt") == 2
    assert "--kinetics s3d.pt: nothing is fitted with --weights" in capsys.readouterr().err


def test_terms_that_forbid_commercial_use_are_asked_about_once_where_a_store_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = write_videos(tmp_path / "videos", {"a.mp4": 5, "b.mp4": 4})
    facts = {"kind": "tinyhd", "size": [32, 32], "licence": "CC BY-NC 4.0"}
    write_weights(tmp_path / "nc.safetensors", TinyHD(decoders=("d1", "d2"), reduction=4).state_dict(), facts)

    def dump(folder: Path, *more: str) -> int:
        return run([*map(str, dump_of(folder, tmp_path / "nc.safetensors", tmp_path / "maps.zarr", *more))])

    assert dump(videos / "a.mp4") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "its terms, CC BY-NC 4.0, forbid commercial use" in said
    assert "--allow-noncommercial says that you know" in said
    assert not (tmp_path / "maps.zarr").exists()
    assert dump(videos / "a.mp4", "--allow-noncommercial") == 0
    assert dump(videos) == 0, "the store remembers"
    assert open_store(tmp_path / "maps.zarr").description.provenance["noncommercial"] == "accepted"
    assert run(["store", "info", str(tmp_path / "maps.zarr")]) == 0
    assert "CC BY-NC 4.0" in capsys.readouterr().err


def test_a_teacher_in_the_loop_without_a_store_is_asked_about_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = write_videos(tmp_path / "videos", {"a.mp4": 20, "b.mp4": 20})
    facts = {"kind": "tinyhd", "size": [32, 32], "licence": "for non-commercial use"}
    write_weights(tmp_path / "nc.safetensors", TinyHD(decoders=("d1", "d2"), reduction=4).state_dict(), facts)
    online = ("student-train", "--online", "--teacher", "tinyhd", "--teacher-weights", tmp_path / "nc.safetensors")
    learn = (*online, "--videos", videos, "--out", tmp_path / "run")
    assert _run(*learn) == 2
    assert "its terms, for non-commercial use, forbid commercial use" in capsys.readouterr().err
    small = ("epochs=1", "validation_clips=1", "size=[32,32]", "reduction=4", "decoders=[d1]", "validation_share=0.5")
    settings = [f"student_train.{setting}" for setting in small]
    assert _run(*learn, "--allow-noncommercial", "--set", *settings, "teacher_dump.size=[32,32]") == 0
    assert "forbid commercial use" not in capsys.readouterr().err


def test_terms_that_allow_it_or_say_nothing_are_not_asked_about(tmp_path: Path) -> None:
    videos, weights = write_videos(tmp_path / "videos", {"a.mp4": 5}), write_teacher(tmp_path / "t.safetensors")
    assert run([*map(str, dump_of(videos, weights, tmp_path / "maps.zarr"))]) == 0
    assert "noncommercial" not in open_store(tmp_path / "maps.zarr").description.provenance


def test_imported_maps_are_asked_about_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = write_videos(tmp_path / "videos", {"a.mp4": 5})
    pictures(tmp_path / "maps/a", dots(5))
    command = [
        "store",
        "import",
        "--videos",
        str(videos),
        "--maps",
        str(tmp_path / "maps"),
        "--teacher-name",
        "ViNet-A",
    ]
    command += ["--store", str(tmp_path / "s.zarr"), "--licence", "CC BY-NC-SA 4.0"]
    assert run(command) == 2
    assert "forbid commercial use" in capsys.readouterr().err
    assert run([*command, "--set", "teacher_dump.allow_noncommercial=true"]) == 0
