"""Cuts are where a film begins anew, and nowhere else."""

from pathlib import Path

import numpy as np
import pytest

from tests.video_files import source_of
from tinyhd_pipe.stages.video.shots import starts_shot
from tinyhd_pipe.stages.video.viewing import Viewing
from tinyhd_pipe.stages.video.writing import write_video


def _cuts(path: Path) -> list[int]:
    viewing = Viewing(source_of(path))
    frames = sum(1 for _ in viewing)
    return [place for place in range(frames) if starts_shot(viewing.changes, place)]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "cuts"),
    [("demo.mp4", [0, 206, 268]), ("test1.mp4", [0, 55]), ("elf.webm", [0]), ("rabbit320.mp4", [0])],
)
def test_the_cuts_of_real_clips_are_found_and_no_others(shared: Path, name: str, cuts: list[int]) -> None:
    assert _cuts(shared / "data/videos/natural" / name) == cuts


def test_a_film_of_several_takes_is_cut_where_they_meet(tmp_path: Path) -> None:
    still = [np.full((48, 96, 3), grey, np.uint8) for grey in (40, 200)]
    ramp = np.broadcast_to(np.linspace(0, 255, 96).astype(np.uint8)[:, None], (48, 96, 3))
    pan = [np.roll(ramp, place, 1) for place in range(20)]
    write_video(tmp_path / "film.mp4", [*pan, *([still[0]] * 20), *([still[1]] * 20)])
    assert _cuts(tmp_path / "film.mp4") == [0, 20, 40]


def test_a_flash_and_a_shaken_camera_are_no_cuts(tmp_path: Path) -> None:
    dark = np.full((48, 96, 3), 40, np.uint8)
    flash = [*([dark] * 20), dark + 180, *([dark] * 20)]
    noise = np.random.default_rng(0).integers(0, 255, (48, 96, 3), dtype=np.uint8)
    shaken = [np.roll(noise, 7 * place, 1) for place in range(20)]
    write_video(tmp_path / "film.mp4", flash)
    assert _cuts(tmp_path / "film.mp4") == [0]
    write_video(tmp_path / "film.mp4", shaken)
    assert _cuts(tmp_path / "film.mp4") == [0]


def test_a_cut_is_known_two_frames_later() -> None:
    changes = [0.0, 1, 1, 50, 2, 1, 60, 3]
    assert [place for place in range(len(changes)) if starts_shot(changes, place)] == [0, 3, 6]
    assert [starts_shot(changes[: place + 3], place) for place in (3, 6)] == [True, True]
