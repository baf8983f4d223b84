"""Gaze tables to maps and back: every export of a recording gives the same maps, and every row is accounted for."""

import itertools
import math
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from tests.gaze_exports import (
    FIXATIONS,
    FPS,
    SAMPLES,
    SCREEN,
    SIZE,
    Export,
    Gaze,
    as_fixations,
    expected_maps,
    recording,
)
from tests.gaze_exports import plain as plain_table
from tinyhd_pipe.stages.from_gaze import FromGaze, from_gaze
from tinyhd_pipe.stages.gaze import gaze_table
from tinyhd_pipe.stages.gaze.annotated import read_density, read_fixations
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.settings.from_gaze import FromGazeOptions
from tinyhd_pipe.stages.to_gaze import to_gaze
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos, frame_names
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import DataError, SettingError

FRAMES = 20
ON_SCREEN = FromGazeOptions(picture=(0, 0, *SCREEN))
Maps = dict[int, NDArray[np.bool_]]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    folder = tmp_path_factory.mktemp("data") / "video"
    folder.mkdir()
    for number in (1, 2):
        write_video(folder / f"{number:03d}.mp4", np.full((FRAMES, *SIZE, 3), 90, np.uint8), fps=FPS)
    return find_videos([folder])


def _make(
    table: str | bytes,
    sources: Sequence[VideoSource],
    out: Path,
    options: FromGazeOptions = ON_SCREEN,
    name: str = "gaze.csv",
) -> FromGaze:
    out.mkdir(exist_ok=True)
    (out / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return from_gaze([out / name], sources, out, options)


def _fixations(annotation: Path) -> Maps:
    files = sorted(annotation.glob("fixation/*.png"))
    return {int(file.stem) - 1: np.asarray(Image.open(file)) > 0 for file in files}


def _assert_same(made: Maps, expected: Maps) -> None:
    assert made.keys() == expected.keys()
    for frame, looked_at in expected.items():
        np.testing.assert_array_equal(made[frame], looked_at, err_msg=f"frame {frame}")


@pytest.mark.parametrize("export", SAMPLES, ids=lambda export: export.__name__)
def test_every_export_of_a_recording_gives_the_same_fixation_maps(
    export: Export, videos: list[VideoSource], tmp_path: Path
) -> None:
    gaze = recording()
    made = _make(export(gaze, "001.mp4"), videos[:1], tmp_path)
    _assert_same(_fixations(tmp_path / "annotation/0001"), expected_maps(gaze, FRAMES))
    assert made.columns[str(tmp_path / "gaze.csv")]["export"] != "", made.columns
    points = sum(one.valid and one.fixating for one in gaze)
    assert made.points == points
    assert made.rows == points + sum(made.left_out.values()), "every row is a point or has a reason"


@pytest.mark.parametrize("export", FIXATIONS, ids=lambda export: export.__name__)
def test_a_fixation_is_on_every_frame_that_it_lasts(export: Export, videos: list[VideoSource], tmp_path: Path) -> None:
    gaze = as_fixations(recording(samples=12))
    _make(export(gaze, "001.mp4"), videos[:1], tmp_path)
    expected = expected_maps(gaze, FRAMES)
    _assert_same(_fixations(tmp_path / "annotation/0001"), expected)
    assert expected.keys() > expected_maps(recording(samples=12), FRAMES).keys(), "they outlast their beginnings"


def test_text_in_utf_16_and_columns_that_the_user_names_are_read(videos: list[VideoSource], tmp_path: Path) -> None:
    gaze = recording()
    renamed = plain_table(gaze, "001").replace("time_ms", "zeit").replace("x_norm", "rechts").replace("y_norm", "unten")
    columns = {"time": "zeit", "x": "rechts", "y": "unten"}
    options = FromGazeOptions(columns=columns, time_unit="ms", position_unit="share")
    made = _make(renamed.encode("utf-16"), videos, tmp_path, options)
    _assert_same(_fixations(tmp_path / "annotation/0001"), expected_maps(gaze, FRAMES))
    assert made.columns[str(tmp_path / "gaze.csv")]["x"] == "rechts"


def test_a_table_in_pieces_and_in_any_order_gives_the_same_bytes(
    videos: list[VideoSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [plain_table(recording(seed=seed), f"{seed + 1:03d}.mp4").splitlines() for seed in (0, 1)]
    header, rows = tables[0][0], [*tables[0][1:], *tables[1][1:]]
    made = _make("\n".join([header, *rows]), videos, tmp_path / "whole")
    monkeypatch.setattr(gaze_table, "ROWS", 7)
    shuffled = np.random.default_rng(1).permutation(rows).tolist()
    again = _make("\n".join([header, *shuffled]), videos, tmp_path / "pieces")
    assert (made.frames, made.points, made.left_out) == (again.frames, again.points, again.left_out)
    assert _bytes(tmp_path / "whole/annotation") == _bytes(tmp_path / "pieces/annotation")
    assert made.videos == 2


def _bytes(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != "from_gaze.json"
    }


def test_a_rerun_makes_the_same_bytes_also_after_it_was_cut_off(
    videos: list[VideoSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = plain_table(recording(), "001.mp4")
    options = FromGazeOptions(fixations="both", pool=3)
    _make(table, videos, tmp_path, options)
    before = _bytes(tmp_path / "annotation")
    assert any(name.endswith(".mat") for name in before)

    def full_disk(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Image.Image, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            _make(table, videos, tmp_path, options)
    assert {name: text for name, text in _bytes(tmp_path / "annotation").items() if ".partial" not in name} == before
    _make(table, videos, tmp_path, options)
    assert _bytes(tmp_path / "annotation") == before


def test_killed_while_maps_are_written_a_rerun_ends_with_the_same_bytes(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    tables = [plain_table(recording(seed=seed), f"{seed + 1:03d}.mp4").splitlines() for seed in (0, 1)]
    table = "\n".join([tables[0][0], *tables[0][1:], *tables[1][1:]])
    _make(table, videos, tmp_path / "whole")
    pid = os.fork()
    if not pid:
        kept, written = Image.Image.save, itertools.count()

        def die_at_the_last_video(*given: Any, **named: Any) -> None:
            if next(written) == 50:
                os.kill(os.getpid(), signal.SIGKILL)
            kept(*given, **named)

        Image.Image.save = die_at_the_last_video  # type: ignore[method-assign]
        _make(table, videos, tmp_path / "killed")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    left = {path.name for path in (tmp_path / "killed/annotation").iterdir()}
    assert left == {"from_gaze.json", ".rows.partial", "0001", ".0002.partial"}, "a video is whole or not there"
    _make(table, videos, tmp_path / "killed")
    assert _bytes(tmp_path / "killed/annotation") == _bytes(tmp_path / "whole/annotation")


def test_every_row_that_gives_no_point_is_counted_under_its_reason(videos: list[VideoSource], tmp_path: Path) -> None:
    good = Gaze("A", 0.5, 0.5, 0.5)
    wrong = {
        "repeated": good,
        "not valid": replace(good, valid=False),
        "no fixation": replace(good, fixating=False),
        "off the picture": replace(good, x=1.0),
        "before or after the video": replace(good, seconds=FRAMES / FPS),
        "without a position": replace(good, x=float("nan")),
    }
    other = plain_table([good], "dog.mp4").splitlines()[1]
    made = _make(plain_table([good, *wrong.values()], "001.mp4") + other, videos, tmp_path)
    assert made.left_out == {**dict.fromkeys(wrong, 1), "of videos that were not given": 1}
    assert (made.points, made.rows, made.not_given) == (1, 8, ["dog.mp4"])


def test_a_density_map_is_scipys_gaussian_of_the_points_of_the_pooled_frames(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    from scipy.ndimage import gaussian_filter

    gaze = recording()
    _make(plain_table(gaze, "001"), videos, tmp_path, FromGazeOptions(sigma=2.5, pool=3))
    (video,) = find_annotated_videos_of(tmp_path, videos)
    for frame in (0, 7, 15):
        counts = np.zeros(SIZE)
        for one in gaze:
            if one.valid and one.fixating and abs(one.frame - frame) <= 1:
                counts[int(one.y * SIZE[0]), int(one.x * SIZE[1])] += 1
        blurred = gaussian_filter(counts, 2.5, mode="constant", truncate=4)
        density = read_density(video, frame)
        assert density is not None
        np.testing.assert_allclose(density, blurred / blurred.max(), atol=0.51 / 255)


def find_annotated_videos_of(out: Path, videos: list[VideoSource]) -> Any:
    if not (out / "video").exists():
        (out / "video").symlink_to(videos[0].path.parent)
    return find_annotated_videos(out).videos


def test_degrees_are_pixels_of_the_video_by_the_geometry_of_the_screen(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    """From where 2.5 degrees span 2.5 cm: 10 pixels of the screen, 5 of which are one of the video."""
    distance = 1.25 / math.tan(math.radians(1.25))
    screen: dict[str, Any] = {"distance_cm": distance, "screen_cm": (40.0, 30.0), "screen_px": SCREEN}
    table = plain_table(recording(), "001")
    degrees = FromGazeOptions(sigma_degrees=2.5, **screen)
    _make(table, videos, tmp_path / "degrees", degrees)
    _make(table, videos, tmp_path / "pixels", FromGazeOptions(sigma=2.0))
    assert _bytes(tmp_path / "degrees/annotation") == _bytes(tmp_path / "pixels/annotation")
    _make(table, videos, tmp_path / "nearer", replace(degrees, distance_cm=40.0))
    assert _bytes(tmp_path / "nearer/annotation") != _bytes(tmp_path / "pixels/annotation")
    with pytest.raises(ValueError, match="sigma_degrees needs distance_cm"):
        FromGazeOptions(sigma_degrees=1.0)


@settings(max_examples=12, deadline=None)
@given(maps=arrays(bool, (4, *SIZE), elements=st.booleans(), fill=st.just(False)))
def test_a_table_of_fixation_maps_gives_them_back(
    maps: NDArray[np.bool_], tmp_path_factory: pytest.TempPathFactory
) -> None:
    maps[0, 3, 5] = True
    root = tmp_path_factory.mktemp("there and back")
    frames, annotation = root / "video/001", root / "annotation/0001"
    for folder in (frames, annotation / "fixation", annotation / "maps"):
        folder.mkdir(parents=True)
    for frame, looked_at in enumerate(maps):
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(frames / f"{frame + 1:04d}.png")
        for name in ("fixation", "maps"):
            Image.fromarray(255 * looked_at.astype(np.uint8)).save(annotation / name / f"{frame + 1:04d}.png")
    written = to_gaze(find_annotated_videos(root).videos, root / "gaze.csv")
    assert written.points == maps.sum()
    back = root / "back"
    from_gaze([root / "gaze.csv"], find_videos([root / "video"]), back)
    _assert_same(_fixations(back / "annotation/0001"), {n: one for n, one in enumerate(maps) if one.any()})


def test_fixations_in_mat_files_are_those_in_pictures(videos: list[VideoSource], tmp_path: Path) -> None:
    gaze = recording()
    _make(plain_table(gaze, "001"), videos, tmp_path, FromGazeOptions(fixations="mat"))
    (video,) = find_annotated_videos_of(tmp_path, videos)
    assert set(video.fixations.values()) == {f"fixation/maps/{frame + 1:04d}.mat" for frame in video.fixations}
    made = {frame: read_fixations(video, frame) for frame in video.fixations}
    _assert_same(made, expected_maps(gaze, FRAMES))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("a,b\n1,2\n", "no column for x, y, time or frame (found: a, b); name it with --column x=NAME"),
        ("video,time,x,y\n", "no row of 0 is left: the tables are empty"),
        ("video,time,x,y\ncat,1,2,3\n", "the tables name cat, and given are 001.mp4, 002.mp4"),
        ("video,time,x,y\n001,900,2,3\n", "1 before or after the video; is from_gaze.time_unit"),
        ("video,time,x,y\n001,.1,2,300\n", "1 off the picture; is from_gaze.position_unit"),
        ("time,x,y\n.1,2,3\n", "has no column of videos, and 2 are given"),
        ('video,time,x,y\n001,.1,2,"3\n' + "0" * 140_000, "line 3 cannot be read"),
        (b"\xff\xfe\x00\xd8\x00\xd8\x00", "not text"),
    ],
)
def test_wrong_tables_are_one_line_and_leave_nothing(
    table: str | bytes, said: str, videos: list[VideoSource], tmp_path: Path
) -> None:
    with pytest.raises(DataError) as refusal:
        _make(table, videos, tmp_path)
    assert str(refusal.value).startswith(f"{tmp_path / 'gaze.csv'}: ")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not _bytes(tmp_path / "annotation")


def test_annotation_that_others_made_is_not_written_over(videos: list[VideoSource], tmp_path: Path) -> None:
    (tmp_path / "annotation/0001/maps").mkdir(parents=True)
    with pytest.raises(DataError, match="was not made from gaze tables; give another --out"):
        _make(plain_table(recording(), "001"), videos, tmp_path)


def test_a_column_of_no_role_is_refused(videos: list[VideoSource], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--column z: expected one of video, observer"):
        _make("video,time,x,y\n", videos, tmp_path, FromGazeOptions(columns={"z": "x"}))
    with pytest.raises(DataError, match="--column x=GX: no such column"):
        _make("video,time,x,y\n", videos, tmp_path, FromGazeOptions(columns={"x": "GX"}))


@pytest.mark.parametrize(
    ("names", "frame", "place"),
    [
        (["0010.png", "0011.png", "0013.png"], 12, 2),  # no 0012: frame 11 is not there
        (["f_0.png", "f_5.png", "f_10.png"], 5, 1),
        (["cat.png", "dog.png", "eel.png"], 1, 1),
    ],
)
def test_maps_of_a_folder_of_frames_are_found_by_the_numbers_in_their_names(
    names: list[str], frame: int, place: int, tmp_path: Path
) -> None:
    folder = tmp_path / "video/001"
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(folder / name)
    table = f"frame,x,y\n{frame},3,4\n11,5,6\n999,7,8\n"
    made = _make(table, find_videos([tmp_path / "video"]), tmp_path, FromGazeOptions())
    (video,) = find_annotated_videos(tmp_path).videos
    missing = 3 - len(video.fixations)
    assert made.left_out == {"before or after the video": missing}
    assert frame in video.fixations
    looked_at = read_fixations(video, frame)
    assert looked_at is not None
    assert np.argwhere(looked_at).tolist() == [[4, 3]]
    assert frame_names(folder).numbering.numbers([place]).tolist() == [frame]


def test_frames_without_a_rate_need_one_for_times_and_none_for_frame_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "video/001"
    folder.mkdir(parents=True)
    for frame in range(5):
        Image.fromarray(np.full((*SIZE, 3), 90, np.uint8)).save(folder / f"{frame + 1:04d}.png")
    sources = find_videos([tmp_path / "video"])
    timed = _make("time,x,y\n0.25,3,4\n", sources, tmp_path / "timed")
    assert "set from_gaze.fps" in timed.problems["001"]
    _make("time,x,y\n0.25,3,4\n", sources, tmp_path / "given", FromGazeOptions(fps=10))
    _make("frame,x,y\n3,3,4\n", sources, tmp_path / "numbered", FromGazeOptions(first_frame=1))
    assert list(_fixations(tmp_path / "given/annotation/0001")) == [2]
    assert list(_fixations(tmp_path / "numbered/annotation/0001")) == [2]
