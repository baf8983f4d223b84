"""What the tests of training share: videos of a moving dot, and a store of maps of it."""

from pathlib import Path

import pytest

from tests.moving_dot import make_data, make_store
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import Store


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    root: Path = tmp_path_factory.mktemp("dots")
    make_data(root)
    return find_videos([root / "video"])


@pytest.fixture(scope="module")
def store(sources: list[VideoSource], tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "maps.zarr", sources)
