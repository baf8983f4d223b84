"""A sample of a store against the live teacher: agreement is seen, and so is whatever is not the teacher's map."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.stages.test_teacher_dump import BUDGET, _clip, _teacher
from tinyhd_pipe.stages.dump.store_check import FAR, sample_store
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.teacher_dump import teacher_dump
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import Source, StoreError, create_or_open, open_store


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return _teacher(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    folder = tmp_path_factory.mktemp("videos")
    for number, frames in enumerate((24, 5)):
        write_video(folder / f"{number}.mp4", _clip(frames, number))
    return find_videos([folder])


@pytest.fixture(scope="module")
def dumped(teacher: Network, videos: list[VideoSource], tmp_path_factory: pytest.TempPathFactory) -> str:
    store = tmp_path_factory.mktemp("dumped") / "maps.zarr"
    teacher_dump(videos, str(store), teacher, DumpOptions(fidelity=BUDGET))
    return str(store)


def _shifted(store: str, late: str, frames: int) -> str:
    """The same maps, each `frames` late."""
    before = open_store(store)
    writer = create_or_open(late, before.description)
    rows = [before.video(video) for video in before.videos]
    for task in writer.plan([Source(row.id, row.digest, row.frames) for row in rows]).todo:
        with writer.shard(task) as shard:
            for row in rows:
                shown = np.maximum(np.arange(row.frames) - frames, 0)
                with shard.video(row.id) as video:
                    video.append(before.read_logits(row.id, shown))
                    video.finish(row.frames)
    return late


def test_maps_one_frame_late_are_not_the_teachers(
    teacher: Network, videos: list[VideoSource], dumped: str, tmp_path: Path
) -> None:
    sampled = sample_store(dumped, teacher, videos, frames=10)
    assert (sampled.frames, sampled.kept) == (10, True)
    copied = sample_store(_shifted(dumped, str(tmp_path / "same.zarr"), 0), teacher, videos, frames=10)
    assert copied.kept
    late = sample_store(_shifted(dumped, str(tmp_path / "late.zarr"), 1), teacher, videos, frames=10)
    assert not late.kept
    assert late.levels["final"].kl > 4 * FAR * BUDGET
    assert late.levels["final"].worst_kl >= late.levels["final"].kl


def test_a_larger_sample_than_there_are_maps_is_all_of_them(
    teacher: Network, videos: list[VideoSource], dumped: str
) -> None:
    assert sample_store(dumped, teacher, videos[1:], frames=1000).frames == 5


def test_windows_that_do_not_decode_are_passed_over_and_thinned_stores_are_sampled_where_they_have_maps(
    teacher: Network, tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(_clip(36, seed=0)):
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
    (folder / "018.png").write_text("broken")
    videos, store = find_videos([folder]), str(tmp_path / "maps.zarr")
    teacher_dump(videos, store, teacher, DumpOptions(fidelity=BUDGET, every=4))
    sampled = sample_store(store, teacher, videos, frames=9)
    assert sampled.kept
    assert sampled.frames == 2, "of frames 0, 4, ..., 32 only 0 and 16 see nothing of frame 18"


def test_another_teacher_and_other_videos_are_refused(
    teacher: Network, videos: list[VideoSource], dumped: str, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="weights_sha256"):
        sample_store(dumped, _teacher(tmp_path, seed=1), videos, frames=3)
    write_video(tmp_path / "0.mp4", _clip(24, seed=5))
    write_video(tmp_path / "unknown.mp4", _clip(5, seed=5))
    with pytest.raises(StoreError, match="changed since the teacher saw it"):
        sample_store(dumped, teacher, find_videos([tmp_path / "0.mp4"]), frames=3)
    with pytest.raises(StoreError, match="holds no map of the 1 videos given"):
        sample_store(dumped, teacher, find_videos([tmp_path / "unknown.mp4"]), frames=3)
