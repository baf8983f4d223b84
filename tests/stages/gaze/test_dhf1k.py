"""The DHF1K layout is found by number and tied to absolute frames; no map is handed out that is not there."""

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density, read_fixations
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store.errors import DataError

SIZE = (6, 8)


def picture_of(frame: int) -> NDArray[np.uint8]:
    """A map that says which frame it belongs to: its only bright pixel is pixel number `frame`."""
    pixels = np.zeros(SIZE, dtype=np.uint8)
    pixels.flat[frame] = 255
    return pixels


def write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_maps(folder: Path, frames: int = 4) -> None:
    for frame in range(frames):
        write_png(folder / f"{frame + 1:04d}.png", picture_of(frame))


def write_video(root: Path, name: str = "001.AVI") -> Path:
    """A file under a video's name; finding never opens it."""
    path = root / "video" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Video 1 as users have it: three digits, four digits, maps, fixations, and the stray picture."""
    write_video(tmp_path)
    folder = tmp_path / "annotation" / "0001"
    write_maps(folder / "maps")
    write_maps(folder / "fixation")
    write_png(folder / "0001.png", picture_of(40))
    return tmp_path


def only(root: Path) -> AnnotatedVideo:
    (video,) = find_annotated_videos(root).videos
    return video


def density_of(video: AnnotatedVideo, frame: int) -> NDArray[np.float32]:
    density = read_density(video, frame)
    assert density is not None
    return density


def fixations_of(video: AnnotatedVideo, frame: int) -> NDArray[np.bool_]:
    fixations = read_fixations(video, frame)
    assert fixations is not None
    return fixations


def test_a_video_of_three_digits_meets_its_annotation_of_four(root: Path) -> None:
    write_video(root, "1000.AVI")
    write_maps(root / "annotation" / "1000" / "maps")
    found = find_annotated_videos(root).videos
    assert [video.source.path.name for video in found] == ["001.AVI", "1000.AVI"]
    assert [video.folder.name for video in found] == ["0001", "1000"]
    assert [video.source for video in found] == find_videos([root / "video"]), "the same ids as in a dump"


def test_videos_come_in_the_order_of_their_numbers_and_not_of_their_names(root: Path) -> None:
    for number in (10, 9, 2):
        write_video(root, f"{number}.mp4")
        write_maps(root / "annotation" / str(number) / "maps")
    assert [int(video.source.path.stem) for video in find_annotated_videos(root).videos] == [1, 2, 9, 10]


def test_file_0001_belongs_to_frame_0_in_every_kind_of_map(root: Path) -> None:
    video = only(root)
    assert list(video.density_maps) == list(video.fixations) == [0, 1, 2, 3]
    for frame in range(4):
        assert density_of(video, frame).argmax() == frame
        assert np.flatnonzero(fixations_of(video, frame)).tolist() == [frame]


def test_maps_have_the_documented_type_range_and_axes(root: Path) -> None:
    video = only(root)
    density, fixations = density_of(video, 0), fixations_of(video, 0)
    assert density.dtype == np.float32
    assert fixations.dtype == np.bool_
    assert density.shape == fixations.shape == SIZE
    assert (density.min(), density.max()) == (0.0, 1.0)


def test_frames_are_in_order_past_the_last_of_four_digits(root: Path) -> None:
    for number in (9999, 10000, 10001):
        write_png(root / f"annotation/0001/maps/{number}.png", picture_of(1))
    assert list(only(root).density_maps)[-3:] == [9998, 9999, 10000]


def test_a_missing_frame_and_an_all_zero_map_are_none_and_never_a_target(root: Path) -> None:
    write_png(root / "annotation/0001/maps/0003.png", np.zeros(SIZE, dtype=np.uint8))
    (root / "annotation/0001/maps/0002.png").unlink()
    video = only(root)
    assert read_density(video, 0) is not None
    assert [read_density(video, frame) for frame in (1, 2, 99, -1)] == [None] * 4


def test_where_nobody_looked_is_a_recording_and_where_nothing_was_recorded_is_none(root: Path) -> None:
    write_png(root / "annotation/0001/fixation/0002.png", np.zeros(SIZE, dtype=np.uint8))
    video = only(root)
    assert not fixations_of(video, 1).any()
    assert read_fixations(video, 4) is None


def test_density_maps_alone_are_enough(root: Path) -> None:
    for path in (root / "annotation/0001/fixation").iterdir():
        path.unlink()
    video = only(root)
    assert read_density(video, 0) is not None
    assert video.fixations == {}
    assert read_fixations(video, 0) is None


def test_mat_fixations_stand_in_where_the_png_is_missing(root: Path) -> None:
    folder = root / "annotation/0001/fixation"
    (folder / "maps").mkdir()
    for frame in range(6):
        savemat(folder / "maps" / f"{frame + 1:04d}.MAT", {"I": (picture_of(frame + 20) > 0).astype(np.uint8)})
    (folder / "0002.png").unlink()
    video = only(root)
    assert list(video.fixations) == [0, 1, 2, 3, 4, 5]
    looked_at = [np.flatnonzero(fixations_of(video, frame)).tolist() for frame in (0, 1, 5)]
    assert looked_at == [[0], [21], [25]], "the PNG is preferred, the .mat file fills the gap"
    assert fixations_of(video, 1).dtype == np.bool_
    assert fixations_of(video, 1).shape == SIZE


@pytest.mark.parametrize("name", ["images", "frames"])
def test_frames_beside_the_annotation_stand_in_for_the_video(root: Path, name: str) -> None:
    (root / "video" / "001.AVI").unlink()
    write_maps(root / "annotation/0001" / name)
    source = only(root).source
    assert source.is_frame_folder
    assert source.path == root / "annotation/0001" / name
    assert source in find_videos([root / "annotation"])


def test_a_folder_of_frames_in_place_of_the_video_file(root: Path) -> None:
    (root / "video" / "001.AVI").unlink()
    write_maps(root / "video" / "001")
    source = only(root).source
    assert [source] == find_videos([root / "video"])


def test_the_video_file_is_preferred_to_frames_beside_the_annotation(root: Path) -> None:
    write_maps(root / "annotation/0001/images")
    assert not only(root).source.is_frame_folder


def test_videos_without_labels_annotations_without_video_and_strays_are_left_out(root: Path) -> None:
    write_video(root, "701.AVI")
    write_video(root, "702.AVI")
    write_maps(root / "annotation/0702/images")
    write_maps(root / "annotation/0003/maps")
    write_maps(root / "annotation/readme/maps")
    for stray in (
        "video/001.txt",
        "video/.DS_Store",
        "annotation/0001.zip",
        "annotation/0001/maps/0007.txt",
    ):
        (root / stray).write_bytes(b"")
    write_png(root / "annotation/0001/maps/mean.png", picture_of(0))
    found = find_annotated_videos(root)
    (video,) = found.videos
    assert video.source.path.name == "001.AVI"
    assert list(video.density_maps) == [0, 1, 2, 3]
    assert found.left_out == (
        "1 annotation without a video: 0003",
        "2 videos without density maps: 701.AVI, 702.AVI",
    )


def test_colour_palette_and_16_bit_maps_give_channel_1_between_0_and_1(root: Path) -> None:
    folder = root / "annotation/0001/maps"
    colour = np.stack([picture_of(1), picture_of(2), picture_of(3)], axis=-1)
    write_png(folder / "0001.png", colour)
    write_png(folder / "0002.png", picture_of(1).astype(np.uint16) * 257)
    indexed = Image.fromarray((picture_of(1) == 0).astype(np.uint8), mode="P")
    indexed.putpalette([255, 255, 255, 0, 0, 0])
    indexed.save(folder / "0003.png")
    Image.fromarray(picture_of(1) > 0).save(folder / "0004.png")
    video = only(root)
    for frame in range(4):
        assert read_density(video, frame) == pytest.approx(picture_of(1) / 255.0)


def message(root: Path) -> str:
    with pytest.raises(DataError) as raised:
        find_annotated_videos(root)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_folder_of_another_layout_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no folder 'annotation'.*video/001.AVI"):
        find_annotated_videos(tmp_path, "dhf1k")
    assert re.search("no such folder", message(tmp_path / "missing"))
    (tmp_path / "annotation" / "0001").mkdir(parents=True)
    assert re.search("no density maps.*annotation/0001/maps/0001.png", message(tmp_path))
    write_maps(tmp_path / "annotation" / "0001" / "maps")
    assert re.search("no video for any of its 1 annotations", message(tmp_path))


def test_two_videos_of_one_number_are_refused(root: Path) -> None:
    write_video(root, "1.mp4")
    assert "001.AVI and 1.mp4 are both number 1" in message(root)


def test_maps_numbered_from_0_are_refused_because_they_would_be_off_by_one(root: Path) -> None:
    write_png(root / "annotation/0001/maps/0000.png", picture_of(0))
    assert "frames count from 1" in message(root)


def test_broken_files_are_named_in_one_line(root: Path) -> None:
    folder = root / "annotation/0001"
    whole = (folder / "maps/0001.png").read_bytes()
    (folder / "maps/0001.png").write_bytes(whole[:45])
    (folder / "maps/0002.png").write_bytes(b"no picture")
    (folder / "fixation/maps").mkdir()
    for number in (1, 2):
        (folder / f"fixation/000{number}.png").unlink()
    (folder / "fixation/maps/0001.mat").write_bytes(b"no matrix")
    (folder / "fixation/maps/0002.mat").write_bytes(b"MATLAB 7.3 MAT-file" + b" " * 105 + b"\x00\x02IM" + b"\x89HDF")
    video = only(root)
    for frame in (0, 1):
        with pytest.raises(DataError, match=rf"maps/000{frame + 1}.png: cannot be read as a picture"):
            read_density(video, frame)
    for frame in (0, 1):
        with pytest.raises(DataError, match=rf"000{frame + 1}.mat: cannot be read as a MATLAB file"):
            read_fixations(video, frame)


@pytest.mark.shared
def test_the_two_real_videos_are_found_with_all_that_was_recorded(shared: Path) -> None:
    with_gaze, without = find_annotated_videos(shared / "data" / "dhf1k").videos
    assert [with_gaze.source.path.name, without.source.path.name] == ["002.AVI", "300.AVI"]
    assert (len(with_gaze.density_maps), len(with_gaze.fixations)) == (783, 783)
    assert (len(without.density_maps), len(without.fixations)) == (217, 0)


@pytest.mark.shared
def test_real_density_is_high_where_people_looked_and_mat_equals_png(shared: Path) -> None:
    video = find_annotated_videos(shared / "data" / "dhf1k").videos[0]
    for frame in (0, 400, 782):
        density, png = density_of(video, frame), fixations_of(video, frame)
        assert density.shape == png.shape == (360, 640)
        assert density[png].mean() > 5 * density.mean()
        mat = AnnotatedVideo(video.source, video.folder, {}, {frame: f"fixation/maps/{frame + 1:04d}.mat"})
        assert np.array_equal(fixations_of(mat, frame), png)


def test_a_map_that_was_not_fetched_is_said_to_be_a_pointer(root: Path) -> None:
    pointer = root / "annotation/0001/maps/0002.png"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(DataError, match=r"0002\.png: cannot be read as a picture; is a Git LFS pointer"):
        read_density(only(root), 1)


def test_what_an_appliance_leaves_in_the_layout_changes_nothing(tmp_path: Path) -> None:
    for number in (1, 2):
        write_maps(tmp_path / f"annotation/{number:04d}/maps")
        write_maps(tmp_path / f"annotation/{number:04d}/images")
    before = find_annotated_videos(tmp_path).videos
    for folder in ("annotation", "annotation/0001", "annotation/0001/images", "annotation/0001/maps"):
        write_maps(tmp_path / folder / "@eaDir" / "0001.png")
    assert find_annotated_videos(tmp_path).videos == before
    assert len(before) == 2
