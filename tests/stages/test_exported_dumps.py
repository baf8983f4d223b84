"""`teacher-dump --teacher onnx` and `torch`: an exported student gives the store that the student itself gives."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.exported_networks import PIXELS, SIZE, Carries, greys, mean_onnx, value_of, write_pt2
from tests.lively_networks import lively
from tests.small_dumps import write_videos
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump.exported_loading import load_exported_teacher, told_by_store
from tinyhd_pipe.stages.dump.fidelity import kl_of
from tinyhd_pipe.stages.export import Wanted, export
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.store import open_store
from tinyhd_pipe.store.encoding import Floats

LENGTHS = {"0.mp4": 20, "1.mp4": 5, "2.mp4": 37}
FIDELITY = ("--set", "teacher_dump.fidelity=0.001", "teacher_dump.precision=float32")


def _dump(videos: Path, store: Path, kind: str, weights: Path, *more: str) -> int:
    where = ["--videos", videos, "--store", store, "--teacher", kind, "--weights", weights]
    return run(list(map(str, ["teacher-dump", *where, *FIDELITY, *more])))


def _difference(one: Path, other: Path, video: str) -> float:
    """Mean KL of the final maps of all frames of two stores."""
    import torch

    stores = [open_store(one), open_store(other)]
    frames = stores[0].frames(video)
    assert frames.tolist() == stores[1].frames(video).tolist()
    maps: list[Floats] = [store.read_logits(video, frames, levels=["final"])["final"] for store in stores]
    grid = stores[0].description.teacher_grid
    return kl_of(torch.from_numpy(maps[0]), torch.from_numpy(maps[1]), grid)


@pytest.mark.slow
@pytest.mark.parametrize(("outputs", "kind"), [(16, "torch"), (1, "onnx")])
def test_an_exported_student_gives_the_store_that_the_student_gives(
    tmp_path: Path, outputs: int, kind: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "student.safetensors"
    module = lively(7, decoders=("d3",), reduction=4, outputs=outputs)
    write_weights(weights, module.state_dict(), {"kind": "tinyhd", "size": [32, 64], "licence": "CC BY 4.0"})
    (exported,) = export(load_student(weights), tmp_path, "student", Wanted(kind)).files
    videos = write_videos(tmp_path / "videos", LENGTHS)
    assert _dump(videos, tmp_path / "own.zarr", "tinyhd", weights) == 0
    assert _dump(videos, tmp_path / "exported.zarr", kind, exported) == 0
    assert "moving dot" not in capsys.readouterr().err, "a file of ours was compared already"
    own, other = (open_store(tmp_path / name).description for name in ("own.zarr", "exported.zarr"))
    assert other.teacher["kind"] == kind
    assert other.teacher["preprocessing"] | own.teacher["preprocessing"] == other.teacher["preprocessing"]
    assert (other.temporal, other.provenance["licence"]) == (own.temporal, "CC BY 4.0")
    for video in LENGTHS:
        assert _difference(tmp_path / "own.zarr", tmp_path / "exported.zarr", video) < 1e-4
    capsys.readouterr()
    checked = ["store", "verify", tmp_path / "exported.zarr", "--sample", 9, "--videos", videos, "--weights", exported]
    assert run([*map(str, checked), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sampled"]["frames"] == 9


@pytest.mark.shared
@pytest.mark.slow
def test_the_published_student_as_a_file_teaches_what_it_teaches_by_name(tmp_path: Path, shared: Path) -> None:
    weights = shared / "reference/weights/d123s_rc4_rc1T.pth"
    (exported,) = export(load_student(weights), tmp_path, "s", Wanted("torch")).files
    videos = write_videos(tmp_path / "videos", {"0.mp4": 6})
    keep = ("teacher_dump.keep=[final]", "teacher_dump.fidelity=0.0002")
    assert _dump(videos, tmp_path / "own.zarr", "tinyhd", weights, *keep) == 0
    assert _dump(videos, tmp_path / "exported.zarr", "torch", exported, *keep) == 0
    assert _difference(tmp_path / "own.zarr", tmp_path / "exported.zarr", "0.mp4") < 1e-5


def _grey_videos(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for frame, picture in enumerate(greys(count)):
            Image.fromarray(picture).save(root / name / f"{frame + 1:04d}.png")
    return root


def _settings(**told: Any) -> list[str]:
    return [f"exported_teacher.{name}={json.dumps(value)}" for name, value in {**PIXELS, **told}.items()]


def _stored(store: Path, video: str) -> list[float]:
    there = open_store(store)
    return there.read(video, there.frames(video), levels=["final"])["final"].mean((1, 2)).tolist()  # type: ignore[no-any-return]


SIZED = ("--set", "teacher_dump.size=[32,32]", "teacher_dump.levels={final: {grid: [32, 32], step: 0.06}}")


def test_a_state_begins_anew_with_every_video_of_a_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = write_pt2(tmp_path / "most.pt2", Carries(), (3, *SIZE), SIZE, free_batch=False)
    videos = _grey_videos(tmp_path / "videos", {"a": 6, "b": 3})
    Image.fromarray(np.full((*SIZE, 3), 8, np.uint8)).save(videos / "a" / "0004.png")
    told = _settings(layout="B C Y X")
    assert _dump(videos, tmp_path / "s.zarr", "torch", network, *SIZED, *told) == 0
    for video, seen in {"a": [0, 1, 2, 2, 4, 5], "b": [0, 1, 2]}.items():
        assert _stored(tmp_path / "s.zarr", video) == pytest.approx([value_of(one) for one in seen], rel=0.03)
    checked = ["store", "verify", tmp_path / "s.zarr", "--sample", 9, "--videos", videos, "--weights", network]
    assert run(list(map(str, checked))) == 0, "one frame by itself is run from the start of its video"


def test_a_store_says_all_that_its_teacher_was_told_and_refuses_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = mean_onnx(tmp_path / "mean.onnx")
    videos = _grey_videos(tmp_path / "videos", {"a": 9})
    told = _settings(layout="B T C Y X", answers=[3])
    arguments = (videos, tmp_path / "s.zarr", "onnx", network, *SIZED)
    assert _dump(*arguments, *told, "--every", "2") == 0
    assert "in frame 1.5 of the window, counted from 0, and not in frame 3" in capsys.readouterr().err
    there = open_store(tmp_path / "s.zarr")
    assert there.frames("a").tolist() == [0, 2, 4, 6, 8]
    assert load_exported_teacher("onnx", network, told_by_store(there.description.teacher), size=SIZE).identity == (
        there.description.teacher
    )
    assert _dump(*arguments, *_settings(layout="B T C Y X", answers=[2]), "--every", "2") == 1
    assert "teacher.window.answers" in capsys.readouterr().err
    assert _dump(*arguments, *told, "--every", "2") == 0
    assert "1 videos were there already" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_make_the_same_bytes(tmp_path: Path) -> None:
    network = mean_onnx(tmp_path / "mean.onnx")
    videos = _grey_videos(tmp_path / "videos", {"a": 9, "b": 5})
    told = _settings(layout="B T C Y X")
    for store, more in (("one.zarr", ()), ("two.zarr", ("--workers", "2"))):
        assert _dump(videos, tmp_path / store, "onnx", network, *SIZED, *told, *more) == 0
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file() and "c" in path.parts
        }
        for name in ("one.zarr", "two.zarr")
    }
    assert files["one.zarr"]
    assert files["one.zarr"] == files["two.zarr"]
