"""Which videos share a shard, and what is redone when videos come, change, fail or go."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store_tools import (
    assert_stored,
    content_of,
    describe,
    live_logits,
    make_shard,
    sources_of,
    write_store,
)
from tinyhd_pipe.store import ShardTask, Source, StoreError, StoreWriter, create_or_open, open_store
from tinyhd_pipe.store.plan import Member, plan_shards
from tinyhd_pipe.store.verify import verify
from tinyhd_pipe.store.video_writer import VideoWriter

LENGTHS = {f"{name}.avi": 5 + 7 * place for place, name in enumerate("dbaefc")}
SMALL = 5_000  # bytes: about one or two of these videos a shard


def bare(tasks: dict[int, ShardTask]) -> dict[int, ShardTask]:
    """Tasks as a file gives them back: without what is derived."""
    return {number: ShardTask(number, task.members, task.replaces, task.remade) for number, task in tasks.items()}


SOURCES = st.dictionaries(st.sampled_from("abcdefgh"), st.tuples(st.sampled_from("xy"), st.integers(0, 30)))


@given(st.lists(SOURCES, min_size=1, max_size=4), st.data())
def test_wherever_a_dump_is_cut_short_its_rerun_ends_with_the_same_shards(
    dumps: list[dict[str, tuple[str, int]]], data: st.DataObject
) -> None:
    finished: dict[bool, dict[int, ShardTask]] = {}
    for interrupted in (False, True):
        planned: dict[int, ShardTask] = {}
        sealed: dict[int, ShardTask] = {}
        for dump in dumps:
            sources = [Source(video_id, *facts) for video_id, facts in dump.items()]
            for attempt in range(2 if interrupted else 1):
                plan = plan_shards(sources, planned, sealed, frames_per_shard=40)
                planned |= bare({task.number: task for task in plan.new})
                last = attempt == 1 or not interrupted
                done = [task for task in plan.todo if last or data.draw(st.booleans())]
                sealed |= bare({task.number: task for task in done})
                gone = {number for task in sealed.values() for number in task.replaces}
                sealed = {number: task for number, task in sealed.items() if number not in gone}
            assert not plan_shards(sources, planned, sealed, frames_per_shard=40).todo
            held = {member.id: member.digest for task in sealed.values() for member in task.members}
            assert held.items() >= {source.id: source.digest for source in sources}.items()
        finished[interrupted] = sealed
    assert finished[True] == finished[False]


def test_a_video_that_changes_again_after_a_kill_takes_the_place_of_what_is_still_there(tmp_path: Path) -> None:
    lengths = {"a": 20, "b": 20}
    write_store(tmp_path / "s", lengths)
    writer = create_or_open(tmp_path / "s", describe())
    writer.plan(sources_of(lengths, {"b": "new", "a": "new"}))  # and is killed
    assert write_store(tmp_path / "s", {"b": 20}, changed={"b": "newer"}) == ["b"], (
        "a was not given: it stays as it was"
    )
    store = open_store(tmp_path / "s")
    assert {video: store.video(video).digest for video in store.videos} == {"a": "digest of a", "b": "newer"}
    assert [store.video(video).rows for video in store.videos] == [20, 20]
    assert verify(tmp_path / "s").sound


def test_what_is_to_be_made_again_is_so_after_a_kill_and_a_change(tmp_path: Path) -> None:
    lengths = {"a": 0, "b": 20}
    write_store(tmp_path / "s", lengths)
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan(sources_of(lengths), retry_problems=True).todo
    assert task.to_make == (Member("a", "digest of a"),)
    made = write_store(tmp_path / "s", {"a": 9, "b": 20}, changed={"b": "new"})
    assert made == ["a", "b"]
    assert open_store(tmp_path / "s").video("a").rows == 9


@given(SOURCES, st.randoms())
def test_the_order_of_the_videos_does_not_matter(dump: dict[str, tuple[str, int]], random: object) -> None:
    sources = [Source(video_id, *facts) for video_id, facts in dump.items()]
    shuffled = sources.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    plans = [plan_shards(order, {}, {}, frames_per_shard=40) for order in (sources, shuffled)]
    assert plans[0] == plans[1]


def test_a_shard_is_closed_when_the_next_video_would_overfill_it() -> None:
    sources = [Source(name, "x", frames) for name, frames in zip("abcde", (30, 10, 1, 90, 5), strict=True)]
    plan = plan_shards(sources, {}, {}, frames_per_shard=40)
    assert [[member.id for member in task.members] for task in plan.todo] == [["a", "b"], ["c"], ["d"], ["e"]]


def test_a_second_dump_of_the_same_videos_does_nothing(tmp_path: Path) -> None:
    made = write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    before = content_of(tmp_path / "s")
    assert made == sorted(LENGTHS)
    assert write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL) == []
    assert content_of(tmp_path / "s") == before
    assert len(list((tmp_path / "s/shards").iterdir())) > 3


def test_more_videos_leave_every_file_as_it_was(tmp_path: Path) -> None:
    write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    before = content_of(tmp_path / "s")
    assert write_store(tmp_path / "s", {**LENGTHS, "aa.avi": 9}, shard_bytes=SMALL) == ["aa.avi"]
    after = content_of(tmp_path / "s")
    assert before.items() <= after.items()
    assert open_store(tmp_path / "s").videos == sorted([*LENGTHS, "aa.avi"])


def test_a_changed_video_is_made_again_and_its_neighbours_are_copied(tmp_path: Path) -> None:
    write_store(tmp_path / "s", LENGTHS)
    neighbour = open_store(tmp_path / "s").read("c.avi", range(40))
    lengths = {**LENGTHS, "b.avi": 33}
    assert write_store(tmp_path / "s", lengths, changed={"b.avi": "new"}) == ["b.avi"]
    store = open_store(tmp_path / "s")
    assert store.videos == sorted(LENGTHS)
    assert store.video("b.avi").digest == "new"
    scale = store.description.levels[0].scale
    for video, frames, digest in (("b.avi", 33, "new"), ("c.avi", 40, None), ("a.avi", 19, None)):
        read = store.read_logits(video, range(frames))["final"]
        assert_stored(read, live_logits(video, frames, digest)["final"], scale)
    for level, maps in store.read("c.avi", range(40)).items():
        np.testing.assert_array_equal(maps, neighbour[level])
    assert not (tmp_path / "s/shards/00000").exists()


def test_copied_shards_have_the_bytes_that_made_ones_have(tmp_path: Path) -> None:
    changed = {"b.avi": "new"}
    write_store(tmp_path / "copied", LENGTHS)
    write_store(tmp_path / "copied", LENGTHS, changed=changed)
    write_store(tmp_path / "made", LENGTHS, changed=changed)
    copied, made = content_of(tmp_path / "copied/shards/00001"), content_of(tmp_path / "made/shards/00000")
    assert copied.keys() == made.keys()
    assert {path: text for path, text in copied.items() if path != "zarr.json"} == {
        path: text for path, text in made.items() if path != "zarr.json"
    }


def test_a_video_that_is_gone_stays_unless_pruning_is_asked_for(tmp_path: Path) -> None:
    write_store(tmp_path / "s", LENGTHS)
    fewer = {video: frames for video, frames in LENGTHS.items() if video != "a.avi"}
    assert write_store(tmp_path / "s", fewer) == []
    assert "a.avi" in open_store(tmp_path / "s").videos
    assert write_store(tmp_path / "s", fewer, prune=True) == []
    assert open_store(tmp_path / "s").videos == sorted(fewer)
    assert write_store(tmp_path / "s", {}, prune=True) == []
    assert open_store(tmp_path / "s").videos == []


def test_a_failed_video_is_listed_and_tried_again_only_when_asked(tmp_path: Path) -> None:
    lengths = {**LENGTHS, "broken.avi": 0}
    write_store(tmp_path / "s", lengths)
    assert open_store(tmp_path / "s").video("broken.avi").problem == "no frames"
    assert write_store(tmp_path / "s", lengths) == []
    assert write_store(tmp_path / "s", lengths, retry_problems=True) == ["broken.avi"]
    assert write_store(tmp_path / "s", lengths) == []


def test_a_store_of_nothing_but_failed_videos_can_be_read(tmp_path: Path) -> None:
    write_store(tmp_path / "s", {"broken.avi": 0})
    assert open_store(tmp_path / "s").info()["videos_with_problems"] == 1
    assert sorted(content_of(tmp_path / "s/shards/00000")) == ["zarr.json"]


def test_two_videos_with_one_id_are_refused(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    with pytest.raises(StoreError, match=r"a: two videos have this id"):
        writer.plan([Source("a", "x", 1), Source("b", "x", 1), Source("a", "y", 1)])


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (describe(weights="other"), "made with teacher.weights = abc, not other"),
        (describe(every=2), "made with temporal.every = 1, not 2"),
        (describe(levels={"final": (24, 32)}), "made with levels.conspicuity_2"),
    ],
)
def test_another_teacher_is_refused_with_what_differs(tmp_path: Path, other: object, reason: str) -> None:
    write_store(tmp_path / "s", LENGTHS)
    with pytest.raises(StoreError, match=reason):
        create_or_open(tmp_path / "s", other)  # type: ignore[arg-type]


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match=r"holds photo.jpg and is no store"):
        create_or_open(tmp_path, describe())
    with pytest.raises(StoreError, match=r"no store there"):
        open_store(tmp_path / "nothing")


@contextmanager
def _video(writer: StoreWriter, task: ShardTask, video_id: str) -> Iterator[VideoWriter]:
    with writer.shard(task) as shard, shard.video(video_id) as video:
        yield video


def test_videos_must_be_written_whole_and_in_turn(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan(sources_of({"a": 3, "b": 3})).todo
    with (
        pytest.raises(StoreError, match=r"b: out of turn in shard 0, next is a"),
        writer.shard(task) as shard,
        shard.video("b"),
    ):
        pass
    with pytest.raises(StoreError, match=r"a: left before finish"), _video(writer, task, "a"):
        pass
    with pytest.raises(StoreError, match=r"a: not written"), writer.shard(task) as shard:
        pass
    with pytest.raises(StoreError, match=r"a: 0 maps for 3 frames"), _video(writer, task, "a") as video:
        video.finish(3)
    assert not (tmp_path / "s/shards/00000").exists()
    make_shard(writer, task, {"a": 3, "b": 3})
    assert open_store(tmp_path / "s").videos == ["a", "b"]


def test_maps_that_do_not_fit_the_store_are_refused(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan(sources_of({"a": 3})).todo
    good = live_logits("a", 3)
    poisoned = {**good, "final": np.where(np.arange(3)[:, None, None] == 1, np.nan, good["final"])}
    for maps, reason in (
        ({"final": good["final"]}, r"maps of \['final'\]"),
        ({**good, "final": good["final"][:, 1:]}, r"final is \(3, 23, 32\), expected \(3, 24, 32\)"),
        ({**good, "final": good["final"][:2]}, r"is \(3, 12, 16\), expected \(2, 12, 16\)"),
        (poisoned, "final is not finite between frames 0 and 2"),
    ):
        with pytest.raises(StoreError, match=reason), _video(writer, task, "a") as video:
            video.append(maps)
