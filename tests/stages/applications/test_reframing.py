"""A crop follows what is looked at: inside the picture, no faster than it may, without a jump but at a cut."""

from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyhd_pipe.stages.applications.reframing import (
    CropPath,
    Rail,
    Reframing,
    crop_size,
    planned,
    rail_for,
    shape_of,
)
from tinyhd_pipe.store.errors import SettingError

UPRIGHT, FPS = Fraction(9, 16), 25.0
PICTURE = (360, 640)
CROP = crop_size(PICTURE, UPRIGHT)
LENGTH = CROP[1] / PICTURE[1]


def _spot(where: float, *, height: int = 24, width: int = 64) -> NDArray[np.float32]:
    """A map with one spot, at a share of the width."""
    across = np.exp(-0.5 * ((np.arange(width) + 0.5) / width - where) ** 2 / 0.03**2)
    return np.tile(across, (height, 1)).astype(np.float32)


def _path(maps: list[NDArray[np.float32]], cuts: tuple[int, ...] = (), **how: float) -> NDArray[np.float64]:
    """Where the crop of each frame begins."""
    reframing = Reframing(UPRIGHT, **how)
    path = CropPath(rail_for(PICTURE, CROP, FPS, reframing), FPS, reframing)
    places: list[float] = []
    for place, saliency in enumerate(maps):
        places += path.add(saliency, starts_shot=place == 0 or place in cuts)
        assert place + 1 - len(places) <= path.delay, "frames whose place is not settled"
    return np.array([*places, *path.end()])


@pytest.mark.parametrize("speed", [0.02, 0.25, 3.0])
@pytest.mark.parametrize("ahead", [0.0, 0.1, 1.5])
def test_between_cuts_no_crop_is_faster_than_allowed_and_none_leaves_the_picture(speed: float, ahead: float) -> None:
    rng = np.random.default_rng(0)
    maps = [_spot(rng.random()) for _ in range(60)]
    path = _path(maps, cuts=(20, 21), speed=speed, ahead=ahead, calm=0.0)
    assert len(path) == 60
    assert path.min() >= 0
    assert path.max() <= 1 - LENGTH + 1e-9
    moved = np.abs(np.diff(path))
    assert np.delete(moved, [19, 20]).max() <= speed / FPS + 1e-9
    assert moved.max() > 0


def test_a_crop_holds_what_is_looked_at_and_is_there_in_time() -> None:
    """The spot walks, rests, and walks back, no faster than the crop."""
    walk = np.concatenate([np.linspace(0.2, 0.8, 75), np.full(25, 0.8), np.linspace(0.8, 0.2, 75)])
    path = _path([_spot(where) for where in walk])
    assert np.abs(path + LENGTH / 2 - walk).max() < 0.45 * LENGTH
    late = np.full(175, path.mean())  # a crop that stays
    assert np.abs(late + LENGTH / 2 - walk).max() > LENGTH / 2


def test_at_a_cut_the_crop_jumps_and_does_not_pan() -> None:
    maps = [_spot(0.2)] * 50 + [_spot(0.8)] * 50
    cut, panned = _path(maps, cuts=(50,)), _path(maps)
    assert np.ptp(cut[:50]) == np.ptp(cut[50:]) == 0
    assert cut[50] - cut[49] > 0.5
    assert np.abs(np.diff(panned)).max() <= 0.25 / FPS + 1e-9
    assert panned[-1] + LENGTH > 0.84, "it gets there, where the cut is not known, too"


def test_a_crop_sets_out_for_what_is_further_away_than_it_sees_ahead() -> None:
    path = _path([_spot(0.1)] * 5 + [_spot(0.9)] * 150, speed=0.2, ahead=0.5)
    assert path[5] + LENGTH < 0.6, "two seconds away"
    assert path[-1] + LENGTH / 2 > 0.8


def test_what_is_looked_at_for_a_moment_is_not_worth_a_pan() -> None:
    maps = [_spot(0.3)] * 40 + [_spot(0.7)] * 5 + [_spot(0.3)] * 40
    assert np.ptp(_path(maps)) == 0
    assert np.ptp(_path(maps, calm=0.0, speed=3.0)) > 0.1


@pytest.mark.parametrize("height", [0, 1])
def test_where_nobody_looks_the_crop_is_in_the_middle(height: int) -> None:
    path = _path([np.full((24, 64), height, np.float32)] * 10)
    assert path + LENGTH / 2 == pytest.approx(0.5, abs=0.01)


def test_a_planned_path_is_the_best_of_all_paths() -> None:
    rail = Rail(False, 0.5, np.linspace(0, 0.5, 4), reach=1, seen=6, beyond=0, price=0.2)
    gains = list(np.random.default_rng(1).random((6, 4)))

    def worth(path: tuple[int, ...]) -> float:
        moves = np.abs(np.diff([2, *path]))
        return -np.inf if moves.max() > 1 else sum(gains[f][p] for f, p in enumerate(path)) - 0.2 * moves.sum()

    best = max(np.ndindex(*[4] * 6), key=worth)
    assert planned(gains, 2, rail, ends=True) == list(best)


@pytest.mark.parametrize(
    ("picture", "shape", "crop"),
    [
        ((360, 640), "9:16", (360, 202)),
        ((640, 360), "16:9", (202, 360)),
        ((360, 640), "1:1", (360, 360)),
        ((360, 640), "16:9", (360, 640)),
        ((240, 341), "4:3", (240, 320)),
        ((3, 5), "9:16", (2, 2)),
    ],
)
def test_a_crop_is_the_largest_of_its_shape(picture: tuple[int, int], shape: str, crop: tuple[int, int]) -> None:
    assert crop_size(picture, shape_of(shape)) == crop
    rail = rail_for(picture, crop, FPS, Reframing(shape_of(shape)))
    assert rail.is_upright == (crop[0] < picture[0] and crop[0] / picture[0] < crop[1] / picture[1])
    assert len(rail.places) == 1 or rail.places[-1] == pytest.approx(1 - rail.length)


@pytest.mark.parametrize("text", ["9/16", "9x16", "0:16", "9:0", "9", "1:11", "-9:16", "16:9:1"])
def test_a_shape_that_is_none_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(SettingError, match=f"--reframe {text}: expected"):
        shape_of(text)
