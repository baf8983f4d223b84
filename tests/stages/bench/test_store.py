"""The benchmark of stores: equal answers before any time, and figures that mean what their columns say."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_dumps import write_videos
from tests.store_tools import LEVELS, describe, sources_of, synthetic_logits, write_store
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.bench.encodings import LINEAR_FAINTEST, bench_encodings, others, ours
from tinyhd_pipe.stages.bench.store import Window, bench_store, refuse_different
from tinyhd_pipe.stages.dump.fidelity import kl_of
from tinyhd_pipe.stages.networks.levels import CONSPICUITY
from tinyhd_pipe.stages.networks.network import ready
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store import StoreError, create_or_open, open_store
from tinyhd_pipe.store.encoding import Codes
from tinyhd_pipe.store.errors import TinyHDError
from tinyhd_pipe.store.schema import Level

SIZE = (32, 48)


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "maps.zarr"
    write_store(path, {"short.avi": 3, "a.avi": 40, "b.avi": 16, "none.avi": 0}, shard_bytes=12_000)
    return path


def test_every_reader_is_timed_on_windows_of_all_levels(store_path: Path) -> None:
    measured = bench_store(str(store_path), windows=4, rounds=2)
    names = [reader.name for reader in measured.readers]
    assert names[:4] == ["zarr's own slicing", "h5py, gzip", "h5py, lzf", "memory map of raw codes"]
    assert [name for name in names if name.startswith("ours")] == names[4:]
    assert measured.readers[0].ratio == 1
    assert all(reader.windows_per_second > 0 for reader in measured.readers)
    assert measured.levels == LEVELS
    assert {"processor", "zarr", "numcodecs", "h5py"} <= measured.machine.keys()


def test_a_reader_one_frame_off_is_refused_before_anything_is_timed(store_path: Path) -> None:
    store = open_store(store_path)
    windows = [Window("a.avi", np.arange(5, 21), row=5)]

    def right(at: Window) -> Mapping[str, Codes]:
        return store.read_codes(at.video, at.frames)

    def late(at: Window) -> Mapping[str, Codes]:
        return store.read_codes(at.video, at.frames + 1)

    refuse_different({"right": right, "again": right}, windows)
    with pytest.raises(TinyHDError, match=r"a.avi, frames 5 to 20, final: late and right do not give equal codes"):
        refuse_different({"right": right, "late": late}, windows)


def test_rows_that_were_exchanged_are_found_by_the_benchmark_itself(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyhd_pipe.store.reader import Store

    read = Store.read_codes
    monkeypatch.setattr(Store, "read_codes", lambda store, video, frames: read(store, video, frames[::-1]))
    with pytest.raises(TinyHDError, match="nothing was timed"):
        bench_store(str(store_path), windows=2, rounds=1)


def test_our_reader_is_several_times_as_fast_as_slicing_with_zarr(tmp_path: Path) -> None:
    grids = dict.fromkeys((*CONSPICUITY, "final"), (96, 128))
    writer = create_or_open(tmp_path / "s", describe(levels=grids))
    (task,) = writer.plan(sources_of({"v": 64})).todo
    with writer.shard(task) as shard, shard.video("v") as video:
        video.append(synthetic_logits("v", 64, grids))
        video.finish(64)
    ratios = {reader.name: reader.ratio for reader in bench_store(str(tmp_path / "s"), windows=12, rounds=3).readers}
    assert ratios["ours, codes"] > 3  # about 8 on a quiet machine
    assert ratios["ours, float32 maps"] > 2.5


def test_a_store_of_short_videos_is_one_line(tmp_path: Path) -> None:
    write_store(tmp_path / "s", {"a": 15})
    with pytest.raises(StoreError, match="no video with 16 maps"):
        bench_store(str(tmp_path / "s"))


def _logits(frames: int = 20) -> torch.Tensor:
    """A peak that wanders over a faint background, as HD2S's maps are: (frame, y, x) on the half grid."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n // 2) for n in SIZE), indexing="ij")
    time = np.arange(frames)[:, None, None] / 20
    peak = np.exp(-((y - 0.5 - 0.2 * np.sin(time)) ** 2 + (x - 0.3 - 0.2 * time) ** 2) * 30)
    return torch.from_numpy((-7 + 5 * peak).astype(np.float32))


def test_every_encoding_gives_back_the_maps_up_to_its_rounding(tmp_path: Path) -> None:
    logits = _logits()
    full = torch.nn.functional.interpolate(logits[:, None], SIZE, mode="bilinear")[:, 0].sigmoid().numpy()
    for name, pack in others(tmp_path, SIZE).items():
        unpacked = pack("final", logits).unpack()
        rounding = LINEAR_FAINTEST if "linear" in name else 1e-4
        assert np.abs(unpacked - full).max() <= rounding * 1.001, name
        assert unpacked.dtype == np.float32
    level = Level.at_budget("final", (SIZE[0] // 2, SIZE[1] // 2))
    unpacked = ours([level])("final", logits).unpack()
    assert kl_of(logits, torch.from_numpy(unpacked).logit(), SIZE) < 2e-4


def test_bytes_are_those_of_all_maps(tmp_path: Path) -> None:
    packs = others(tmp_path, SIZE)
    assert packs["raw float16"]("final", _logits()).bytes == 20 * SIZE[0] * SIZE[1] * 2
    for name, pack in packs.items():
        once, twice = pack("final", _logits()).bytes, pack("final", _logits(40)).bytes
        assert 1.2 * once < twice, name
    level = Level.at_budget("final", (SIZE[0] // 2, SIZE[1] // 2))
    assert ours([level])("final", _logits()).bytes < packs["PNG, 8 bit linear"]("final", _logits()).bytes


def test_the_command_prints_both_tables_and_says_what_it_needs(
    store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tinyhd_pipe.stages.networks.tinyhd import TinyHD
    from tinyhd_pipe.stages.networks.weights import write_weights
    from tinyhd_pipe.stages.video.writing import write_video

    write_weights(tmp_path / "w.safetensors", TinyHD(reduction=4).state_dict(), {"kind": "tinyhd", "size": [32, 64]})
    write_video(tmp_path / "v.mp4", np.random.default_rng(0).integers(0, 255, (4, 32, 64, 3), dtype=np.uint8))
    maps = f"--videos {tmp_path}/v.mp4 --weights {tmp_path}/w.safetensors --teacher tinyhd --frames 4"
    assert run(f"bench store --store {store_path} --windows 2 {maps} --json".split()) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["readers"]["readers"][0]["name"] == "zarr's own slicing"
    names = [encoding["name"] for encoding in result["encodings"]["encodings"]]
    assert names[-2:] == ["ours, budget 0.0002", "ours, budget 0.0015"]
    assert "times zarr's" in shown.err
    assert "bytes a map" in shown.err
    assert run(["bench", "store"]) == 2
    assert "give --store" in capsys.readouterr().err


def test_encodings_are_compared_on_the_maps_that_a_teacher_has(tmp_path: Path) -> None:
    """A TinyHD without D1 has its final map alone."""
    teacher = ready("tinyhd", TinyHD(decoders=("d2",), reduction=4), size=(32, 32))
    videos = find_videos([write_videos(tmp_path, {"0.mp4": 9})])
    measured = bench_encodings(teacher, videos, frames=4, budgets=[1e-3])
    assert measured.maps == 4
    assert {level for levels in measured.levels.values() for level in levels} == {"final"}
