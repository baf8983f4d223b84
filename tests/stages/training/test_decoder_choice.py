"""Students with any choice of decoders train from a store: every decoder learns, and the weights file tells them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.lively_networks import noise
from tests.moving_dot import SIZE, make_data, make_store
from tinyhd_pipe.stages.networks.levels import CONSPICUITY, levels_of
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.stages.student_train import student_train
from tinyhd_pipe.stages.training.fitting import Run
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import Store


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    root = tmp_path_factory.mktemp("dots")
    make_data(root, videos=2, labelled=1)
    return find_videos([root / "video"])


@pytest.fixture(scope="module")
def store(sources: list[VideoSource], tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("store") / "maps.zarr", sources)


@pytest.mark.parametrize(
    "chosen",
    [
        {"decoders": ("d1", "d1", "d1")},
        {"decoders": ("d2",)},
        {"decoders": ("d2", "d1")},
        {"decoders": ("d1", "d2", "d3")},
        {"decoders": ("d1", "d1"), "outputs": 16, "d1_outputs": 16},
        {"decoders": ("d2", "d1"), "outputs": 16, "d1_outputs": 1},
    ],
    ids=str,
)
def test_every_decoder_learns_and_the_file_brings_it_back(
    chosen: dict[str, Any], store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    """Two clips are enough to see that a gradient reaches every weight: only D2 and D3 have no target of their own."""
    recipe = StudentRecipe(
        size=SIZE, epochs=1, batch=1, milestones=(), clips_per_video=2, reduction=4, validation_clips=1, **chosen
    )
    fitted = student_train(Targets.of([store]), sources, [], recipe, Run(tmp_path))
    names = {level for levels in levels_of(recipe.decoders) for level in levels}
    assert set(fitted.history[0].loss) == (names | {"final"}) - {"d2", "d3"}

    first = dict(TinyHD(**{"reduction": 4, "outputs": 1, **chosen}, seed=recipe.seed).named_parameters())
    learned = read_weights(fitted.best).state
    assert not [name for name, parameter in first.items() if torch.equal(learned[name], parameter)]

    student = load_student(fitted.best)
    assert isinstance(student.module, TinyHD)
    assert student.module.decoders == student.module.fusion_order == recipe.decoders
    maps = student(noise(1, 1, 3, 16, *SIZE))
    assert set(maps) == names | {"final"}
    assert all(level.isfinite().all() for level in maps.values())
    for level in names & set(CONSPICUITY):
        assert maps[level].shape == ((1, *SIZE) if recipe.d1_outputs == 1 else (1, 16, *SIZE))
