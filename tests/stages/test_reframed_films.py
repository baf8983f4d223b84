"""A reframed film shows what is looked at, when the original does, with its sound; and a table says where it was."""

import csv
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.interrupting import interrupted_once_there
from tests.small_dumps import clip, write_teacher
from tests.video_files import number_of, numbered, pictures_of, source_of, write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.applications.reframing import Reframing, shape_of
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.predict import predict
from tinyhd_pipe.stages.predictions.products import Wanted
from tinyhd_pipe.stages.predictions.reframed_films import reframed_film
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.viewing import Viewing
from tinyhd_pipe.stages.video.writing import write_video


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("weights") / "m.safetensors")


def _rows(table: Path) -> list[dict[str, int]]:
    with table.open(newline="") as rows:
        return [{name: int(value) for name, value in row.items()} for row in csv.DictReader(rows)]


def _walking(frames: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32]]]:
    """A bright square that walks from the left to the right, and the map of who looks at it."""
    for place in range(frames):
        left = round(8 + 140 * place / frames)
        picture, saliency = np.full((64, 160, 3), 60, np.uint8), np.zeros((32, 80), np.float32)
        picture[24:40, left : left + 12] = 250
        saliency[12:20, left // 2 : left // 2 + 6] = 0.4
        yield picture, saliency


def test_the_film_shows_the_parts_that_the_table_names_and_in_them_what_is_looked_at(tmp_path: Path) -> None:
    pictures, maps = zip(*_walking(75), strict=True)
    write_video(tmp_path / "film.mp4", pictures, fps=25)
    viewing = Viewing(source_of(tmp_path / "film.mp4"))
    film, table = tmp_path / "film.9x16.mp4", tmp_path / "film.9x16.csv"
    with reframed_film(viewing, film, table, Reframing(shape_of("9:16"), speed=0.4), 25) as add:
        for frame, _ in enumerate(viewing):
            add(frame, maps[frame])
    rows = _rows(table)
    assert [row["frame"] for row in rows] == list(range(75))
    for row, cropped, whole in zip(rows, pictures_of(source_of(film)), pictures, strict=True):
        part = whole[row["y"] : row["y"] + row["h"], row["x"] : row["x"] + row["w"]]
        assert part.shape == cropped.shape == (64, 36, 3)
        assert np.abs(part.astype(int) - cropped).mean() < 8
        assert (cropped > 150).all(axis=2).sum() > 100, "of the 192 pixels of the square"
    assert max(abs(np.diff([row["x"] for row in rows]))) <= 0.4 / 25 * 160 + 1


def test_frames_are_shown_when_they_were_and_those_of_a_turned_film_are_upright(tmp_path: Path, weights: Path) -> None:
    quarter = [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]
    how = {"timestamps": [place**2 for place in range(12)], "matrix": quarter}
    video = write(tmp_path / "phone.mp4", [numbered(place) for place in range(12)], **how)
    predict(
        find_videos([video]), load_student(weights), tmp_path / "maps", Wanted(reframing=Reframing(shape_of("1:1")))
    )
    (rows, film) = _rows(tmp_path / "maps/phone.mp4.1x1.csv"), tmp_path / "maps/phone.mp4.1x1.mp4"
    assert {(row["x"], row["w"], row["h"]) for row in rows} == {(0, 48, 48)}
    times = []
    for made in (video, film):
        decoding = decode(source_of(made))
        times.append([decoding.shown for _ in decoding])
    assert times[0] == times[1]


@pytest.mark.shared
def test_the_crop_of_a_real_clip_jumps_at_its_cuts_alone_and_keeps_its_sound(tmp_path: Path, shared: Path) -> None:
    weights = write_teacher(tmp_path / "m.safetensors")
    video = shared / "data/videos/natural/test1.mp4"
    command = f"predict {video} --weights {weights} --out {tmp_path} --format npz --reframe 9:16"
    assert run(command.split()) == 0
    places = np.array([row["x"] for row in _rows(tmp_path / "test1.mp4.9x16.csv")])
    assert len(places) == 300
    moved = np.abs(np.diff(places))
    assert np.delete(moved, 54).max() <= 0.25 / 29.97 * 640 + 1
    with av.open(str(video)) as original, av.open(str(tmp_path / "test1.mp4.9x16.mp4")) as film:
        assert len(film.streams.audio) == len(original.streams.audio)
        assert (film.streams.video[0].width, film.streams.video[0].height) == (270, 480)


def test_a_rerun_makes_what_is_missing_and_another_way_of_moving_is_not_mixed(tmp_path: Path, weights: Path) -> None:
    write_video(tmp_path / "film.mp4", clip(9, 0))
    command = f"predict {tmp_path / 'film.mp4'} --weights {weights} --out {tmp_path / 'maps'} --reframe".split()
    film, table = tmp_path / "maps/film.mp4.9x16.mp4", tmp_path / "maps/film.mp4.9x16.csv"
    assert run([*command, "9:16"]) == 0
    before = film.read_bytes(), table.read_bytes(), film.stat().st_mtime_ns
    assert run([*command, "9:16"]) == 0
    assert film.stat().st_mtime_ns == before[2]
    table.unlink()
    assert run([*command, "18:32"]) == 0
    assert (film.read_bytes(), table.read_bytes()) == before[:2]
    assert run([*command, "1:1"]) == 0
    assert film.exists(), "another shape stands beside it"
    assert run([*command, "9:16", "--set", "predict.reframe_speed=1"]) == 2
    assert run([*command, "9:16", "--set", "predict.reframe_speed=1", "--overwrite"]) == 0


def test_a_folder_of_pictures_is_reframed_and_its_rows_have_the_numbers_of_its_frames(
    tmp_path: Path, weights: Path
) -> None:
    (tmp_path / "frames").mkdir()
    for place in range(5):
        Image.fromarray(numbered(place)).save(tmp_path / "frames" / f"{10 + place}.png")
    (tmp_path / "frames/12.png").write_bytes(b"broken")
    assert run(f"predict {tmp_path}/frames --weights {weights} --out {tmp_path}/maps --reframe 80:48".split()) == 1
    assert [row["frame"] for row in _rows(tmp_path / "maps/frames.5x3.csv")] == [9, 10, 11, 12, 13]
    shown = [number_of(picture) for picture in pictures_of(source_of(tmp_path / "maps/frames.5x3.mp4"))]
    assert shown == [0, 1, 1, 3, 4]


def test_ctrl_c_leaves_what_there_is_of_a_reframed_film_to_be_played(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "film.mp4", clip(600, 0))
    map_ = tmp_path / "maps/film.mp4/0141.png"
    command = f"predict {tmp_path / 'film.mp4'} --weights {weights} --out {tmp_path / 'maps'} --reframe 1:1".split()
    with interrupted_once_there(map_):
        assert run(command) == 130
    left = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert left == ["film.mp4", "film.mp4.1x1.partial.mp4", "film.mp4.json"]
    assert 60 < len(pictures_of(source_of(tmp_path / "maps/film.mp4.1x1.partial.mp4"))) < 600
