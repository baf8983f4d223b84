"""A data set is looked at before it is used: what is broken, what will be left out, and nothing where all is well."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.video_files import numbered, write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.data_check import CheckedVideo, DataCheck, data_check

SIZE = (48, 80)
DENSITY = np.add.outer(np.arange(48), np.arange(80)).astype(np.uint8)
POINTS = np.zeros(SIZE, np.uint8)
POINTS[3, 5] = POINTS[20, 31] = 255


def save(path: Path, pixels: np.ndarray = DENSITY, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def make(root: Path, number: int, frames: int = 8) -> Path:
    """A video in which all is well; returns its annotation."""
    (root / "video").mkdir(parents=True, exist_ok=True)
    write(root / f"video/{number:03d}.mp4", [numbered(n) for n in range(frames)])
    annotation = root / f"annotation/{number:04d}"
    for frame in range(frames):
        save(annotation / f"maps/{frame + 1:04d}.png")
        save(annotation / f"fixation/{frame + 1:04d}.png", POINTS)
    return annotation


OTHER_SIZE = "fixation maps are 3 of 192x256, density maps 96x128: points are moved"


def only(checked: DataCheck) -> CheckedVideo:
    (video,) = checked.videos
    return video


@pytest.mark.parametrize("decode", [False, True])
def test_of_a_good_data_set_there_is_nothing_to_say(tmp_path: Path, decode: bool) -> None:
    make(tmp_path, 1)
    told: list[tuple[int, int]] = []
    checked = data_check(tmp_path, decode_all=decode, report=lambda done, total: told.append((done, total)))
    video = only(checked)
    assert (checked.layout, checked.broken, checked.left_out, checked.decoded) == ("dhf1k", 0, (), decode)
    assert (video.video, video.frames, video.labelled, video.fixations) == ("001.mp4", 8, 8, 2.0)
    assert video.broken == video.noted == ()
    assert told == [(1, 1)]


def broken_by(root: Path, how: str) -> None:
    annotation = make(root, 1)
    if how == "more maps":
        for number in (9, 10, 12):
            save(annotation / f"maps/{number:04d}.png")
    elif how == "unreadable map":
        (annotation / "maps/0001.png").write_bytes(b"no picture")
    elif how == "several sizes":
        save(annotation / "maps/0008.png", DENSITY[:24])
    elif how == "noisy fixations":
        save(annotation / "noise.jpg", POINTS, quality=60)
        Image.open(annotation / "noise.jpg").save(annotation / "fixation/0001.png")
        (annotation / "noise.jpg").unlink()
    elif how == "unreadable fixations":
        (annotation / "fixation/0001.png").write_bytes(b"no picture")
    elif how == "no video":
        (root / "video/001.mp4").write_bytes(b"no video")


BROKEN = {
    "more maps": "3 of 11 density maps are of frames that are not there: 8 to 9, 11",
    "unreadable map": "density maps read cannot be: ",
    "several sizes": "density maps of several sizes: ",
    "noisy fixations": "fixation maps read have grey around their points, of JPEG or of a blur: 0",
    "unreadable fixations": "fixation maps read cannot be: ",
    "no video": "001.mp4: not a video",
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_broken_is_named_and_is_exit_code_1(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    broken_by(tmp_path, how)
    assert run(f"data check {tmp_path} --json".split()) == 1
    out = capsys.readouterr().out
    (line,) = json.loads(out)["videos"][0]["broken"]
    assert BROKEN[how] in line
    assert "\n" not in line


def test_what_will_be_left_out_or_mended_is_noted_and_is_exit_code_0(tmp_path: Path) -> None:
    annotation = make(tmp_path, 1)
    save(annotation / "maps/0001.png", np.zeros(SIZE, np.uint8))
    for number in (3, 4, 6):
        (annotation / f"maps/{number:04d}.png").unlink()
    for path in (annotation / "fixation").iterdir():
        save(path, POINTS[::2, ::2])
    video = only(data_check(tmp_path, decode_all=True))
    assert (video.frames, video.labelled, video.broken) == (8, 5, ())
    assert video.noted == (
        "3 of 8 frames have no density map: 2 to 3, 5",
        "1 of 5 density maps read are black: 0",
        "fixation maps are 8 of 24x40, density maps 48x80: points are moved",
    )
    assert run(f"data check {tmp_path}".split()) == 0


def test_decode_finds_what_a_few_maps_do_not_show(tmp_path: Path) -> None:
    annotation = make(tmp_path, 1)
    (annotation / "maps/0003.png").write_bytes(b"no picture")
    with (tmp_path / "video/001.mp4").open("r+b") as video:
        video.truncate(video.seek(0, 2) - 700)
    assert data_check(tmp_path, decode_all=True).broken == 1
    lines = only(data_check(tmp_path, decode_all=True)).broken
    assert any("1 of 8 density maps read cannot be" in line for line in lines)


def test_what_pairs_with_nothing_is_listed(tmp_path: Path) -> None:
    make(tmp_path, 1)
    save(tmp_path / "annotation/0002/maps/0001.png")
    write(tmp_path / "video/703.mp4", [numbered(0)])
    (tmp_path / "video/readme.txt").write_text("no video")
    save(tmp_path / "annotation/0001/stray.png")
    checked = data_check(tmp_path)
    assert checked.left_out == (
        "1 annotation without a video: 0002",
        "1 video without density maps: 703.mp4",
        f"{tmp_path}: 2 files were not taken: 1 .png, 1 .txt",
    )
    assert checked.broken == 0


def test_one_annotation_that_cannot_be_understood_costs_its_video_and_no_other(tmp_path: Path) -> None:
    for number in (1, 2):
        make(tmp_path, number)
    save(tmp_path / "annotation/0001/maps/0000.png")
    checked = data_check(tmp_path)
    assert [video.video for video in checked.videos] == ["002.mp4"]
    assert checked.left_out[0].endswith("0000.png: frames count from 1 here (0001.png is the first); renumber them")


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "frames", "labelled", "broken", "noted"),
    [
        ("gap_in_numbers", 15, 15, 0, "5 numbers missing among the frames: 3 to 7"),
        ("every_5th_frame", 4, 4, 0, "of every 5 frames one is there"),
        ("numbers_from_10", 11, 11, 0, "frames begin at 9"),
        ("more_maps_than_frames", 20, 20, 2, None),
        ("fixations_of_another_size", 20, 20, 0, OTHER_SIZE),
        ("sparse_mat", 20, 20, 0, None),
    ],
)
def test_the_folders_that_people_have_are_told_as_they_are(
    shared: Path, case: str, frames: int, labelled: int, broken: int, noted: str | None
) -> None:
    video = only(data_check(shared / "data/cases" / case))
    assert (video.frames, video.labelled, len(video.broken)) == (frames, labelled, broken)
    assert video.noted == ((noted,) if noted else ())
    assert video.fixations == 1.0
