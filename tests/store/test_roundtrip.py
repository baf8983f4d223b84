"""What is written is what is read: by our reader, and by plain zarr that knows nothing of us."""

import gc
import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import zarr

from tests.store_tools import (
    LEVELS,
    assert_stored,
    content_of,
    describe,
    live_logits,
    make_shard,
    sources_of,
    synthetic_logits,
    write_store,
)
from tinyhd_pipe.store import FrameStatus, ShardTask, Source, Store, StoreError, create_or_open, open_store
from tinyhd_pipe.store.codec import index_bytes, parse_index
from tinyhd_pipe.store.manifest import data_path
from tinyhd_pipe.store.plan import Member

LENGTHS = {"b/long.avi": 53, "a.mp4": 16, "one.mkv": 1, "c.avi": 17}


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    write_store(tmp_path / "maps.zarr", LENGTHS)
    return tmp_path / "maps.zarr"


def test_read_gives_every_map_within_its_tolerance_of_what_was_written(store_path: Path) -> None:
    store = open_store(store_path)
    for video, length in LENGTHS.items():
        read = store.read_logits(video, range(length))
        for level in store.description.levels:
            live = live_logits(video, length)[level.name]
            assert_stored(read[level.name], live, level.scale)


def test_levels_that_are_encoded_side_by_side_leave_the_same_bytes(store_path: Path, tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "side_by_side.zarr", describe())
    with writer.exclusive():
        for task in writer.plan(sources_of(LENGTHS), shard_bytes=2**20).todo:
            make_shard(writer, task, LENGTHS, threads=4)
    assert content_of(tmp_path / "side_by_side.zarr") == content_of(store_path)


def test_frames_come_in_the_order_asked_for(store_path: Path) -> None:
    store = open_store(store_path)
    frames = [40, 3, 3, 52, 15, 16]
    whole = store.read("b/long.avi", range(53))
    some = store.read("b/long.avi", frames)
    for level in LEVELS:
        np.testing.assert_array_equal(some[level], whole[level][frames])


def test_codes_are_what_is_stored_and_scale_to_the_logits(store_path: Path) -> None:
    store, frames = open_store(store_path), [*range(9, 35), 2]
    codes, logits = store.read_codes("b/long.avi", frames), store.read_logits("b/long.avi", frames)
    for level in store.description.levels:
        assert codes[level.name].dtype == np.uint8
        scaled = codes[level.name] * np.float32(level.scale) + np.float32(level.offset)
        np.testing.assert_allclose(scaled, logits[level.name], atol=1e-5)


def test_writing_to_what_was_read_changes_no_later_read(store_path: Path) -> None:
    store = open_store(store_path)
    for read in (store.read, store.read_codes, store.read_logits):
        first = read("c.avi", range(17))
        before = {level: maps.copy() for level, maps in first.items()}
        for maps in first.values():
            maps[:] = 0
        for level, maps in read("c.avi", range(17)).items():
            np.testing.assert_array_equal(maps, before[level])


