"""Two teachers by their stores: likeness that arithmetic knows, and fused maps that are those of training."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import entropy

from tests.moving_dot import SIZE, make_data, make_store
from tests.store_tools import content_of
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.store_compare import compare_stores, draw_difference
from tinyhd_pipe.stages.store_fuse import fuse_stores
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import Description, FrameStatus, Level, Source, Store, create_or_open, open_store
from tinyhd_pipe.store.errors import DataError, SettingError, StoreError

BUDGET = 0.002
OPTIONS = DumpOptions(fidelity=BUDGET, allow_noncommercial=True)


@pytest.fixture
def videos(tmp_path: Path) -> list[VideoSource]:
    make_data(tmp_path, videos=3, labelled=1)
    return find_videos([tmp_path / "video"])


def _write(path: Path, maps: dict[str, dict[str, np.ndarray]], licence: str, failed: dict[str, int]) -> Store:
    """A store of these logits: video -> level -> (frame, y, x)."""
    levels = tuple(Level(level, SIZE, 0.05, -11) for level in next(iter(maps.values())))
    description = Description(levels, SIZE, {"kind": path.stem}, provenance={"licence": licence})
    writer = create_or_open(path, description)
    sources = [Source(video, f"digest of {video}", 20) for video in maps]
    for task in writer.plan(sources, shard_bytes=1500).todo:
        with writer.shard(task) as shard:
            for member in task.to_make:
                with shard.video(member.id) as video:
                    logits = maps[member.id]
                    video.append({level: one.astype(np.float32) for level, one in logits.items()})
                    if member.id in failed:
                        video.mark_failed(failed[member.id])
                    video.finish(len(next(iter(logits.values()))))
    return open_store(path)


def _logits(seed: int, *levels: str, frames: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    smooth = rng.normal(-4, 1.2, (frames, 4, 8)).repeat(8, axis=1).repeat(8, axis=2)
    return {level: (smooth + place).clip(-10, 1.5) for place, level in enumerate(levels)}


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Store, Store]:
    """Of three videos each, two in common; one teacher has conspicuity maps, the other none."""
    first = {video: _logits(seed, "final", "conspicuity_2") for seed, video in enumerate("abc")}
    second = {video: _logits(10 + seed, "final") for seed, video in enumerate("bcd")}
    return (
        _write(tmp_path / "one.zarr", first, "CC BY 4.0", {"b": 3}),
        _write(tmp_path / "two.zarr", second, "CC BY-NC-SA 4.0", {"c": 0}),
    )


def test_likeness_is_what_the_formulas_say_of_the_maps_that_are_read(pair: tuple[Store, Store]) -> None:
    one, two = pair
    compared = compare_stores(one.url, two.url)
    assert (compared.videos, compared.frames) == (2, 38), "a frame that failed in either is not compared"
    assert (compared.only_in_first, compared.only_in_second) == (("a",), ("d",))
    assert list(compared.levels) == ["final"]
    expected = {"kl": [], "kl_back": [], "cc": []}
    for video, failed in (("b", 3), ("c", 0)):
        frames = [frame for frame in range(20) if frame != failed]
        for p, q in zip(*(s.read(video, frames, size=SIZE)["final"].reshape(19, -1) for s in pair), strict=True):
            expected["kl"].append(entropy(p, q))
            expected["kl_back"].append(entropy(q, p))
            expected["cc"].append(np.corrcoef(p, q)[0, 1])
    for name, values in expected.items():
        assert getattr(compared.levels["final"], name) == pytest.approx(np.mean(values), rel=1e-4)
    worst = compared.most_different_frames[0]
    assert worst.kl == pytest.approx(max(expected["kl"]), rel=1e-4)
    assert len([each for each in compared.most_different_frames if each.video == "b"]) == 2, "neighbours look alike"
    assert compare_stores(one.url, two.url, step=5).frames == 8


def test_a_store_is_like_itself_and_a_teacher_that_is_late_is_not(videos: list[VideoSource], tmp_path: Path) -> None:
    stores = [make_store(tmp_path / f"{slip}.zarr", videos, slip=slip).url for slip in (0, 4)]
    same, late = compare_stores(stores[0], stores[0]), compare_stores(*stores)
    assert all((like.kl, like.cc) == (pytest.approx(0, abs=1e-6), pytest.approx(1)) for like in same.levels.values())
    assert late.levels["final"].kl > 0.5
    path = draw_difference(late, tmp_path / "sheet.png", videos)
    with Image.open(path) as drawn:
        assert drawn.width > 3 * 240
        assert np.asarray(drawn).std() > 10


def test_fused_maps_are_those_that_training_fuses_on_the_fly(pair: tuple[Store, Store], tmp_path: Path) -> None:
    fused = fuse_stores([one.url for one in pair], [0.6, 0.4], str(tmp_path / "fused.zarr"), OPTIONS)
    assert (fused.videos, fused.left_out, fused.licence) == (2, ("a", "d"), "CC BY 4.0 + CC BY-NC-SA 4.0")
    store = open_store(tmp_path / "fused.zarr")
    live, stored = Targets.of(pair, [0.6, 0.4]), Targets.of([store])
    assert set(stored.levels) == set(live.levels)
    assert stored.licences == ["CC BY 4.0 + CC BY-NC-SA 4.0"]
    for video, failed in (("b", 3), ("c", 0)):
        assert stored.video(video).failed == live.video(video).failed == (failed,)
        frames = [frame for frame in range(20) if frame != failed]
        for level in live.levels:
            on_the_fly = live.read(video, frames, size=SIZE)[level].reshape(19, -1)
            once = stored.read(video, frames, size=SIZE)[level].reshape(19, -1)
            other = Targets.of(pair, [0.4, 0.6]).read(video, frames, size=SIZE)[level].reshape(19, -1)
            assert np.mean([entropy(p, q) for p, q in zip(on_the_fly, once, strict=True)]) < 2 * BUDGET
            if level == "final":
                assert np.mean([entropy(p, q) for p, q in zip(other, once, strict=True)]) > 4 * BUDGET
        assert store.status(video, [failed]) == FrameStatus.FAILED


def test_fusing_again_adds_what_is_new_and_a_run_that_was_cut_off_ends_with_the_same_bytes(
    pair: tuple[Store, Store], tmp_path: Path
) -> None:
    urls, options = [one.url for one in pair], replace(OPTIONS, shard_megabytes=1500 / 2**20)
    fuse_stores(urls, None, str(tmp_path / "whole.zarr"), options)

    def kill(done: int, total: int) -> None:
        if done > 19:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fuse_stores(urls, None, str(tmp_path / "cut.zarr"), options, kill)
    again = fuse_stores(urls, None, str(tmp_path / "cut.zarr"), options)
    assert (again.already_there, again.frames) == (1, 19)
    assert content_of(tmp_path / "cut.zarr") == content_of(tmp_path / "whole.zarr")
    assert fuse_stores(urls, None, str(tmp_path / "cut.zarr"), options).frames == 0


def test_other_teachers_other_weights_and_stores_that_do_not_fit_are_refused(
    pair: tuple[Store, Store], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    urls, out, options = [one.url for one in pair], str(tmp_path / "f.zarr"), OPTIONS
    with pytest.raises(
        SettingError, match=r"two.zarr: its terms, CC BY-NC-SA 4.0, forbid commercial use.*--allow-nonc"
    ):
        fuse_stores(urls, [1, 3], out, DumpOptions(fidelity=BUDGET))
    fuse_stores(urls, [1, 3], out, options)
    fuse_stores(urls, [1, 3], out, DumpOptions(fidelity=BUDGET))  # it was asked for once
    assert open_store(out).description.provenance["noncommercial"] == "accepted"
    with pytest.raises(StoreError, match=r"made with teacher.weights = \[0.25, 0.75\], not \[0.5, 0.5\]"):
        fuse_stores(urls, [1, 1], out, options)
    with pytest.raises(SettingError, match="--weights 1 1 1: expected a positive number for each of 2 stores"):
        fuse_stores(urls, [1, 1, 1], str(tmp_path / "g.zarr"), options)
    with pytest.raises(SettingError, match="expected two stores or more, and another one for --store"):
        fuse_stores(urls, None, urls[0], options)
    _write(tmp_path / "far.zarr", {"z": _logits(0, "final")}, "", {})
    with pytest.raises(DataError, match="hold no video in common"):
        fuse_stores([urls[0], str(tmp_path / "far.zarr")], None, str(tmp_path / "g.zarr"), options)
    with pytest.raises(DataError, match="no frame of which both have a map"):
        compare_stores(urls[0], str(tmp_path / "far.zarr"))
    assert run(["store", "fuse", *urls, "--store", str(tmp_path / "h.zarr"), "--weights", "3", "1", "--json"]) == 2
    assert "--allow-noncommercial says that you know" in capsys.readouterr().err
    more = ["--weights", "3", "1", "--allow-noncommercial", "--json"]
    assert run(["store", "fuse", *urls, "--store", str(tmp_path / "h.zarr"), *more]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 2
    assert run(["store", "info", str(tmp_path / "h.zarr")]) == 0
    assert "teachers: 2: kind" in capsys.readouterr().err
    assert run(["store", "compare", *urls, "--out", str(tmp_path / "d.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 38
    assert run(["store", "compare", urls[0], str(tmp_path / "none.zarr")]) == 1
    assert "no store there" in capsys.readouterr().err
