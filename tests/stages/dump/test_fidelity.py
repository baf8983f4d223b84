"""What is stored against what the live teacher says: at the teacher's size, level by level, with controls that fail."""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.stages.networks.test_hd2s import blobs, lively
from tinyhd_pipe.stages.dump.fidelity import Choice, choose_levels, kl_of, to_grid, to_size
from tinyhd_pipe.stages.networks.network import Network, load_teacher
from tinyhd_pipe.stages.networks.teacher_maps import teacher_maps
from tinyhd_pipe.stages.settings.teacher_dump import StoredLevel
from tinyhd_pipe.stages.video.decoding import Picture, decode
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store import Source, Store, create_or_open, open_store
from tinyhd_pipe.store.encoding import CENTRE, tolerance
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.schema import Description, Level

BUDGET = 2e-4


def stored(path: Path, native: Mapping[str, torch.Tensor], levels: Sequence[Level], size: tuple[int, int]) -> Store:
    """A store of one video with these logits (frame, y, x)."""
    writer = create_or_open(path, Description(levels=tuple(levels), teacher_grid=size, teacher={"kind": "live"}))
    frames = len(native["final"])
    (task,) = writer.plan([Source("v", "v", frames)]).todo
    with writer.shard(task) as shard, shard.video("v") as video:
        video.append({level.name: to_grid(native[level.name], level.grid).numpy() for level in levels})
        video.finish(frames)
    return open_store(path)


@settings(max_examples=6, deadline=None)
@example(weights=0, pixels=195933)  # logits up to 26
@given(weights=st.integers(0, 3), pixels=st.integers(0, 2**31))
def test_hd2s_conspicuity_read_from_the_half_grid_is_the_live_map_up_to_rounding(
    tmp_path_factory: pytest.TempPathFactory, weights: int, pixels: int
) -> None:
    """Upsampling averages, so what rounding does on the half grid bounds the error of every pixel at full size."""
    network, clip = lively(2 / 16, weights), blobs(pixels, 3, 64, 96)
    with torch.inference_mode():
        live, native = network(clip), network.native_logits(clip)
    furthest = max(float((maps - CENTRE).abs().max()) for maps in native.values())
    wide = max(0.2, furthest / 127)  # logits of random weights go far: 256 codes have to reach them
    levels = [StoredLevel((maps.shape[1], maps.shape[2]), wide).level(name) for name, maps in native.items()]
    assert [level.grid for level in levels] == [(32, 48)] * 4 + [(64, 96)]
    store = stored(tmp_path_factory.mktemp("half") / "maps.zarr", native, levels, (64, 96))
    read = store.read("v", range(3), size=(64, 96))
    for name, maps in read.items():
        allowed = np.stack([tolerance(logits.numpy(), wide) for logits in native[name]])
        bound = to_size(torch.from_numpy(allowed), (64, 96))
        least, most = ((live[name] + sign * (bound + 1e-4)).sigmoid().numpy() for sign in (-1, 1))
        assert ((least - 1e-6 <= maps) & (maps <= most + 1e-6)).all(), name


def test_on_the_half_grid_conspicuity_costs_nothing_and_final_does() -> None:
    clip = blobs(1, 2, 64, 96)
    with torch.inference_mode():
        live, native = lively(2 / 16, 1)(clip), lively(2 / 16, 1).native_logits(clip)
    for name, logits in live.items():
        cost = kl_of(logits, to_grid(native[name], (32, 48)), (64, 96))
        assert (cost > 1e-6) if name == "final" else (abs(cost) < 1e-9), name


def smooth() -> torch.Tensor:
    y, x = np.mgrid[:64, :96] / 32
    time = np.arange(24)[:, None, None] / 20
    return torch.from_numpy((3 * np.sin(y + time) * np.cos(x) - 4).astype(np.float32))


def choose(**levels: StoredLevel) -> Choice:
    (choice,) = choose_levels({"final": smooth()}, size=(64, 96), budget=BUDGET, given=levels)
    return choice


def test_a_given_grid_and_step_are_taken_as_they_are_and_measured() -> None:
    choice = choose(final=StoredLevel((64, 96), 0.06))
    assert (choice.level.grid, choice.level.scale) == ((64, 96), 0.06)
    assert 0 < choice.kl < BUDGET
    assert choice.bytes_per_map > choose().bytes_per_map


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ({"final": StoredLevel((64, 96), 0.3)}, r"final on 64x96 in steps of 0.3 costs .* more than fidelity 0.0002"),
        ({"final": StoredLevel((4, 6), 0.06)}, r"final on 4x6 .* more than fidelity"),
        ({"final": StoredLevel((48, 96), 0.06)}, r"expected a grid that divides the teacher's 64x96"),
        ({"final": StoredLevel((128, 192), 0.06)}, r"expected a grid that divides the teacher's 64x96"),
        ({"final": StoredLevel((64, 96), 0.01)}, r"8 bits need 0.055 logits or more"),
        ({"finale": StoredLevel((64, 96), 0.06)}, r"'finale' is not known: the levels are final"),
    ],
)
def test_what_is_given_and_cannot_keep_the_budget_is_refused(levels: dict[str, StoredLevel], reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        choose(**levels)


@pytest.mark.shared
@pytest.mark.slow
def test_real_maps_keep_the_budget_and_maps_one_frame_late_or_of_another_teacher_do_not(
    shared: Path, tmp_path: Path
) -> None:
    (source,) = find_videos([shared / "data/videos/natural/0068.AVI"])
    pictures = list(islice(decode(source), 18))
    live, other = (
        _maps(load_teacher("tinyhd", weights=shared / "reference/weights" / f"d123{kind}_rc4_rc1T.pth"), pictures)
        for kind in "sm"
    )
    choices = choose_levels(live, size=(192, 256), budget=BUDGET)
    assert np.mean([choice.bytes_per_map for choice in choices]) < 14_500
    store = stored(tmp_path / "maps.zarr", live, [choice.level for choice in choices], (192, 256))
    for level, maps in store.read("v", range(18), size=(192, 256)).items():
        read = torch.from_numpy(maps).logit()
        assert kl_of(live[level], read, (192, 256)) <= BUDGET, level
        assert kl_of(live[level][:-1], read[1:], (192, 256)) > BUDGET, level
        assert kl_of(other[level], read, (192, 256)) > 10 * BUDGET, level


def _maps(teacher: Network, pictures: list[Picture | None]) -> dict[str, torch.Tensor]:
    batches = [logits for _, logits in teacher_maps(teacher, iter(pictures))]
    return {level: torch.cat([batch[level] for batch in batches]) for level in batches[0]}
