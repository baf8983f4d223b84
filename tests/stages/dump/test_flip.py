"""Maps of mirrored clips: the dump keeps all its promises with them, and a mirrored sample sees the teacher's own."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.small_dumps import BUDGET, OPTIONS, SIZE, write_teacher, write_videos
from tests.store_tools import content_of
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump.fidelity import kl_of
from tinyhd_pipe.stages.dump.plan import plan_dump
from tinyhd_pipe.stages.dump.store_check import FAR, repair_store, sample_store
from tinyhd_pipe.stages.networks.levels import LEVELS, MIRRORED
from tinyhd_pipe.stages.networks.network import Network, load_teacher, ready
from tinyhd_pipe.stages.student_train import stored_videos
from tinyhd_pipe.stages.teacher_dump import DumpProgress, teacher_dump
from tinyhd_pipe.stages.training.dataset import ClipDataset, Sampling
from tinyhd_pipe.stages.training.live_targets import LiveTargets
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import StoreError, open_store

STORED_HERE = (*LEVELS[:4], "d2", "final")
BOTH = replace(OPTIONS, flip="both")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Random weights: nothing in them is the same from left to right."""
    return load_teacher("tinyhd", weights=write_teacher(tmp_path_factory.mktemp("weights") / "teacher.safetensors"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    lengths = {"0.mp4": 20, "1.mp4": 9, "2.mp4": 17}
    return find_videos([write_videos(tmp_path_factory.mktemp("videos"), lengths)])


@pytest.fixture(scope="module")
def dumped(teacher: Network, videos: list[VideoSource], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dumped") / "maps.zarr"
    teacher_dump(videos, str(path), teacher, BOTH)
    return path


def test_who_does_not_know_of_mirrored_maps_sees_the_store_that_has_none(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    teacher_dump(videos, str(tmp_path / "plain.zarr"), teacher, OPTIONS)
    both, plain = open_store(dumped), open_store(tmp_path / "plain.zarr")
    assert both.levels == plain.levels == STORED_HERE
    read, expected = (store.read(videos[0].id, range(20)) for store in (both, plain))
    assert read.keys() == expected.keys()
    for level, maps in read.items():
        np.testing.assert_array_equal(maps, expected[level])
    with pytest.raises(StoreError, match="has no maps of mirrored clips: make a store with 'teacher-dump --flip both'"):
        plain.read(videos[0].id, [0], mirrored=True)


def test_stored_mirrored_maps_are_the_live_ones_of_the_mirrored_clip_and_no_mirrored_maps(
    teacher: Network, videos: list[VideoSource], dumped: Path
) -> None:
    sampled = sample_store(str(dumped), teacher, videos, frames=12)
    assert sampled.kept
    assert sampled.levels.keys() == {*STORED_HERE, *(MIRRORED[level] for level in STORED_HERE)}
    info = open_store(dumped).info()
    errors = [info["fidelity"]["measured"][level]["flip_error"] for level in STORED_HERE]
    assert max(errors) > 4 * FAR * BUDGET, "or mirroring the plain maps would pass, too"


@pytest.mark.parametrize("flip", ["none", "both"])
def test_a_mirrored_sample_sees_the_teachers_maps_of_it_where_the_store_has_them_and_others_the_plain_ones(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path, flip: Literal["none", "both"]
) -> None:
    if flip == "none":
        teacher_dump(videos, str(tmp_path / "plain.zarr"), teacher, OPTIONS)
    store = open_store(dumped if flip == "both" else tmp_path / "plain.zarr")
    targets = Targets.of([store])
    plain, mixed = (
        ClipDataset(
            stored_videos(targets, videos, []),
            scaling=teacher.scaling,
            sampling=Sampling(outputs=16, seed=2, flip=flipped),
            targets=targets,
        )
        for flipped in (False, True)
    )
    seen = set()
    for key in [(epoch, index) for epoch in range(3) for index in range(3)]:
        before, after = plain[key], mixed[key]
        mirrored = not torch.equal(before.clip, after.clip)
        seen.add(mirrored)
        assert torch.equal(after.clip, before.clip.flip(-1) if mirrored else before.clip)
        if not mirrored:
            assert torch.equal(after.maps["d2"], before.maps["d2"])
        elif flip == "none":
            assert torch.equal(after.maps["d2"], before.maps["d2"].flip(-1))
        elif key[1] == 1:  # 9 frames: the student's only window is the one that the teacher saw
            live, seen_maps, turned = (
                _logits(teacher, after.clip)["d2"][0, -9:],
                after.maps["d2"][0, -9:].logit(),
                before.maps["d2"][0, -9:].flip(-1).logit(),
            )
            assert kl_of(live, seen_maps, SIZE) < FAR * BUDGET
            assert kl_of(live, turned, SIZE) > 4 * FAR * BUDGET
    assert seen == {False, True}


def _logits(teacher: Network, clip: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        answer: dict[str, Tensor] = teacher.module(clip)
    return answer


def test_the_live_teacher_of_mirrored_samples_sees_what_its_store_was_made_of(
    teacher: Network, videos: list[VideoSource], dumped: Path
) -> None:
    stored = Targets.of([open_store(dumped)])
    live = LiveTargets.instead_of(stored, teacher, videos)
    here, there, turned = (
        torch.from_numpy(targets.read(videos[0].id, [3, 18], size=SIZE, mirrored=True)["final"]).logit()
        for targets in (live, stored, replace(live, sees_mirrored=False))
    )
    assert kl_of(here, there, SIZE) < FAR * BUDGET
    assert kl_of(turned, there, SIZE) > 4 * FAR * BUDGET
    assert LiveTargets.of(teacher, videos[:1]).sees_mirrored, "as published"
    fewer = replace(live, kept=("final",))
    for mirrored in (False, True):
        assert fewer.read(videos[0].id, [3], size=SIZE, mirrored=mirrored).keys() == {"final"}
    assert fewer.levels == ("final",)
    assert live.kept == STORED_HERE, "a store with fewer levels than its teacher has is compared level by level"


def test_a_dump_of_both_that_is_killed_or_damaged_ends_with_the_same_bytes(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    store = tmp_path / "maps.zarr"

    def kill(at: DumpProgress) -> None:
        if at.videos == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teacher_dump(videos, str(store), teacher, BOTH, report=kill)
    assert 0 < len(open_store(store).videos) < len(videos)
    teacher_dump(videos, str(store), teacher, BOTH)
    assert content_of(store) == content_of(dumped)
    (store / "shards/00000/final_mirrored/c/0/0/0").write_bytes(b"gone")
    (store / "zarr.json").write_text("gone")
    repair_store(str(store), teacher=teacher, sources=videos)
    assert content_of(store) == content_of(dumped)


def test_the_plan_of_both_is_of_twice_the_bytes_and_windows_and_the_two_do_not_mix(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    single, double = (plan_dump(videos, str(tmp_path / "none"), teacher, options) for options in (OPTIONS, BOTH))
    assert double.maps_left == single.maps_left
    assert 1.7 < double.bytes_left / single.bytes_left < 2.3
    assert double.break_even.epochs_single == 2 * single.break_even.epochs_single
    for options, said in ((OPTIONS, "flip = both, not none"), (replace(BOTH, keep=("final",)), "levels.conspicuity_2")):
        with pytest.raises(StoreError, match=said):
            teacher_dump(videos, str(dumped), teacher, options)


class Pointwise(nn.Module):
    """A teacher that says how bright a pixel is, by a weight for each column."""

    def __init__(self, columns: Sequence[float]) -> None:
        super().__init__()
        self.columns, self.outputs = torch.tensor(columns), 1

    def native_logits(self, clip: Tensor) -> dict[str, Tensor]:
        return {"final": clip[:, :, -1].mean(dim=1) * self.columns - 3}


@pytest.mark.parametrize("flip", ["none", "both"])
def test_the_flip_error_of_a_symmetric_teacher_is_zero_and_that_of_another_is_not(
    videos: list[VideoSource], tmp_path: Path, capsys: pytest.CaptureFixture[str], flip: Literal["none", "both"]
) -> None:
    figures = []
    for name, columns in (("even", [1.0] * SIZE[1]), ("ramp", [column / SIZE[1] for column in range(SIZE[1])])):
        path = str(tmp_path / name)
        teacher_dump(videos, path, ready("tinyhd", Pointwise(columns), size=SIZE), replace(OPTIONS, flip=flip))
        figures.append(open_store(path).info()["fidelity"]["measured"]["final"]["flip_error"])
        assert run(["store", "info", path]) == 0
        assert "flip error" in capsys.readouterr().err
    assert abs(figures[0]) < 1e-9
    assert figures[1] > 0.01
