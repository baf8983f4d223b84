"""`bench train`: losses of both ways are compared before anything is timed, and with other maps nothing is."""

from pathlib import Path
from typing import Any

import pytest

from tests.moving_dot import make_data
from tinyhd_pipe.stages.bench.train import Compared, bench_train
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import Network, ready
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.stages.teacher_dump import teacher_dump
from tinyhd_pipe.stages.training.live_targets import LiveTargets
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store import open_store
from tinyhd_pipe.store.errors import TinyHDError

RECIPE = StudentRecipe(size=(64, 64), reduction=4, batch=1, decoders=("d1",))


def _teacher(seed: int) -> Network:
    return ready("hd2s", HD2S(width=0.25, seed=seed), size=(64, 64))


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    root: Path = tmp_path_factory.mktemp("bench")
    make_data(root)
    sources = find_videos([root / "video"])
    teacher_dump(sources, str(root / "maps.zarr"), _teacher(1), DumpOptions())
    return Compared(_teacher(1), Targets.of([open_store(str(root / "maps.zarr"))]), sources)


@pytest.mark.slow
def test_both_ways_are_timed_part_by_part_after_their_losses_agreed(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    read = LiveTargets.read

    def counted(live: LiveTargets, video: str, *others: Any, **named: Any) -> Any:
        asked.append(video)
        return read(live, video, *others, **named)

    monkeypatch.setattr(LiveTargets, "read", counted)
    measured = bench_train(compared, RECIPE, rounds=1)
    published, ours = measured.ways
    assert published.ratio == 1
    assert ours.samples_a_second > 0
    assert len(asked) == 2 + 2, (
        "the teacher is asked for two samples to compare, and two published steps; by ours never"
    )
    assert published.parts["teacher"] > 0
    assert ours.parts["read"] > 0
    for way in measured.ways:
        assert {"decode", "wait", "forward", "loss", "backward", "step"} < way.parts.keys()
    for online, offline, bound in measured.losses.values():
        assert abs(online - offline) <= bound


def test_nothing_is_timed_where_the_maps_are_another_teachers(compared: Compared) -> None:
    other = Compared(_teacher(2), compared.stored, compared.sources)
    with pytest.raises(TinyHDError, match="not this teacher's; give the weights that it was dumped with"):
        bench_train(other, RECIPE, rounds=1)
