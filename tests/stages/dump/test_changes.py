"""More videos, changed ones, removed ones, failed ones, another teacher: only what is touched is redone, or refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.small_dumps import LENGTHS, OPTIONS, clip, dump_of, finished_shards, write_teacher, write_videos
from tests.store_tools import content_of
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.network import Network, load_teacher
from tinyhd_pipe.stages.teacher_dump import Dumped, teacher_dump
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import StoreError, open_store
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.storage import LocalStorage
from tinyhd_pipe.store.verify import verify


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("weights") / "teacher.safetensors")


@pytest.fixture(scope="module")
def teacher(weights: Path) -> Network:
    return load_teacher("tinyhd", weights=weights)


@pytest.fixture(scope="module")
def made(teacher: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with videos, one of which does not decode, and their store."""
    folder = tmp_path_factory.mktemp("made")
    write_videos(folder / "videos")
    (folder / "videos" / "broken.mp4").write_text("no video")
    dump(folder, teacher)
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


def dump(place: Path, teacher: Network, **options: Any) -> Dumped:
    return teacher_dump(find_videos([place / "videos"]), str(place / "maps.zarr"), teacher, replace(OPTIONS, **options))


def maps_of(place: Path) -> dict[str, np.ndarray[Any, Any]]:
    """All final maps of the store by video."""
    store = open_store(place / "maps.zarr")
    return {video: store.read(video, range(store.video(video).frames))["final"] for video in store.videos}


def test_more_videos_leave_every_finished_shard_as_it_was(place: Path, teacher: Network) -> None:
    before = content_of(place / "maps.zarr")
    times = {path: path.stat().st_mtime_ns for path in (place / "maps.zarr" / "shards").rglob("*") if path.is_file()}
    write_videos(place / "videos" / "more", {"a.mp4": 7, "b.mp4": 5})
    dumped = dump(place, teacher)
    assert (dumped.frames, dumped.already_there) == (12, len(LENGTHS) + 1)
    assert before.items() <= content_of(place / "maps.zarr").items()
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {"more/a.mp4", "more/b.mp4"} < set(open_store(place / "maps.zarr").videos)


def test_a_changed_video_alone_is_made_again_and_the_others_keep_their_maps(place: Path, teacher: Network) -> None:
    before = maps_of(place)
    write_video(place / "videos" / "2.mp4", clip(14, seed=99))
    dumped = dump(place, teacher, shard_megabytes=1)
    assert (dumped.frames, dumped.already_there) == (14, len(LENGTHS))
    after = maps_of(place)
    assert len(after["2.mp4"]) == 14
    for video in before.keys() - {"2.mp4"}:
        np.testing.assert_array_equal(after[video], before[video])
    assert verify(place / "maps.zarr").sound


def test_a_removed_video_stays_until_pruning_is_asked_for(place: Path, teacher: Network) -> None:
    before, files = maps_of(place), content_of(place / "maps.zarr")
    (place / "videos" / "2.mp4").unlink()
    dumped = dump(place, teacher)
    assert (dumped.frames, dumped.others) == (0, 1)
    assert content_of(place / "maps.zarr") == files
    pruned = dump(place, teacher, prune=True)
    assert (pruned.frames, pruned.others) == (0, 0)
    after = maps_of(place)
    assert after.keys() == before.keys() - {"2.mp4"}
    for video, maps in after.items():
        np.testing.assert_array_equal(maps, before[video])
    assert verify(place / "maps.zarr").sound


def test_a_video_that_cannot_be_read_today_is_not_pruned(place: Path, teacher: Network) -> None:
    files = content_of(place / "maps.zarr")
    (place / "videos" / "2.mp4").unlink()
    (place / "videos" / "2.mp4").symlink_to(place / "gone.mp4")
    with pytest.raises(VideoError, match=r"2.mp4: No such file.*to prune now would drop its maps"):
        dump(place, teacher, prune=True)
    assert content_of(place / "maps.zarr") == files


def test_a_failed_video_is_tried_again_only_when_asked_and_its_neighbours_are_copied(
    place: Path, teacher: Network
) -> None:
    files, before = content_of(place / "maps.zarr"), maps_of(place)
    assert list(dump(place, teacher).problems) == ["broken.mp4"]
    assert content_of(place / "maps.zarr") == files
    retried = dump(place, teacher, retry_problems=True)
    assert (retried.frames, retried.already_there, list(retried.problems)) == (0, len(LENGTHS), ["broken.mp4"])
    assert content_of(place / "maps.zarr") != files, "it was tried"
    assert maps_of(place).keys() == before.keys()
    write_video(place / "videos" / "broken.mp4", clip(6, seed=7))
    assert dump(place, teacher).frames == 6, "another content is another video"
    assert open_store(place / "maps.zarr").video("broken.mp4").problem == ""


