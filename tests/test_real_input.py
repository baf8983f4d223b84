"""Real clips and published weights, through the command line as a user has it."""

import json
from pathlib import Path

import pytest

from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.hd2s import HD2S
from tinyhd_pipe.stages.weights import write_weights
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
