"""Clips and maps for other people's loops: each clip ends at the frame of its map, whoever loads it."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.moving_dot import SIZE, column_of, make_data, make_store
from tests.small_dumps import write_videos
from tinyhd_pipe.stages import ClipMaps
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.errors import DataError, SettingError

DOCS = Path(__file__).resolve().parents[3] / "docs/store-import-export.md"


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoSource]:
    make_data(tmp_path, videos=3, labelled=1)
    return find_videos([tmp_path / "video"])


def test_a_clip_ends_at_the_frame_of_its_map_and_a_slipped_store_is_seen(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    for slip in (0, 1):
        make_store(tmp_path / f"{slip}.zarr", videos, slip=slip)
        data = ClipMaps(tmp_path / f"{slip}.zarr", tmp_path / "video", frames=5, size=SIZE, stride=3)
        assert len(data) == 3 * 8
        for index in range(len(data)):
            clip, maps = data[index]
            _, frame = data.frame(index)
            assert clip.shape == (3, 5, *SIZE)
            columns = [column_of(one.mean(0).numpy()) for one in clip.unbind(1)]
            assert columns == [2 + 2 * max(frame - back, 0) for back in (4, 3, 2, 1, 0)]
            assert column_of(maps["final"].numpy()) == columns[-1] - 2 * slip * (frame > 0)


def test_loader_processes_give_the_same_items_and_shuffling_is_theirs(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    make_store(tmp_path / "s.zarr", videos)
    data = ClipMaps(tmp_path / "s.zarr", tmp_path / "video", frames=4, size=SIZE)
    alone = [clip for clip, _ in data]  # type: ignore[attr-defined]
    loader = DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn")
    together = torch.cat([clip for clip, _ in loader])
    assert torch.equal(together, torch.stack(alone))


def test_several_stores_are_fused_as_training_fuses_them(videos: list[VideoSource], tmp_path: Path) -> None:
    stores = [make_store(tmp_path / f"{slip}.zarr", videos, slip=slip) for slip in (0, 4)]
    data = ClipMaps([store.url for store in stores], tmp_path / "video", size=SIZE, weights=[3, 1])
    video, frame = data.frame(2)
    expected = Targets.of(stores, [3, 1]).read(video, [frame], size=SIZE)
    _, maps = data[2]
    for level, one in expected.items():
        assert np.array_equal(maps[level].numpy(), one[0])
        assert float(maps[level].sum()) == pytest.approx(1, abs=1e-4)


def test_videos_that_changed_or_are_not_there_are_told(videos: list[VideoSource], tmp_path: Path) -> None:
    make_store(tmp_path / "s.zarr", videos)
    with pytest.raises(DataError, match="holds no map of the videos given"):
        ClipMaps(tmp_path / "s.zarr", write_videos(tmp_path / "others", {"a.mp4": 3}))
    with pytest.raises(SettingError, match="expected 1 and more"):
        ClipMaps(tmp_path / "s.zarr", tmp_path / "video", stride=0)
    data = ClipMaps(tmp_path / "s.zarr", tmp_path / "video", size=SIZE)
    (tmp_path / "video/001/0001.png").write_bytes((tmp_path / "video/002/0001.png").read_bytes())
    with pytest.raises(DataError, match="001: changed since the teacher saw it"):
        data[0]


def test_the_student_of_the_docs_learns(videos: list[VideoSource], tmp_path: Path) -> None:
    """The worked example as it stands in the docs, on small clips."""
    make_store(tmp_path / "maps.zarr", videos)
    (code,) = re.findall(r"```python\n(import torch.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 60
    code = code.replace('"maps.zarr"', repr(str(tmp_path / "maps.zarr"))).replace(
        '"clips/"', repr(str(tmp_path / "video"))
    )
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(textwrap.dedent(code), str(DOCS), "exec"), names)
    losses = names["losses"]
    assert isinstance(losses, list)
    assert losses[-1] < 0.7 * losses[0]
