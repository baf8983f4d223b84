"""Which maps a store holds: all that the teacher has by default, D2's and D3's of a teacher assistant among them."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.small_dumps import OPTIONS, SIZE, write_videos
from tinyhd_pipe.stages.dump.store_check import sample_store
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.levels import LEVELS, STORED
from tinyhd_pipe.stages.networks.network import Network, ready
from tinyhd_pipe.stages.networks.teacher_maps import logits_at
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.teacher_dump import teacher_dump
from tinyhd_pipe.stages.video.clips import student_window
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import Store, StoreError, open_store
from tinyhd_pipe.store.errors import SettingError


def assistant(decoders: Sequence[str] = ("d1", "d2", "d3"), outputs: int = 16) -> Network:
    return ready("tinyhd", TinyHD(decoders=decoders, reduction=4, outputs=outputs), size=SIZE)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    return find_videos([write_videos(tmp_path_factory.mktemp("videos"), {"0.mp4": 20, "1.mp4": 5})])


def dumped(path: Path, videos: list[VideoSource], teacher: Network, keep: tuple[str, ...] | None = None) -> Store:
    teacher_dump(videos, str(path), teacher, replace(OPTIONS, keep=keep))
    return open_store(path)


@pytest.mark.parametrize("outputs", [1, 16])
def test_an_assistants_store_holds_the_maps_of_all_its_decoders_as_the_live_one_gives_them(
    videos: list[VideoSource], tmp_path: Path, outputs: int
) -> None:
    teacher = assistant(outputs=outputs)
    store = dumped(tmp_path / "maps.zarr", videos, teacher)
    assert store.levels == STORED
    sampled = sample_store(store.url, teacher, videos, frames=8)
    assert sampled.kept
    assert sampled.levels.keys() == set(STORED)
    live = logits_at(teacher, np.array([17]), frames=20, read=partial(read_frames, videos[0]))
    between = np.abs(live["d2"].numpy() - live["d3"].numpy()).max()
    read = store.read(videos[0].id, [17], size=SIZE)
    for level in ("d2", "d3"):
        error = np.abs(read[level] - live[level].sigmoid().numpy()).max()
        assert error < 0.1 * between, "another decoder's maps would be noticed"


def test_of_several_decoders_of_a_kind_the_first_ones_maps_are_stored(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    teacher = assistant(("d1", "d2", "d2"))
    store = dumped(tmp_path / "maps.zarr", videos[1:], teacher)
    assert store.levels == (*LEVELS[:4], "d2", "final")
    maps = teacher(teacher.preprocess(read_frames(videos[1], student_window(4))))
    read = store.read(videos[1].id, [4], size=SIZE)["d2"]
    first, second = (np.abs(read - maps[level][0, -1:].numpy()).max() for level in ("d2", "d2-2"))
    assert first < 0.1 * second


def test_levels_are_kept_by_choice_and_a_store_begun_without_some_goes_on_without_them(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    teacher, path = assistant(), tmp_path / "maps.zarr"
    assert dumped(path, videos[:1], teacher, keep=LEVELS).levels == LEVELS
    grown = dumped(path, videos, teacher)
    assert grown.levels == LEVELS
    assert grown.videos == [video.id for video in videos]
    assert sample_store(grown.url, teacher, videos, frames=8).kept
    with pytest.raises(StoreError, match=r"made with levels.d2 = missing, not stored: maps of the two must not mix"):
        dumped(path, videos, teacher, keep=STORED)
    with pytest.raises(StoreError, match=r"made with levels.conspicuity_2 = stored, not missing"):
        dumped(path, videos, teacher, keep=("final",))
    assert dumped(tmp_path / "two.zarr", videos[1:], teacher, keep=("d2", "final")).levels == ("d2", "final")


def test_a_level_that_the_teacher_does_not_have_cannot_be_kept(videos: list[VideoSource], tmp_path: Path) -> None:
    hd2s = ready("hd2s", HD2S(width=0.0625), size=SIZE)
    with pytest.raises(SettingError, match=r"keep 'd2': this teacher has no such maps; its levels are conspicuity_2"):
        dumped(tmp_path / "maps.zarr", videos, hd2s, keep=("d2", "final"))
    assert not (tmp_path / "maps.zarr").exists()