def test_plain_zarr_reads_the_same_values(store_path: Path) -> None:
    store = open_store(store_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numcodecs.delta is outside the specification, as zarr says
        root = zarr.open_group(store_path, mode="r")
        for name in LEVELS:
            array = root[f"shards/00000/{name}"]
            values = array[:] * array.attrs["scale_factor"] + array.attrs["add_offset"]
            videos = root["shards/00000"].attrs["tinyhd"]["videos"]
            for video, first, rows in zip(videos["id"], videos["first_row"], videos["rows"], strict=True):
                ours = store.read_logits(video, range(rows))[name]
                np.testing.assert_allclose(values[first : first + rows], ours, atol=1e-5)


def test_zarr_writing_the_same_codes_gives_the_very_same_chunks(store_path: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = zarr.open_array(store_path / "shards/00000/final", mode="r")
        theirs = zarr.create_array(
            tmp_path / "theirs",
            shape=ours.shape,
            dtype="uint8",
            chunks=ours.chunks,
            shards=ours.shards,
            filters=ours.filters,
            compressors=ours.compressors,
        )
        theirs[:] = ours[:]
    count = ours.shape[0] // ours.chunks[0]
    assert _chunks(tmp_path / "theirs/c/0/0/0", count) == _chunks(store_path / data_path(0, "final"), count)


def _chunks(path: Path, count: int) -> list[bytes]:
    """The stored bytes of each chunk; zarr does not write them one after another, so offsets differ."""
    stored = path.read_bytes()
    index = parse_index(stored[-index_bytes(count) :])
    return [stored[int(start) : int(start + length)] for start, length in index]


def test_size_upsamples_logits_as_torch_does(store_path: Path) -> None:
    torch = pytest.importorskip("torch")
    store = open_store(store_path)
    logits = store.read_logits("c.avi", range(17))
    for size in ((24, 32), (48, 64), (72, 96), (96, 64), (37, 51)):
        maps = store.read("c.avi", range(17), size=size)
        for level in LEVELS:
            there = torch.from_numpy(logits[level])[:, None]
            expected = torch.nn.functional.interpolate(there, size=size, mode="bilinear", align_corners=False)
            np.testing.assert_allclose(maps[level], expected[:, 0].sigmoid().numpy(), atol=1e-5)
            assert maps[level].dtype == np.float32


def test_a_missing_map_never_comes_back_as_a_map(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "maps.zarr", describe())
    (task,) = writer.plan([Source("v", "one", 25), Source("w", "other", 9)]).todo
    with writer.shard(task) as shard:
        with shard.video("v") as video:
            video.append(synthetic_logits("v", 20))
            video.mark_failed(20)
            video.append(synthetic_logits("w", 4))
            video.mark_failed(3)
            video.finish(25)
        shard.failed_video("w", "not a video:\nmoov atom not found")
    store = open_store(tmp_path / "maps.zarr")
    status = store.status("v", [0, 3, 19, 20, 21, 24, 25, -1])
    valid, failed, never = FrameStatus.VALID, FrameStatus.FAILED, FrameStatus.NEVER_DUMPED
    assert status.tolist() == [valid, failed, valid, failed, valid, valid, never, never]
    with pytest.raises(StoreError, match="v: frames 3, 20 failed"):
        store.read("v", range(25))
    with pytest.raises(StoreError, match="frames 25, 26 were never dumped"):
        store.read("v", [0, 25, 26])
    with pytest.raises(StoreError, match="never dumped"):
        store.read("w", [0])
    assert store.video("w").problem == "not a video: moov atom not found"


def test_every_nth_frame_is_found_by_its_absolute_number(tmp_path: Path) -> None:
    live = synthetic_logits("v", 20)
    writer = create_or_open(tmp_path / "maps.zarr", describe(every=3))
    (task,) = writer.plan([Source("v", "one", 20)]).todo
    with writer.shard(task) as shard, shard.video("v") as video:
        video.append({name: maps[::3] for name, maps in live.items()})
        video.finish(20)
    store = open_store(tmp_path / "maps.zarr")
    assert store.every == 3
    read = store.read_logits("v", [18, 3])["final"]
    assert_stored(read, live["final"][[18, 3]], store.description.levels[0].scale)
    with pytest.raises(StoreError, match="frames 4 were never dumped"):
        store.read("v", [3, 4])


def test_a_store_pickles_small_and_reads_the_same_afterwards(store_path: Path) -> None:
    store = open_store(store_path)
    before = store.read("a.mp4", range(16))
    packed = pickle.dumps(store)
    assert len(packed) < 300
    after = pickle.loads(packed).read("a.mp4", range(16))
    for level in LEVELS:
        np.testing.assert_array_equal(before[level], after[level])


def test_a_store_opens_no_file_before_the_first_read_and_closes_them_with_itself(store_path: Path) -> None:
    store = pickle.loads(pickle.dumps(open_store(store_path)))
    assert store.videos
    assert _open_files(store_path) == 0
    store.read("a.mp4", range(16))
    assert _open_files(store_path) == len(LEVELS)
    del store
    gc.collect()
    assert _open_files(store_path) == 0


def _open_files(below: Path) -> int:
    """How many files of this folder the process has open."""
    open_files = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself is closed by now
            open_files.append(descriptor.readlink())
    return sum(below in file.parents for file in open_files)


def _sums(store: Store, video: str) -> dict[str, float]:
    return {level: float(maps.sum()) for level, maps in store.read(video, range(16)).items()}


def test_spawned_workers_read_the_same(store_path: Path) -> None:
    store = open_store(store_path)
    with get_context("spawn").Pool(1) as pool:
        there = pool.apply(_sums, (store, "a.mp4"))
    assert there == _sums(store, "a.mp4")


def test_threads_may_share_a_store(store_path: Path) -> None:
    store = open_store(store_path, cache_bytes=30_000)
    windows = [(video, start) for video in ("b/long.avi", "c.avi") for start in range(10)] * 8
    alone = [store.read(video, range(start, start + 7))["final"] for video, start in windows]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda w: store.read(w[0], range(w[1], w[1] + 7))["final"], windows))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_video_that_lies_in_two_shards_is_read_as_one(tmp_path: Path) -> None:
    live = live_logits("v", 50, "d")
    writer = create_or_open(tmp_path / "s", describe())
    for number, (first, last) in enumerate(((20, 50), (0, 20))):
        task = ShardTask(number, (Member("v", "d"),))
        with writer.shard(task) as shard, shard.video("v", first_frame=first) as video:
            video.append({level: maps[first:last] for level, maps in live.items()})
            video.finish(last)
    store = open_store(tmp_path / "s")
    assert store.videos == ["v"]
    assert store.video("v").frames == 50
    assert store.video("v").rows == 50
    frames = [*range(10, 40), 3, 45]
    assert_stored(store.read_logits("v", frames)["final"], live["final"][frames], store.description.levels[0].scale)
    with pytest.raises(StoreError, match=r"frames 50 were never dumped"):
        store.read("v", [19, 20, 50])


@pytest.mark.parametrize("frames", [[0.5], ["1"], [True]])
def test_frames_must_be_whole_numbers(store_path: Path, frames: list[object]) -> None:
    with pytest.raises(StoreError, match=r"frames are whole numbers"):
        open_store(store_path).read("a.mp4", frames)


def test_no_frames_give_no_maps_and_unknown_names_are_errors(store_path: Path) -> None:
    store = open_store(store_path)
    assert store.read("a.mp4", [])["final"].shape == (0, 24, 32)
    assert list(store.read("a.mp4", [0], levels=["final"])) == ["final"]
    with pytest.raises(StoreError, match=r"has no level \['d2'\]"):
        store.read("a.mp4", [0], levels=["d2"])
    with pytest.raises(StoreError, match=r"nosuch: not in"):
        store.read("nosuch", [0])


def test_info_says_what_a_paper_has_to_say(store_path: Path) -> None:
    info = json.loads(json.dumps(open_store(store_path).info()))
    assert info["teacher"] == {"kind": "hd2s", "weights": "abc"}
    assert info["temporal"]["window"] == 16
    assert info["levels"]["final"]["grid"] == [24, 32]
    assert info["bytes"] == sum(level["bytes"] for level in info["levels"].values()) > 10_000
    assert info["frames_with_maps"] == sum(LENGTHS.values())
    assert info["fidelity"]["budget"] == 2e-4
