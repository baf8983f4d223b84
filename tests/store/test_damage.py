"""Every flipped bit, cut file and missing shard is found, named, and undone."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.store_tools import LEVELS, content_of, describe, make_shard, write_store
from tinyhd_pipe.store import StoreError, create_or_open, open_store
from tinyhd_pipe.store.codec import crc32c, index_bytes, parse_index
from tinyhd_pipe.store.manifest import data_path
from tinyhd_pipe.store.repair import repair
from tinyhd_pipe.store.schema import CHUNK_FRAMES
from tinyhd_pipe.store.verify import verify

LENGTHS = {"a.avi": 20, "b.avi": 40, "c.avi": 3, "failed.avi": 0, "d.avi": 33}
SMALL = 12_000  # bytes: shards of a; b; c, d and the failed one


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "maps.zarr"
    write_store(path, LENGTHS, shard_bytes=SMALL)
    assert len(list((path / "shards").glob("0*"))) == 3
    return path


@pytest.fixture
def store_path(sound: Path, tmp_path: Path) -> Path:
    shutil.copytree(sound, tmp_path / "maps.zarr")
    return tmp_path / "maps.zarr"


def mend(path: Path, lengths: Mapping[str, int] = LENGTHS) -> list[str]:
    """Repair a store; returns the ids that were made again."""
    tasks = repair(path, verify(path))
    writer = create_or_open(path, describe())
    return [video_id for task in tasks for video_id in make_shard(writer, task, lengths)]


def test_a_sound_store_has_no_damage(sound: Path) -> None:
    report = verify(sound)
    assert report.sound
    assert report.shards == 3
    assert report.chunks == 2 * (3 + 5 + 1 + 5)


def test_any_flipped_bit_is_found_and_undone(sound: Path) -> None:
    rng = np.random.default_rng(0)
    before = content_of(sound)
    paths = sorted(before)
    sizes = np.array([len(before[path]) for path in paths])
    for _ in range(60):
        path = paths[rng.choice(len(paths), p=sizes / sizes.sum())]
        damaged = bytearray(before[path])
        bit = int(rng.integers(len(damaged) * 8))
        damaged[bit // 8] ^= 1 << bit % 8
        (sound / path).write_bytes(damaged)
        report = verify(sound)
        assert [damage.path for damage in report.damages] == [path], (path, bit)
        mend(sound)
        assert content_of(sound) == before, (path, bit)


def test_200_flipped_bits_of_data_and_index_are_each_named_by_video_and_frame(sound: Path) -> None:
    rng = np.random.default_rng(0)
    held = chunks_by_place(sound)
    paths = sorted(held)
    sizes = np.array([(sound / path).stat().st_size for path in paths])
    in_index = 0
    for _ in range(200):
        path = paths[rng.choice(len(paths), p=sizes / sizes.sum())]
        before = (sound / path).read_bytes()
        at = int(rng.integers(len(before)))
        ends, names = held[path]
        if at < ends[-1]:
            expected = {names[int(np.searchsorted(ends, at, side="right"))]}
        else:  # 16 bytes for each chunk, and a checksum of them all
            entry = (at - ends[-1]) // 16
            expected = set(names[entry : entry + 1] or names)
            in_index += 1
        damaged = bytearray(before)
        damaged[at] ^= 1 << int(rng.integers(8))
        (sound / path).write_bytes(damaged)
        damages = verify(sound).damages
        (sound / path).write_bytes(before)
        assert {damage.path for damage in damages} == {path}, at
        assert covers({str(affected) for damage in damages for affected in damage.affected}, expected), at
    assert 0 < in_index < 100


def chunks_by_place(store: Path) -> dict[str, tuple[list[int], list[tuple[str, int]]]]:
    """Data file -> ends of its chunks in bytes, and (video, first frame) of each chunk, from what the shards say."""
    held = {}
    for number in range(3):
        videos = json.loads((store / f"shards/{number:05d}/zarr.json").read_text())["attributes"]["tinyhd"]["videos"]
        names = [
            (video, frame)
            for video, rows in zip(videos["id"], videos["rows"], strict=True)
            for frame in range(0, rows, CHUNK_FRAMES)
        ]
        for level in LEVELS:
            stored = (store / data_path(number, level)).read_bytes()
            ends = parse_index(stored[-index_bytes(len(names)) :]).sum(axis=1).tolist()
            held[data_path(number, level)] = ([int(end) for end in ends], names)
    return held


def covers(named: set[str], expected: set[tuple[str, int]]) -> bool:
    """Whether "a.avi (frames 16 to 19)" and the like name these chunks and no other video."""
    found = set()
    for name in named:
        video, first, last = re.fullmatch(r"(.+) \(frames (\d+) to (\d+)\)", name).groups()  # type: ignore[union-attr]
        found |= {(video, frame) for frame in range(int(first), int(last) + 1, CHUNK_FRAMES)}
    return found == expected


def test_a_flipped_bit_of_a_chunk_is_named_by_video_and_frames_and_only_that_video_is_made_again(
    store_path: Path,
) -> None:
    store = open_store(store_path)
    before = content_of(store_path)
    file = store_path / data_path(2, "final")
    damaged = bytearray(file.read_bytes())
    damaged[30] ^= 4
    file.write_bytes(damaged)
    (damage,) = verify(store_path).damages
    assert "c.avi (frames 0 to 2)" in str(damage)
    with pytest.raises(StoreError, match=r"checksum does not match: run 'tinyhd-pipe store verify --repair'"):
        store.read("c.avi", [1])
    assert store.read("d.avi", [1])
    assert mend(store_path) == ["c.avi"]
    assert content_of(store_path) == before


def test_a_damaged_index_is_rebuilt_without_the_teacher(store_path: Path) -> None:
    before = content_of(store_path)
    file = store_path / data_path(0, "final")
    damaged = bytearray(file.read_bytes())
    damaged[-15] ^= 1
    file.write_bytes(damaged)
    assert not verify(store_path).sound
    with pytest.raises(StoreError, match=r"checksum of the index does not match"):
        open_store(store_path).read("a.avi", [0])
    assert mend(store_path) == []
    assert content_of(store_path) == before


@pytest.mark.parametrize("cut", [1, 60, 500])
def test_a_truncated_file_is_found_and_a_plain_rerun_mends_it(store_path: Path, cut: int) -> None:
    before = content_of(store_path)
    file = store_path / data_path(1, "final")
    file.write_bytes(file.read_bytes()[:-cut])
    damages = verify(store_path).damages
    assert {damage.path for damage in damages} == {data_path(1, "final")}
    assert any("bytes instead of" in damage.reason for damage in damages)
    assert write_store(store_path, LENGTHS, shard_bytes=SMALL)
    assert content_of(store_path) == before


def test_a_deleted_shard_is_named_by_its_videos_and_made_again_under_its_number(store_path: Path) -> None:
    before = content_of(store_path)
    shutil.rmtree(store_path / "shards/00001")
    (damage,) = verify(store_path).damages
    assert "is missing" in str(damage)
    assert damage.affected
    assert set(mend(store_path)) == {affected.video for affected in damage.affected}
    assert content_of(store_path) == before


def test_a_missing_file_or_foreign_file_of_a_shard_is_found(store_path: Path) -> None:
    (store_path / data_path(0, "final")).unlink()
    assert verify(store_path).damages[0].reason == "is missing"
    with pytest.raises(StoreError, match=r"is missing"):
        open_store(store_path).read("a.avi", [0])
    mend(store_path)
    shutil.copy(store_path / data_path(0, "final"), store_path / data_path(1, "final"))
    assert not verify(store_path).sound


def test_a_chunk_that_was_replaced_together_with_its_checksum_is_found(store_path: Path) -> None:
    file = store_path / data_path(0, "final")
    stored = bytearray(file.read_bytes())
    end = int(parse_index(bytes(stored[-index_bytes(3) :]))[0].sum())
    stored[end - 20] ^= 1
    stored[end - 4 : end] = crc32c(bytes(stored[: end - 4])).to_bytes(4, "little")
    file.write_bytes(stored)
    (damage,) = verify(store_path).damages
    assert damage.reason == "is not the file that the manifest names"


def test_a_damaged_manifest_hides_no_video(store_path: Path) -> None:
    manifest = store_path / "shards/00001/zarr.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"rows":', b'"rowz":', 1))
    with pytest.raises(StoreError, match=r"shards/00001/zarr.json is damaged"):
        _ = open_store(store_path).videos
    (damage,) = verify(store_path).damages
    assert damage.affected


def test_the_root_is_restored_from_a_plan(store_path: Path) -> None:
    before = content_of(store_path)
    (store_path / "zarr.json").write_text("{}")
    with pytest.raises(StoreError, match=r"not a store of teacher maps, or damaged"):
        open_store(store_path)
    assert mend(store_path) == []
    assert content_of(store_path) == before


def test_a_damaged_plan_is_made_again_from_the_shards(store_path: Path) -> None:
    before = content_of(store_path)
    (store_path / "plans/00000.json").write_bytes(b"{}")
    assert mend(store_path) == []
    assert content_of(store_path) == before


def test_what_a_repaired_plan_says_lets_a_lost_shard_be_made_again(store_path: Path) -> None:
    write_store(store_path, {**LENGTHS, "e.avi": 9}, changed={"a.avi": "new"})
    lengths = {**LENGTHS, "e.avi": 9}
    before = {path: text for path, text in content_of(store_path).items() if path.startswith("shards/")}
    (store_path / "plans/00000.json").write_bytes(b"{}")
    assert mend(store_path, lengths) == []
    shutil.rmtree(store_path / "shards/00001")
    assert mend(store_path, lengths)
    after = {path: text for path, text in content_of(store_path).items() if path.startswith("shards/")}
    assert after == before
    assert write_store(store_path, lengths, changed={"a.avi": "new"}) == []


def test_a_damaged_plan_can_be_deleted_as_the_error_says(store_path: Path) -> None:
    plan = store_path / "plans/00000.json"
    plan.write_bytes(plan.read_bytes()[:-9])
    with pytest.raises(StoreError, match=r"plans/00000.json: .*delete it and run again"):
        write_store(store_path, LENGTHS)
    plan.unlink()
    assert write_store(store_path, LENGTHS) == []


def test_copying_from_a_damaged_shard_is_refused(store_path: Path) -> None:
    for file in store_path.glob("shards/*/final/c/0/0/0"):
        damaged = bytearray(file.read_bytes())
        damaged[40] ^= 1
        file.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"damaged in shard"):
        write_store(store_path, LENGTHS, changed={"d.avi": "new"})
