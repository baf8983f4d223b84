"""Frames are numbered as they come, or by numbers of their own: either way there and back again."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store_tools import assert_stored, content_of, describe, live_logits, sources_of, synthetic_logits
from tinyhd_pipe.store import FrameStatus, create_or_open, open_store
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering
from tinyhd_pipe.store.verify import verify

RISING = st.lists(st.integers(0, 200), unique=True, min_size=1).map(sorted)


@given(RISING)
def test_numbers_lead_to_places_and_back_and_others_lead_nowhere(numbers: list[int]) -> None:
    numbering = Numbering.of(numbers)
    assert numbering.numbers(np.arange(len(numbers))).tolist() == numbers
    assert numbering.places(numbers).tolist() == list(range(len(numbers)))
    if numbering.runs:
        others = sorted({-1, *range(202)} - set(numbers))
        assert set(numbering.places(others).tolist()) == {-1}
    assert (numbering == AS_THEY_COME) == (numbers == list(range(len(numbers))))


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        (range(5), ()),
        (range(9, 20), ((9, 1, 11),)),
        (range(0, 20, 5), ((0, 5, 4),)),
        ([0, 1, 2, 8, 9, 10], ((0, 1, 3), (8, 1, 3))),
        ([7], ((7, 1, 1),)),
    ],
)
def test_evenly_spaced_frames_take_three_numbers(numbers: list[int], runs: tuple[tuple[int, int, int], ...]) -> None:
    assert Numbering.of(list(numbers)).runs == runs


def test_numbers_that_do_not_rise_are_refused() -> None:
    for numbers in ([1, 1], [2, 1]):
        with pytest.raises(ValueError, match="must rise"):
            Numbering.of(numbers)


def _store(path: Path, numbering: Numbering, every: int = 1) -> Path:
    writer = create_or_open(path, describe(every=every))
    (task,) = writer.plan(sources_of({"a": 7})).todo
    with writer.shard(task) as shard, shard.video("a") as video:
        maps = synthetic_logits("adigest of a", 7)
        video.append({level: one[::every] for level, one in maps.items()})
        video.mark_failed(4)
        video.finish(7, numbering=numbering)
    return path


@pytest.mark.parametrize("every", [1, 2])
def test_a_store_answers_by_number_and_every_goes_by_place(tmp_path: Path, every: int) -> None:
    numbers = [3, 4, 5, 20, 30, 40, 41]
    path = _store(tmp_path / "a.zarr", Numbering.of(numbers), every)
    store, dumped = open_store(path), numbers[::every]
    assert store.frames("a").tolist() == dumped
    assert store.video("a").failed == (30,)
    valid = [number for number in dumped if number != 30]
    status = store.status("a", np.arange(-2, 50))
    assert (np.flatnonzero(status == FrameStatus.VALID) - 2).tolist() == valid
    assert (np.flatnonzero(status == FrameStatus.FAILED) - 2).tolist() == [30]
    read = store.read_logits("a", valid[::-1])
    live = live_logits("a", 7)
    for level in store.description.levels:
        places = [numbers.index(number) for number in valid[::-1]]
        assert_stored(read[level.name], live[level.name][places], level.scale)


def test_a_store_of_frames_as_they_come_has_the_bytes_that_it_always_had(tmp_path: Path) -> None:
    content = content_of(_store(tmp_path / "a.zarr", AS_THEY_COME))
    manifest = json.loads(content["shards/00000/zarr.json"])["attributes"]["tinyhd"]
    assert "frame_numbers" not in manifest
    other = content_of(_store(tmp_path / "b.zarr", Numbering.of([0, 5, 10, 15, 20, 25, 30])))
    assert [name for name in content if content[name] != other[name]] == ["shards/00000/zarr.json"]


def test_damage_is_named_by_number(tmp_path: Path) -> None:
    path = _store(tmp_path / "a.zarr", Numbering.of([0, 5, 10, 15, 20, 25, 30]))
    (path / "shards/00000/final/c/0/0/0").unlink()
    assert "a (frames 0 to 30)" in str(verify(str(path)).damages[0])
