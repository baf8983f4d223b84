"""Videos are found wherever users keep them, under names that last, and known again by their content."""

from pathlib import Path

import pytest

from tests.video_files import frame_folder, number_of, pictures_of, source_of, touch
from tinyhd_pipe.stages.video.sources import VideoSource, digest, find_videos, search_videos
from tinyhd_pipe.store.errors import VideoError

# Finding


def test_a_folder_is_searched_through_and_ids_are_paths_below_it(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/0068.AVI",
        "a.webm",
        "b/c/x.Mp4",
        "b/notes.txt",
        ".hidden.mp4",
        ".cache/y.mp4",
        "b/._0068.AVI",
    )
    assert [(s.id, s.path) for s in find_videos([tmp_path])] == [
        (name, tmp_path / name) for name in ("a.webm", "b/0068.AVI", "b/c/x.Mp4")
    ]


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "clip.dat")
    assert find_videos([str(tmp_path / "clip.dat")]) == [VideoSource("clip.dat", tmp_path / "clip.dat")]


def test_folders_of_pictures_are_videos_whether_named_or_found(tmp_path: Path) -> None:
    touch(tmp_path, "clips/run/1.JPG", "clips/run/2.jpg", "clips/walk/1.png")
    assert [(s.id, s.is_frame_folder) for s in find_videos([tmp_path])] == [
        ("clips/run", True),
        ("clips/walk", True),
    ]
    assert [(s.id, s.is_frame_folder) for s in find_videos([tmp_path / "clips" / "run"])] == [("run", True)]


def test_ground_truth_stray_pictures_and_covers_are_no_videos(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "video/001.AVI",
        "video/cover.jpg",
        "annotation/0001/0001.png",
        "annotation/0001/maps/0001.png",
    )
    touch(tmp_path, "annotation/0001/fixation/0001.png", "annotation/0001/fixation/maps/0001.mat")
    touch(tmp_path, "training/Diving-001/images/1.png", "training/Diving-001/maps/1.png", "poster.png")
    assert [s.id for s in find_videos([tmp_path])] == ["training/Diving-001/images", "video/001.AVI"]


def test_ids_that_collide_get_the_name_of_their_root_in_front(tmp_path: Path) -> None:
    touch(tmp_path, "natural/a.mp4", "natural/only.mp4", "awkward/a.mp4", "x/natural/a.mp4")
    found = find_videos([tmp_path / "natural", tmp_path / "awkward"])
    assert [s.id for s in found] == ["awkward/a.mp4", "natural/a.mp4", "only.mp4"]
    assert [s.path.parent.name for s in found] == ["awkward", "natural", "natural"]
    with pytest.raises(VideoError, match=r"would both be natural/a\.mp4: rename"):
        find_videos([tmp_path / "natural", tmp_path / "x" / "natural"])


def test_a_video_named_twice_is_found_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    found = find_videos([tmp_path / "b.mp4", tmp_path, tmp_path / "a.mp4"])
    assert [s.id for s in found] == ["a.mp4", "b.mp4"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "far/a.mp4", "near/b.mp4")
    (tmp_path / "near" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "self").symlink_to(tmp_path / "near")
    assert [s.id for s in find_videos([tmp_path / "near"])] == ["b.mp4", "far/a.mp4"]


def test_paths_without_video_are_refused_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "texts/notes.txt")
    with pytest.raises(VideoError, match=r"texts: no video in it; expected files named .*\.avi") as none:
        find_videos([tmp_path / "texts"])
    with pytest.raises(VideoError, match="gone: no such file or folder") as missing:
        find_videos([tmp_path / "gone"])
    assert "\n" not in f"{none.value}{missing.value}"


