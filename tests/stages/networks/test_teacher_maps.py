"""A few frames asked for at random have the maps that the stream of the whole video has, whatever the teacher."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.lively_networks import lively
from tests.stages.test_teacher_dump import _clip, _teacher
from tinyhd_pipe.stages.networks.network import Network, ready
from tinyhd_pipe.stages.networks.teacher_maps import logits_at, teacher_maps

SIZE = (32, 64)
Pictures = NDArray[np.uint8]


@pytest.fixture(scope="module", params=["hd2s", "tinyhd, 1 output", "tinyhd, 16 outputs"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Network:
    if request.param == "hd2s":
        return _teacher(tmp_path_factory.mktemp("weights"))
    outputs = 16 if "16" in request.param else 1
    return ready("tinyhd", lively(0, decoders=("d1", "d2"), reduction=4, outputs=outputs), size=SIZE)


@pytest.fixture(scope="module")
def streamed(teacher: Network) -> dict[int, dict[str, Tensor]]:
    """Logits of whole videos, by their length."""
    return {frames: _streamed(teacher, _pictures(frames)) for frames in (33, 7, 1)}


def _pictures(frames: int) -> Pictures:
    return np.stack(list(_clip(frames, seed=frames)))


def _streamed(teacher: Network, pictures: Pictures) -> dict[str, Tensor]:
    pieces = list(teacher_maps(teacher, iter(pictures)))
    return {level: torch.cat([logits[level] for _, logits in pieces]) for level in pieces[0][1]}


def _apart(teacher: Network, streamed: dict[str, Tensor], wanted: list[int], *, late: int = 0) -> float:
    """Largest difference from the stream, of logits."""
    pictures = _pictures(len(streamed["final"]))

    def read(numbers: NDArray[np.int64]) -> Pictures:
        assert (np.diff(numbers) > 0).all()
        return pictures[np.maximum(numbers - late, 0)]

    alone = logits_at(teacher, np.array(wanted), frames=len(pictures), read=read)
    assert alone.keys() == streamed.keys()
    return max(float((alone[level] - streamed[level][wanted]).abs().max()) for level in alone)


@pytest.mark.parametrize(
    ("frames", "wanted"),
    [
        (33, [20, 21, 22, 23, 24, 25, 26, 27, 28, 29]),  # neighbours: a run
        (33, [30, 3, 14, 15, 16, 3, 0]),  # the head, both sides of its end, any order, a repeat
        (33, [32, 31, 0]),  # what is left after two windows of 16 outputs
        (7, [0, 2, 6]),  # shorter than a window
        (1, [0]),
    ],
)
def test_maps_at_random_are_those_of_the_stream(
    teacher: Network, streamed: dict[int, dict[str, Tensor]], frames: int, wanted: list[int]
) -> None:
    assert _apart(teacher, streamed[frames], wanted) < 1e-4


def test_a_frame_of_delay_would_be_noticed(teacher: Network, streamed: dict[int, dict[str, Tensor]]) -> None:
    assert _apart(teacher, streamed[33], [20, 21], late=1) > 0.1
