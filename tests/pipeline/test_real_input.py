"""Real clips and published weights, through the command line as a user has it."""

import json
from pathlib import Path

import pytest

from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.store import open_store

AWKWARD = {
    "animated.gif": 4,
    "bt601_full_range.mp4": 60,
    "corrupted.mp4": 30,
    "ex2": 40,
    "h264_10bits.mp4": 30,
    "nasa_13013_mkv_duration_tag.mkv": 390,
    "nasa_13013_rotated.mp4": 17,
    "part_0.mp4": 32,
    "test.avi": 164,
    "testsrc2_mpeg4_1frame.mp4": 1,
    "testsrc2_odd_height_and_width_vp9.mp4": 25,
    "var_fps_video.mp4": 300,
}
"""Frames that decode; counted by decoding each file to its end."""


@pytest.mark.shared
@pytest.mark.slow
def test_awkward_files_dump_with_their_right_length_or_are_listed(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, store = tmp_path / "small.safetensors", tmp_path / "maps.zarr"
    write_weights(weights, HD2S(width=0.0625).state_dict(), {"kind": "hd2s", "size": [32, 32]})
    videos = shared / "data" / "videos"
    dump = f"teacher-dump --videos {videos}/awkward --videos {videos}/frames/ex2 --store {store} --weights {weights}"
    settings = "--json --set teacher_dump.batch=8 --set teacher_dump.fidelity=0.01 --set teacher_dump.precision=float32"
    assert run(f"{dump} {settings}".split()) == 1
    result = json.loads(capsys.readouterr().out)
    assert list(result["problems"]) == ["corrupted.mp4"]
    assert "ends after 30 frames" in result["problems"]["corrupted.mp4"]
    maps = open_store(store)
    assert {video: maps.video(video).frames for video in maps.videos} == AWKWARD
    upright = maps.video("nasa_13013_rotated.mp4")
    assert upright.height > upright.width, "filmed upright, stored lying down with a rotation in its header"


NATURAL = {
    "0068.AVI": 540,
    "car-detection.mp4": 377,
    "demo.mp4": 280,
    "dog_eating_854132.mp4": 345,
    "elf.webm": 241,
    "flipping_a_pancake.mkv": 310,
    "kinetics_pool_test.mp4": 300,
    "nasa_13013.mp4": 390,
    "rabbit320.mp4": 234,
    "test1.mp4": 300,
}
"""Frames that decode; counted by decoding each file to its end."""
FEW_STEPS = """reduction=4 size=[64,96] epochs=8 clips_per_video=2 batch=4 optimiser=adamw learning_rate=0.002
    schedule=cosine encoder_rate=1 validation_clips=3"""


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_published_16_output_network_teaches_a_student_what_it_says_of_a_video_left_out(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, store, out = shared / "data/videos/natural", tmp_path / "X.zarr", tmp_path / "student"
    weights = shared / "reference/weights/d123m_rc4_rc1T.pth"
    dump = f"teacher-dump --videos {videos} --teacher tinyhd --weights {weights} --store {store}"
    assert run([*dump.split(), "--set", "teacher_dump.size=[96,128]"]) == 0  # a quarter of its own, and of the time
    maps = open_store(store)
    assert {video: maps.video(video).frames for video in maps.videos} == NATURAL
    assert max(level["kl"] for level in maps.description.measured.values()) <= maps.description.budget

    settings = " ".join(f"--set student_train.{setting}" for setting in FEW_STEPS.split())
    assert run(f"student-train --store {store} --videos {videos} --out {out} {settings}".split()) == 0
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    first, last = (history[epoch]["validation"]["final"] for epoch in (0, -1))
    assert last < 0.8 * first, "KL(teacher || student) on the video that nothing was learned from"
    capsys.readouterr()


@pytest.mark.shared
def test_what_is_not_taken_of_a_folder_is_said_in_one_line(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "small.safetensors"
    write_weights(weights, HD2S(width=0.0625).state_dict(), {"kind": "hd2s", "size": [32, 32]})
    videos = shared / "data/cases/suffixes"
    dump = f"teacher-dump --plan --json --videos {videos} --store {tmp_path / 'maps.zarr'} --weights {weights}"
    assert run([*dump.split(), "--set", "teacher_dump.precision=float32"]) == 0
    said = capsys.readouterr()
    assert f"{videos}: 1 file was not taken: 1 .ts" in said.err.splitlines()
    planned = json.loads(said.out)
    assert (planned["videos"], planned["frames"], planned["problems"]) == (6, 200, {})
