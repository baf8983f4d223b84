"""A run with all that a page shows: store, training, evaluation, clips; its videos have names that try to do harm."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.moving_dot import SIZE, dot
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.weights import write_weights

FRAMES = 20
HOSTILE = ("a\"><img src=x onerror=alert(1)>&amp;'", "b{{ 7 * 7 }}{% raw %}", "c<b>ü 夜")
"""Names of videos."""


def make_clips(root: Path) -> Path:
    """Frames and density maps of a dot that moves, in the layout `plain`."""
    for number, name in enumerate(HOSTILE):
        for kind in ("frames", "maps"):
            (root / kind / name).mkdir(parents=True)
        for frame in range(FRAMES):
            grey = (255 * dot(frame, row=8 + 6 * number)).astype(np.uint8)
            Image.fromarray(grey).save(root / "maps" / name / f"{frame + 1:04d}.png")
            Image.fromarray(grey).convert("RGB").save(root / "frames" / name / f"{frame + 1:04d}.png")
    return root


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/student, runs/student/evaluation, clips, maps.zarr and teacher.safetensors."""
    root = tmp_path_factory.mktemp("made")
    clips = make_clips(root / "clips")
    store, teacher, student = root / "maps.zarr", root / "teacher.safetensors", root / "runs/student"
    write_weights(
        teacher, HD2S(width=0.0625).state_dict(), {"kind": "hd2s", "size": list(SIZE), "licence": "<i>mine</i>"}
    )
    videos = ["--videos", clips / "frames"]
    _do("teacher-dump", *videos, "--store", store, "--weights", teacher, sets="fidelity=0.01 precision=float32")
    recipe = "epochs=4 validate_every=2 picture_every=2 size=[32,64] reduction=4 decoders=[d1,d2] batch=3"
    more = "validation_clips=1 validation_share=0.34 schedule=cosine"
    _do("student-train", *videos, "--store", store, "--labels", clips, "--out", student, sets=f"{recipe} {more}")
    weights = ["--weights", student / "best.safetensors", "--teacher-weights", teacher]
    _do("evaluate", *weights, "--data", clips, "--out", student / "evaluation", sets="every=7")
    return root


def _do(command: str, *words: object, sets: str) -> None:
    stage = command.replace("-", "_")
    overrides = ["--set", *(f"{stage}.{one}" for one in sets.split())]
    assert run([command, *map(str, words), *overrides, "--device", "cpu"]) == 0


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Iterator[Path]:
    """The same, to be damaged: nothing of it lies where it lay."""
    copy = tmp_path / "copied"
    shutil.copytree(made, copy)
    away = made.with_name("away")
    made.rename(away)
    yield copy
    away.rename(made)
