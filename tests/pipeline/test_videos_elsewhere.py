"""Commands whose videos lie in a tar or behind a URL: the same store, the same maps, and what fails is one line."""

import os
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.moving_dot import SIZE, dot
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import open_store


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    (root / "dots").mkdir()
    for row in (10, 18):
        pictures = (np.stack([dot(frame, row) for frame in range(24)])[..., None] * [200, 220, 240]).astype(np.uint8)
        write_video(root / "dots" / f"{row:03}.mp4", pictures)
    with tarfile.open(root / "shard.tar", "w") as tar:
        for video in sorted((root / "dots").iterdir()):
            tar.add(video, video.name)
    kind = {"kind": "hd2s", "size": list(SIZE)}
    write_weights(root / "hd2s.safetensors", HD2S(width=0.0625).state_dict(), kind)
    write_weights(root / "tinyhd.safetensors", TinyHD(reduction=4).state_dict(), {**kind, "kind": "tinyhd"})
    return root


@pytest.fixture(autouse=True)
def at(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("TINYHD_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def memory(place: Path) -> Iterator[str]:
    files, name = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    for video in (place / "dots").iterdir():
        files.pipe_file(f"{name}/{video.name}", video.read_bytes())
    yield f"memory:/{name}"
    files.rm(name, recursive=True)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dump_and_a_training_from_a_tar_and_a_bucket_are_those_from_a_folder(memory: str, tmp_path: Path) -> None:
    stores = {"dots": "folder", "shard.tar": "tar", f"{memory}/*": "url"}
    for videos, store in stores.items():
        dump = ["teacher-dump", "--weights", "hd2s.safetensors", "--store", str(tmp_path / store), "--videos", videos]
        assert run(dump) == 0
    assert content(tmp_path / "tar") == content(tmp_path / "url") == content(tmp_path / "folder")
    small = {"epochs": 1, "reduction": 4, "size": "[64,64]", "clips_per_video": 1, "validation_clips": 1}
    fit = [
        "student-train",
        *(word for name, value in small.items() for word in ("--set", f"student_train.{name}={value}")),
    ]
    weights = []
    for videos, name in [*stores.items()][:2]:
        out = tmp_path / f"run-{name}"
        assert run([*fit, "--store", str(tmp_path / name), "--out", str(out), "--videos", videos]) == 0
        weights.append((out / "best.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_maps_of_a_tar_and_of_an_object_are_those_of_the_file(memory: str, tmp_path: Path) -> None:
    made = []
    for name, videos in (("a", "dots"), ("b", "shard.tar"), ("c", f"{memory}/")):
        assert run(["predict", videos, "--weights", "tinyhd.safetensors", "--out", str(tmp_path / name)]) == 0
        made.append({path: data for path, data in content(tmp_path / name).items() if path.endswith(".png")})
    assert made[0]
    assert made[0] == made[1] == made[2]


def test_an_object_that_is_lost_is_a_problem_and_the_others_are_dumped(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tinyhd_pipe.pipeline.dump_command.given_videos", _then_remove_the_first)
    dump = ["teacher-dump", "--weights", "hd2s.safetensors", "--store", str(tmp_path / "s"), "--videos", memory]
    assert run(dump) == 1
    assert "010.mp4: nothing there" in capfd.readouterr().err.replace("\n", "")
    assert open_store(tmp_path / "s").videos == ["018.mp4"]


def _then_remove_the_first(paths: list[str]) -> object:
    from tinyhd_pipe.pipeline.given import given_videos

    found = given_videos(paths)
    fsspec.filesystem("memory").rm(f"{paths[0]}/{found[0].id}")
    return found


def test_a_network_that_fails_while_a_shard_is_made_ends_the_dump_and_a_rerun_makes_the_rest(
    memory: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from tinyhd_pipe.stages.dump import shard_work

    dump = ["teacher-dump", "--weights", "hd2s.safetensors", "--store", str(tmp_path / "s"), "--videos", memory]
    with monkeypatch.context() as broken:
        broken.setattr(shard_work, "probe", _with_nothing_kept)
        assert run(dump) == 1
    assert "changed since it was listed; run again" in capfd.readouterr().err
    assert run(dump) == 0, "it was no problem of the video's"
    assert len(open_store(tmp_path / "s").videos) == 2


def _with_nothing_kept(source: object) -> object:
    """The first thing that a shard asks of a video, which was replaced and is kept no more."""
    from tinyhd_pipe.stages.video.decoding import probe
    from tinyhd_pipe.stages.video.sources import VideoSource

    assert isinstance(source, VideoSource)
    assert source.remote
    files = fsspec.filesystem("memory")
    url = source.remote.url
    files.pipe_file(url, files.cat_file(url))
    for kept in Path(os.environ["TINYHD_CACHE"]).rglob("video.*"):
        kept.unlink()
    return probe(source)
