"""A folder of thumbnails holds the frames that its table names, whole and cropped."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small_dumps import clip, write_teacher
from tests.video_files import number_of, numbered, pictures_of, source_of
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.applications.thumbnails import Thumbnails
from tinyhd_pipe.stages.predictions.thumbnail_folders import thumbnail_folder
from tinyhd_pipe.stages.video.viewing import Viewing
from tinyhd_pipe.stages.video.writing import write_video


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("weights") / "m.safetensors")


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "thumbnails.csv").open(newline="") as rows:
        return list(csv.DictReader(rows))


def test_pictures_are_of_the_frames_and_the_crops_of_the_table(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", [numbered(place) for place in range(60)], fps=10)
    maps = [np.full((24, 40), 0.1, np.float32) for _ in range(60)]
    for place, row, column in ((17, 3, 4), (42, 20, 36)):
        maps[place][row, column] += 60 if place == 17 else 30
    viewing = Viewing(source_of(tmp_path / "film.mp4"))
    with thumbnail_folder(viewing, tmp_path / "made", Thumbnails(2, zoom=0.5), 10) as add:
        for frame, _ in enumerate(viewing):
            add(frame, maps[frame])
    rows, original = _rows(tmp_path / "made"), pictures_of(source_of(tmp_path / "film.mp4"))
    assert [(row["rank"], row["frame"]) for row in rows] == [("1", "17"), ("2", "42")]
    for row in rows:
        whole = np.asarray(Image.open(tmp_path / "made" / f"{row['rank']}.jpg"))
        cropped = np.asarray(Image.open(tmp_path / "made" / f"{row['rank']}.crop.jpg"))
        x, y, width, height = (int(row[name]) for name in "xywh")
        assert number_of(whole) == int(row["frame"])
        assert np.abs(cropped.astype(int) - original[int(row["frame"])][y : y + height, x : x + width]).mean() < 12
    assert (int(rows[0]["x"]), int(rows[0]["y"])) <= (8, 6)
    assert float(rows[0]["score"]) > float(rows[1]["score"]) > 0.3


def test_a_rerun_keeps_them_and_another_number_is_asked_about(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "frames").mkdir()
    for place, picture in enumerate(clip(9, 0)):
        Image.fromarray(picture).save(tmp_path / "frames" / f"{5 + place}.png")
    (tmp_path / "frames/5.png").write_bytes(b"broken")
    command = f"predict {tmp_path}/frames --weights {weights} --out {tmp_path}/maps --set predict.fps=3 --thumbnail"
    made = tmp_path / "maps/frames.thumbnails"
    assert run([*command.split(), "2"]) == 1, "a picture is broken, and all the same there are thumbnails"
    assert sorted(path.name for path in made.iterdir()) == [
        *(f"{n}{e}" for n in "12" for e in (".crop.jpg", ".jpg")),
        "thumbnails.csv",
    ]
    assert {int(row["frame"]) for row in _rows(made)} <= set(range(4, 13))
    time = made.stat().st_mtime_ns
    assert run([*command.split(), "2"]) == 1
    assert made.stat().st_mtime_ns == time
    assert run([*command.split(), "3"]) == 2
    assert run([*command.split(), "3", "--overwrite", "--set", "predict.thumbnail_apart=0.3"]) == 1
    assert len(_rows(made)) == 3


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_a_number_that_is_none_is_refused(tmp_path: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "a.mp4", "--weights", "w", "--out", str(tmp_path), "--thumbnail", number]) == 2
    assert "--thumbnail" in capsys.readouterr().err