def test_frames_of_a_folder_come_in_natural_order(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", ["f1.png", "f2.png", "f9b.png", "f10.png", "f010.png", "g1.png"])
    touch(tmp_path / "clip", "notes.txt", ".f3.png")
    assert [number_of(p) for p in pictures_of(source)] == [0, 1, 2, 4, 3, 5]


# What is passed over


def test_endings_of_cameras_and_players_are_taken_and_typescript_is_not(tmp_path: Path) -> None:
    names = ["00001.MTS", "00002.m2ts", "index.ts", "ok.mp4", "real.ts", "types.mts", "x.mp4v", "y.f4v", "z.qt"]
    touch(tmp_path, *names)
    for name in ("index.ts", "types.mts"):
        (tmp_path / name).write_text("export const é = 1\n" * 100)
    for name in ("00001.MTS", "real.ts"):
        (tmp_path / name).write_bytes(b"G@\x00\x10" + b"\xff" * 184)
    found = search_videos([tmp_path])
    assert [source.id for source in found.videos] == [n for n in names if n not in ("index.ts", "types.mts")]
    assert [str(folder) for folder in found.left_out] == [f"{tmp_path}: 2 files were not taken: 1 .mts, 1 .ts"]


def test_files_that_are_in_no_video_are_counted_by_their_endings(tmp_path: Path) -> None:
    touch(tmp_path / "a", "1.mp4", "cover.JPG", "poster.jpg", "clip/1.png", "clip/2.png", "clip/2.jpg", "clip/notes")
    touch(tmp_path / "a", ".hidden", "Thumbs.db", "@eaDir/1.mp4/thumb.jpg", "video/maps/0001.png", "video/1.avi")
    touch(tmp_path / "b", "1.mp4", "x.xyz")
    touch(tmp_path / "whole", "1.mp4")
    found = search_videos([tmp_path / name for name in ("a", "b", "whole", "a/poster.jpg")])
    assert [(out.folder.name, dict(out.endings)) for out in found.left_out] == [
        ("a", {".jpg": 3, "": 1}),
        ("b", {".xyz": 1}),
    ]
    assert [str(out).removeprefix(str(tmp_path)) for out in found.left_out] == [
        "/a: 4 files were not taken: 3 .jpg, 1 without ending",
        "/b: 1 file was not taken: 1 .xyz",
    ]
    assert list(found.videos) == find_videos([tmp_path / name for name in ("a", "b", "whole", "a/poster.jpg")])


@pytest.mark.shared
def test_the_same_film_under_every_ending_is_taken_and_read(shared: Path) -> None:
    found = search_videos([shared / "data/cases/suffixes"])
    assert {source.id: len(pictures_of(source)) for source in found.videos} == {
        "00001.MTS": 60,
        "00002.m2ts": 60,
        **dict.fromkeys(("ok.mp4", "x.mp4v", "y.f4v", "z.qt"), 20),
    }
    assert [dict(out.endings) for out in found.left_out] == [{".ts": 1}]


def test_a_dangling_link_stops_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a/001.AVI")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "001.AVI").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b" / "folder").symlink_to(tmp_path / "nowhere as well")
    assert [source.id for source in find_videos([tmp_path / "a", tmp_path / "b"])] == ["a/001.AVI", "b/001.AVI"]
    with pytest.raises(VideoError, match=r"001\.AVI: No such file"):
        digest(source_of(tmp_path / "b" / "001.AVI"))


# Digests


def test_a_digest_is_that_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    for name in ("a.avi", "b.mp4"):
        (tmp_path / name).write_bytes(b"the same bytes")
    same = {digest(source_of(tmp_path / name)) for name in ("a.avi", "b.mp4")}
    (tmp_path / "b.mp4").write_bytes(b"the same bytez")
    assert len(same) == 1
    assert digest(source_of(tmp_path / "b.mp4")) not in same
    with pytest.raises(VideoError, match="gone"):
        digest(source_of(tmp_path / "gone"))


def test_a_frame_folder_has_the_digest_of_its_names_and_pictures(tmp_path: Path) -> None:
    first = digest(frame_folder(tmp_path / "a", ["1.png", "2.png"]))
    assert digest(frame_folder(tmp_path / "b", ["1.png", "2.png"])) == first
    assert digest(frame_folder(tmp_path / "c", ["1.png", "3.png"])) != first
    (tmp_path / "b" / "1.png").write_bytes(b"other")
    assert digest(source_of(tmp_path / "b")) != first
