"""Published post-processing, step by step: whole numbers where scripts have them, and OpenCV's curves."""

from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.metrics import cc, resize_prediction
from tinyhd_pipe.stages.gaze.postprocessing import _blurred, _opencv_resized, postprocessed
from tinyhd_pipe.stages.settings.evaluate import Postprocessing

SIZE = (36, 64)
WAYS: tuple[Postprocessing, ...] = get_args(Postprocessing)


def _map(seed: int = 0) -> NDArray[np.float32]:
    y, x = np.mgrid[:24, :32]
    place = np.random.default_rng(seed).uniform(8, 16, 2)
    return (0.05 * np.exp(-((y - place[0]) ** 2 + (x - place[1]) ** 2) / 30) + 0.001).astype(np.float32)


@pytest.mark.parametrize("how", WAYS)
def test_every_way_keeps_the_place_of_the_peak_and_the_range(how: Postprocessing) -> None:
    for seed in range(3):
        done, plain = postprocessed(_map(seed), SIZE, how), postprocessed(_map(seed), SIZE, "none")
        assert (done.shape, done.dtype) == (SIZE, np.float32)
        assert 0 <= done.min() <= done.max() <= 1
        assert cc(done, plain) > (0.65 if how == "hd2s" else 0.98)
    flat = postprocessed(np.full((24, 32), 0.5, np.float32), SIZE, how)
    assert flat.min() == flat.max()


def test_none_is_the_resized_map_and_png_has_255_levels_of_its_maximum() -> None:
    assert np.array_equal(postprocessed(_map(), SIZE, "none"), resize_prediction(_map(), SIZE))
    levels = 255 * postprocessed(_map(), (24, 32), "png")
    assert levels == pytest.approx(np.rint(levels), abs=1e-4)
    assert levels.max() == pytest.approx(255)


def test_tinyhds_way_gives_whole_numbers_from_its_lowest_pixel() -> None:
    levels = 255 * postprocessed(_map(), SIZE, "tinyhd")
    assert levels == pytest.approx(np.rint(levels), abs=1e-4)
    assert levels.min() == 0
    assert len(np.unique(np.rint(levels))) > 100


def test_hd2ss_way_cuts_most_of_a_faint_map_to_nothing() -> None:
    faint = 255 * postprocessed(_map() / 6, (24, 32), "hd2s")
    assert faint.max() > 0.95 * 255
    assert cc(faint.astype(np.float32), _map()) < 0.9, "two grey levels are all that is left before the blur"


def test_the_cubic_is_opencvs_curve_and_not_antialiased() -> None:
    edge = np.zeros((4, 8), np.float32)
    edge[:, 4:] = 200
    wide = _opencv_resized(edge, (4, 16))
    # Twice as wide, places lie 1/4 and 3/4 between pixels: weights for a = -3/4 are -27, 225, 67 and -9 of 256.
    assert wide[0].tolist() == [0, 0, 0, 0, 0, 0, 0, 45, 155, 221, 207, 200, 200, 200, 200, 200]
    stripes = np.tile(np.array([0, 200, 0, 200], np.float32), (4, 4))
    assert _opencv_resized(stripes, (4, 4)).max() > 50, "shrinking takes four neighbours, whatever lies between"


def test_the_blur_is_the_binomial_of_five() -> None:
    spot = np.zeros((9, 9), np.float32)
    spot[4, 4] = 255
    expected = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) * 255 / 256
    assert _blurred(spot)[2:7, 2:7].tolist() == np.floor(expected + 0.5).tolist()
    assert _blurred(np.full((9, 9), 77, np.float32)).tolist() == [[77.0] * 9] * 9