def test_what_would_mix_is_refused_with_the_reason_and_nothing_changes(
    place: Path, teacher: Network, tmp_path: Path
) -> None:
    files = content_of(place / "maps.zarr")
    other = load_teacher("tinyhd", weights=write_teacher(tmp_path / "other.safetensors", seed=1))
    larger = load_teacher("tinyhd", weights=write_teacher(tmp_path / "same.safetensors"), size=(64, 64))
    shifted = replace(
        teacher, facts={**teacher.facts, "preprocessing": {**teacher.facts["preprocessing"], "mean": [0]}}
    )
    rounded = replace(teacher, facts={**teacher.facts, "precision": "bfloat16"})
    write_videos(place / "videos", {"new.mp4": 4})
    for network, options, reason in (
        (other, {}, "teacher.weights_sha256 = "),
        (larger, {}, "size = "),
        (shifted, {}, "teacher.preprocessing.mean = "),
        (rounded, {}, "teacher.precision = float32, not bfloat16"),
        (teacher, {"every": 2}, "temporal.every = 1, not 2"),
        (teacher, {"fidelity": 0.005}, "fidelity.budget = 0.01, not 0.005"),
    ):
        with pytest.raises(StoreError, match=rf"made with .*{reason}.*must not mix, use another --store"):
            dump(place, network, **options)
    assert content_of(place / "maps.zarr") == files


def test_another_teacher_begins_the_store_again_where_that_is_asked_for(
    place: Path, teacher: Network, tmp_path: Path
) -> None:
    other = load_teacher("tinyhd", weights=write_teacher(tmp_path / "other.safetensors", seed=1))
    files = content_of(place / "maps.zarr")
    assert dump(place, teacher, overwrite=True).frames == 0
    assert content_of(place / "maps.zarr") == files, "it is this teacher's, and is gone on with"
    assert dump(place, other, overwrite=True).frames == sum(LENGTHS.values())
    begun = maps_of(place)
    shutil.rmtree(place / "maps.zarr")
    dump(place, other)
    for video, maps in maps_of(place).items():
        np.testing.assert_array_equal(maps, begun[video])


class _KilledError(Exception):
    pass


@pytest.mark.parametrize("removals", [0, 1, 4, 6, 7, 8])
def test_killed_while_it_makes_room_the_store_mixes_nothing_and_the_same_call_goes_on(
    place: Path, teacher: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removals: int
) -> None:
    other = load_teacher("tinyhd", weights=write_teacher(tmp_path / "other.safetensors", seed=1))
    done = 0

    def remove_some(storage: LocalStorage, path: str) -> None:
        nonlocal done
        if done == removals:
            raise _KilledError
        done += 1
        remove(storage, path)

    remove = LocalStorage.remove
    monkeypatch.setattr(LocalStorage, "remove", remove_some)
    with pytest.raises(_KilledError):
        dump(place, other, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(StoreError, match=r"weights_sha256 .*must not mix"):
        dump(place, other)
    assert dump(place, other, overwrite=True).frames == sum(LENGTHS.values())
    assert verify(place / "maps.zarr").sound


def test_pruning_and_retrying_are_options_of_the_command(
    place: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "videos" / "0.mp4").unlink()
    command = [str(argument) for argument in dump_of(place / "videos", weights, place / "maps.zarr")]
    shards = finished_shards(place / "maps.zarr")
    assert run(command) == 1, "one video does not decode"
    captured = capsys.readouterr()
    assert json.loads(captured.out)["others"] == 1
    assert "1 other videos of the store were not given and stay in it; --prune drops them" in captured.err
    assert finished_shards(place / "maps.zarr") == shards
    assert run([*command, "--prune", "--retry-problems"]) == 1
    assert json.loads(capsys.readouterr().out)["others"] == 0
    assert "0.mp4" not in open_store(place / "maps.zarr").videos
    assert not {shards[0], shards[-1]} & set(finished_shards(place / "maps.zarr")), "those of 0.mp4 and of broken.mp4"


def test_a_dump_that_cannot_begin_leaves_no_folder(tmp_path: Path, teacher: Network) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "broken.mp4").write_text("no video")
    with pytest.raises(VideoError, match="not a video"):
        dump(tmp_path, teacher)
    assert not (tmp_path / "maps.zarr").exists()
