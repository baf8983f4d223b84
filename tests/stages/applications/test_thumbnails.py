"""Thumbnails are of the moments at which all look at one thing, and show it."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyhd_pipe.stages.applications.thumbnails import BestFrames, Thumbnails, best_crop


def _spot(y: int, x: int, width: float = 2.0) -> NDArray[np.float32]:
    rows, columns = np.mgrid[:30, :40]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2)).astype(np.float32)


def test_the_best_crop_holds_more_than_any_other() -> None:
    saliency = _spot(6, 33) + 0.3 * _spot(25, 4)
    found = best_crop(saliency, 0.5)
    tried = [saliency[top : top + 15, left : left + 20].sum() for top in range(16) for left in range(21)]
    assert found.score == pytest.approx(max(tried) / saliency.sum(), rel=1e-5)
    assert found.top < 6 / 30 < found.top + 0.5
    assert found.left < 33 / 40 < found.left + 0.5


@pytest.mark.parametrize(("level", "score"), [(0.0, 0.0), (0.4, 0.25)])
def test_where_nothing_stands_out_the_crop_is_the_middle(level: float, score: float) -> None:
    found = best_crop(np.full((30, 40), level, np.float32), 0.5)
    assert (found.score, found.top, found.left) == pytest.approx((score, 0.25, 0.25), abs=0.03)
    assert best_crop(_spot(1, 1), 1.0).score == pytest.approx(1)


def _chosen(maps: list[NDArray[np.float32]], count: int, cuts: tuple[int, ...] = ()) -> list[int]:
    best = BestFrames(Thumbnails(count), 10)
    for place, saliency in enumerate(maps):
        best.add(saliency, starts_shot=place in (0, *cuts))
    return [candidate.place for candidate in best.chosen()]


def test_frames_at_which_all_look_at_one_thing_come_first_and_far_apart() -> None:
    maps = [_spot(15, 20, 14)] * 100
    maps[23], maps[24], maps[71] = _spot(8, 9, 2), _spot(8, 9, 1.9), _spot(8, 9, 4)
    assert _chosen(maps, 2) == [24, 71]
    places = _chosen(maps, 4)
    assert len(places) == 4
    assert np.diff(sorted(places)).min() >= 100 / 8


def test_of_one_moment_there_is_one_but_a_cut_may_lie_between_two() -> None:
    maps = [_spot(15, 20, 14)] * 30 + [_spot(8, 9, 2)] * 8
    assert _chosen(maps, 2)[1] < 30
    maps[26:30] = [_spot(8, 9, 2)] * 4
    assert len([place for place in _chosen(maps, 2) if place >= 26]) == 1
    assert len([place for place in _chosen(maps, 2, cuts=(30,)) if place >= 26]) == 2


def test_of_a_short_film_there_are_fewer() -> None:
    assert _chosen([_spot(8, 9)] * 3, 5) == [0]


def test_a_frame_that_shows_little_comes_behind_one_that_shows_more() -> None:
    for contrast, first in ((40.0, 3), (8.0, 33)):
        best = BestFrames(Thumbnails(2), 10)
        for place in range(60):
            here = _spot(8, 9, 2 if place == 3 else 3 if place == 33 else 14)
            best.add(here, starts_shot=place == 0, contrast=contrast if place < 20 else 50.0)
        assert best.chosen()[0].place == first
