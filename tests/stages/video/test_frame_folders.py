"""A folder of pictures is a video whatever kind its pictures are, and what lies beside them does not disturb it."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video_files import Picture, frame_folder, number_of, numbered, pictures_of, save, source_of, touch
from tinyhd_pipe.stages.video.decoding import decode, probe
from tinyhd_pipe.stages.video.frame_folders import folder_size
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import LEFT_BEHIND_FOLDERS, digest, find_videos
from tinyhd_pipe.store.errors import VideoError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def grey(number: int) -> Picture:
    """(y, x) grey that shows a number, over every shade there is."""
    picture = numbered(number)[..., 0]
    picture[24:32] = np.linspace(0, 255, 80).astype(np.uint8)
    return picture


def save_16_bit(path: Path, picture: Picture) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wide = picture.astype(np.uint16) * 257
    if path.suffix == ".pgm":
        path.write_bytes(b"P5 80 48 65535\n" + wide.astype(">u2").tobytes())
    else:
        Image.fromarray(wide).save(path)


# Depth of grey


@pytest.mark.parametrize("ending", [".png", ".tif", ".pgm"])
def test_grey_of_16_bits_is_that_of_8_bits(tmp_path: Path, ending: str) -> None:
    for number in range(4):
        save_16_bit(tmp_path / "deep" / f"{number}{ending}", grey(number))
    pictures = pictures_of(source_of(tmp_path / "deep"))
    assert (np.stack(pictures) == np.stack([grey(n) for n in range(4)])[..., None]).all()


def test_each_of_65536_greys_is_brought_to_the_nearest_of_256(tmp_path: Path) -> None:
    shades = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    (tmp_path / "clip").mkdir()
    Image.fromarray(shades).save(tmp_path / "clip" / "1.png")
    (picture,) = pictures_of(source_of(tmp_path / "clip"))
    assert np.abs(picture[..., 1] / 255 - shades / 65535).max() <= 0.5 / 255 + 1e-9


@pytest.mark.shared
def test_a_real_clip_of_16_bits_gives_the_frames_of_its_twin(shared: Path) -> None:
    deep, twin = (pictures_of(source_of(shared / "data/cases/grey_16_bit" / name)) for name in ("clip", "clip8"))
    assert len(deep) == len(twin) == 12
    assert np.abs(np.stack(deep).astype(int) - np.stack(twin)).max() <= 1


def test_numbers_whose_white_nobody_knows_are_not_guessed(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", ["1.png", "2.png"])
    Image.fromarray(np.full((48, 80), 3.5, np.float32)).save(tmp_path / "clip" / "3.tif")
    decoding = decode(source)
    assert [picture is not None for picture in decoding] == [True, True, False]
    assert decoding.problem == "1 of 3 pictures are broken or of another size, 3.tif the first"


@pytest.mark.parametrize("ending", [".tiff", ".webp", ".bmp", ".jp2", ".jfif", ".ppm", ".tga", ".JPE"])
def test_pictures_of_any_kind_that_pillow_reads_are_frames(tmp_path: Path, ending: str) -> None:
    for number in range(3):
        save(tmp_path / "clip" / f"{number}{ending}", numbered(number))
    (source,) = find_videos([tmp_path])
    assert [number_of(picture) for picture in pictures_of(source)] == [0, 1, 2]


# What lies beside the frames


@pytest.mark.parametrize("others", [1, 3])
def test_the_size_is_that_of_most_pictures_and_a_cover_decides_nothing(tmp_path: Path, others: int) -> None:
    source = frame_folder(tmp_path / "clip", [f"frame_{n:03d}.png" for n in range(40)])
    for place in range(others):
        save(tmp_path / "clip" / f"cover_{place}.png", numbered(0, 96, 96))
    assert (probe(source).height, probe(source).width) == (48, 80)
    decoding = decode(source)
    shown = [number_of(picture) for picture in decoding if picture is not None]
    assert shown == list(range(40))
    assert decoding.problem is None, "a cover is no frame"
    assert number_of(read_frames(source, np.array([7]))[0]) == 7
    save(source.path / "frame_040.png", numbered(0, 96, 96))
    decoding = decode(source)
    assert [picture is not None for picture in decoding] == [True] * 40 + [False]
    assert decoding.problem == "1 of 41 pictures are broken or of another size, frame_040.png the first"


def test_the_size_of_lying_pictures_is_that_of_the_upright_ones(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    for number in range(3):
        lying = np.ascontiguousarray(np.rot90(numbered(number)))
        for ending in (".jpg", ".png", ".webp"):
            save(tmp_path / ending / f"{number}{ending}", lying, exif=turned)
    for ending in (".jpg", ".png", ".webp"):
        source = source_of(tmp_path / ending)
        assert folder_size(source) == (48, 80)
        assert [number_of(picture) for picture in pictures_of(source)] == [0, 1, 2]


def test_two_pictures_of_one_name_are_one_frame_and_the_lossless_one_is_taken(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", [f"{n:04d}.png" for n in range(5)])
    for number in range(7):
        save(tmp_path / "clip" / f"{number:04d}.jpg", numbered(100 + number))
    assert [number_of(picture) for picture in pictures_of(source)] == [0, 1, 2, 3, 4, 105, 106]
    assert probe(source).frames == 7
    before = digest(source)
    (tmp_path / "clip" / "0001.jpg").unlink()
    assert digest(source) == before, "what is not taken is not part of the video"


@pytest.mark.parametrize("name", sorted(LEFT_BEHIND_FOLDERS | {".Trash-1000", ".AppleDouble", "@eaDir", "__MACOSX"}))
def test_folders_that_systems_leave_behind_hold_no_videos_and_hide_none(tmp_path: Path, name: str) -> None:
    frame_folder(tmp_path / "clip", ["1.png", "2.png"])
    frame_folder(tmp_path / "clip" / name / "1.png", ["THUMB_S.png", "THUMB_M.png"])
    touch(tmp_path, f"{name}/old.mp4", f"{name}/deep/older.mp4")
    assert [source.id for source in find_videos([tmp_path])] == ["clip"]
    named = find_videos([tmp_path / name])
    assert [source.id for source in named] == ["deep/older.mp4", "old.mp4"], "a folder that is given is searched"


def test_handles_of_people_are_no_rubbish(tmp_path: Path) -> None:
    touch(tmp_path, "@someone/a.mp4", "#cats/b.mp4")
    assert [source.id for source in find_videos([tmp_path])] == ["#cats/b.mp4", "@someone/a.mp4"]


@pytest.mark.shared
def test_an_appliance_s_thumbnails_are_passed_over(shared: Path) -> None:
    found = find_videos([shared / "data/cases/thumbnail_folders"])
    assert [(source.id, source.is_frame_folder) for source in found] == [
        ("frames/clipA", True),
        ("videos/001.mp4", False),
        ("videos/002.mp4", False),
    ]
    assert len(pictures_of(found[0])) == 12


# Pointers


def test_a_git_lfs_pointer_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text(POINTER)
    (tmp_path / "b.ts").write_text(POINTER)
    with pytest.raises(VideoError, match=r"a\.mp4: a Git LFS pointer, not the video itself; run git lfs pull"):
        probe(source_of(tmp_path / "a.mp4"))
    assert [source.id for source in find_videos([tmp_path])] == ["a.mp4", "b.ts"]

    source = frame_folder(tmp_path / "clip", ["1.png", "2.png", "3.png"])
    (tmp_path / "clip" / "2.png").write_text(POINTER)
    decoding = decode(source)
    assert [picture is not None for picture in decoding] == [True, False, True]
    assert decoding.problem == "1 of 3 pictures are missing, 2.png the first: a Git LFS pointer; run git lfs pull"
    for picture in (tmp_path / "clip").iterdir():
        picture.write_text(POINTER)
    with pytest.raises(VideoError, match=r"clip: holds Git LFS pointers, not the pictures themselves"):
        probe(source)
