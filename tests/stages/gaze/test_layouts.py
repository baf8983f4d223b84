"""Data sets are found as people have them, recognised by themselves or named; what does not pair is said."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideos
from tinyhd_pipe.stages.gaze.datasets import LAYOUTS, find_annotated_videos, recognised
from tinyhd_pipe.stages.video.index import frame_numbers
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store.errors import DataError, SettingError

PIXELS = np.full((6, 8), 9, np.uint8)


def write(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.fromarray(PIXELS).save(folder / name)


def names(numbers: Sequence[int], before: str = "", ending: str = ".png") -> list[str]:
    return [f"{before}{number:05d}{ending}" for number in numbers]


def clip(folder: Path, numbers: Sequence[int], before: str = "") -> None:
    for kind in ("images", "maps", "fixation"):
        write(folder / kind, *names(numbers, before))


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def frames_of(found: AnnotatedVideos) -> dict[str, list[int]]:
    return {video.source.id: list(video.density_maps) for video in found.videos}


@pytest.fixture
def hollywood(tmp_path: Path) -> Path:
    """Two shots of one film clip, one of them a single frame, and one of another half."""
    clip(tmp_path / "training/actioncliptrain00001_1", range(3, 8), "actioncliptrain00001_")
    clip(tmp_path / "training/actioncliptrain00001_2", [8], "actioncliptrain00001_")
    clip(tmp_path / "testing/actioncliptest00001_1", range(1, 4), "actioncliptest00001_")
    return tmp_path


def test_a_shot_s_frames_have_the_numbers_of_the_film_clip(hollywood: Path) -> None:
    found = find_annotated_videos(hollywood)
    assert found.layout == "hollywood2"
    assert frames_of(found) == {
        "testing/actioncliptest00001_1/images": [0, 1, 2],
        "training/actioncliptrain00001_1/images": [2, 3, 4, 5, 6],
        "training/actioncliptrain00001_2/images": [7],
    }
    for video in found.videos:
        assert frame_numbers(video.source).tolist() == list(video.density_maps) == list(video.fixations)
    assert [video.source for video in found.videos] == find_videos([hollywood]), "the same ids as in a dump"
    assert found.left_out == ()


def test_ucf_sports_is_recognised_whole_and_by_halves(tmp_path: Path) -> None:
    clip(tmp_path / "training/Diving-Side-001", range(1, 4), "Diving-Side_001_")
    clip(tmp_path / "testing/Golf-Swing-Back-005", range(1, 4), "Golf-Swing-Back_005_")
    assert find_annotated_videos(tmp_path).layout == "ucf-sports"
    assert len(find_annotated_videos(tmp_path).videos) == 2
    half = find_annotated_videos(tmp_path / "training")
    assert (half.layout, frames_of(half)) == ("ucf-sports", {"Diving-Side-001/images": [0, 1, 2]})


@pytest.mark.shared
def test_names_of_ucf_sports_in_the_tree_of_dhf1k_are_recognised(shared: Path) -> None:
    found = find_annotated_videos(shared / "data/cases/ucf_names")
    assert found.layout == "ucf-sports"
    assert frames_of(found) == {
        "annotation/Diving-Side-001/images": list(range(20)),
        "annotation/Golf-Swing-Back-001/images": list(range(20)),
    }
    with pytest.raises(DataError, match=r"; it looks like ucf-sports: leave --layout dhf1k out"):
        find_annotated_videos(shared / "data/cases/ucf_names", "dhf1k")


@pytest.mark.parametrize(
    ("video", "maps", "fixations"),
    [
        ("videos/a.mp4", "maps/a", "fixations/a"),
        ("a.mp4", "a/maps", "a/fixation"),
        ("clips/set/a.mp4", "labels/set/A/density", "labels/set/A/fixation"),
        ("a/a.mp4", "maps/a/a", "fixation/a/a"),
    ],
)
def test_maps_beside_videos_are_paired_by_name_wherever_they_lie(
    tmp_path: Path, video: str, maps: str, fixations: str
) -> None:
    touch(tmp_path / video)
    write(tmp_path / maps, *names(range(1, 4), ending=".jpg"))
    write(tmp_path / fixations, *names([2]))
    found = find_annotated_videos(tmp_path)
    assert found.layout == "plain"
    (only,) = found.videos
    assert (only.source.path, list(only.density_maps), list(only.fixations)) == (tmp_path / video, [0, 1, 2], [1])
    for file in (*only.density_maps.values(), *only.fixations.values()):
        assert (only.folder / file).is_file()


def test_frames_and_maps_that_count_from_0_meet_and_so_do_a_video_and_maps_that_do(tmp_path: Path) -> None:
    write(tmp_path / "frames/a", *names(range(5)))
    write(tmp_path / "maps/a", *names([0, 3]))
    touch(tmp_path / "videos/b.mp4")
    write(tmp_path / "maps/b", *names(range(3)))
    write(tmp_path / "fixations/b", *names(range(1, 3)))
    by_id = {video.source.path.name: video for video in find_annotated_videos(tmp_path).videos}
    assert list(by_id["a"].density_maps) == [0, 3]
    assert list(by_id["b.mp4"].density_maps) == [0, 1, 2]
    assert list(by_id["b.mp4"].fixations) == [1, 2], "a video's labels all count from where its maps do"


def test_labels_count_as_the_names_of_the_frames_do(tmp_path: Path) -> None:
    write(tmp_path / "images/a", *names(range(0, 20, 5)))
    write(tmp_path / "maps/a", *names([5, 10]))
    (video,) = find_annotated_videos(tmp_path).videos
    assert (frame_numbers(video.source).tolist(), list(video.density_maps)) == ([0, 5, 10, 15], [5, 10])


def test_frames_without_numbers_meet_the_maps_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "frames/a", "one.jpg", "three.jpg", "two.jpg")
    write(tmp_path / "maps/a", "three.png", "two.png", "four.png")
    (video,) = find_annotated_videos(tmp_path).videos
    assert video.density_maps == {1: "maps/a/three.png", 2: "maps/a/two.png"}


def test_what_does_not_pair_is_said_once_for_each_kind(tmp_path: Path) -> None:
    touch(*(tmp_path / f"videos/{name}.mp4" for name in "abc"))
    for name in ("a", "x10", "x9"):
        write(tmp_path / "maps" / name, *names([1]))
    found = find_annotated_videos(tmp_path)
    assert found.left_out == (
        "2 annotations without a video: x9, x10",
        "2 videos without density maps: videos/b.mp4, videos/c.mp4",
    )


def test_a_folder_that_is_no_data_set_is_one_line(tmp_path: Path) -> None:
    touch(tmp_path / "videos/a.mp4")
    with pytest.raises(DataError, match="no density maps in it; expected videos or folders of frames"):
        find_annotated_videos(tmp_path)
    write(tmp_path / "maps/b", *names([1]))
    with pytest.raises(DataError, match="no video for any of its 1 folders of maps"):
        find_annotated_videos(tmp_path)
    write(tmp_path / "maps/a", "left.png", "right.png")
    with pytest.raises(DataError, match=r"maps/a: left.png has no number of a frame"):
        find_annotated_videos(tmp_path)
    with pytest.raises(SettingError, match="--layout kitti: expected one of dhf1k, ucf-sports, hollywood2"):
        find_annotated_videos(tmp_path, "kitti")


def test_every_layout_can_be_named(hollywood: Path) -> None:
    for layout in set(LAYOUTS) & {"ucf-sports", "hollywood2", "plain"}:
        assert find_annotated_videos(hollywood, layout).layout == layout
    assert recognised(hollywood) == "hollywood2"


# Splits


def test_halves_in_folders_are_splits(hollywood: Path) -> None:
    found = {split: frames_of(find_annotated_videos(hollywood, split=split)) for split in ("train", "test")}
    assert {split: len(videos) for split, videos in found.items()} == {"train": 2, "test": 1}
    with pytest.raises(SettingError, match="--split val: expected train, test, or a file"):
        find_annotated_videos(hollywood, split="val")


def test_dhf1k_is_split_by_number(tmp_path: Path) -> None:
    for number in (1, 600, 601, 700, 701):
        touch(tmp_path / f"video/{number:03d}.AVI")
        if number < 701:
            write(tmp_path / f"annotation/{number:04d}/maps", *names([1]))
    found = {split: list(frames_of(find_annotated_videos(tmp_path, split=split))) for split in ("train", "val")}
    assert found == {"train": ["001.AVI", "600.AVI"], "val": ["601.AVI", "700.AVI"]}
    with pytest.raises(DataError, match="--split test: none of the 4 videos with density maps is in it"):
        find_annotated_videos(tmp_path, split="test")


def test_a_file_is_a_split_and_says_which_of_its_videos_are_missing(tmp_path: Path, hollywood: Path) -> None:
    listed = tmp_path / "split.txt"
    listed.write_text("actioncliptest00001_1\n\ntraining/actioncliptrain00001_2/images\n")
    assert list(frames_of(find_annotated_videos(hollywood, split=str(listed)))) == [
        "testing/actioncliptest00001_1/images",
        "training/actioncliptrain00001_2/images",
    ]
    listed.write_text("actioncliptest00001_1\nmissing_1\nmissing_2\n")
    with pytest.raises(DataError, match=r"split.txt: 2 of its 3 videos are missing: missing_1, missing_2; a line is"):
        find_annotated_videos(hollywood, split=str(listed))


def test_a_split_of_a_data_set_that_has_none_is_one_line(tmp_path: Path) -> None:
    touch(tmp_path / "videos/a.mp4")
    write(tmp_path / "maps/a", *names([1]))
    with pytest.raises(SettingError, match="--split val: this data set has no splits of its own; give a file"):
        find_annotated_videos(tmp_path, split="val")
