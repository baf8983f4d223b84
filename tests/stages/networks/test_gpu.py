"""On a GPU networks answer as on the processor, as near to double precision as rounding lets either of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.lively_networks import lively as lively_tinyhd
from tests.stages.networks.test_hd2s import lively as lively_hd2s
from tinyhd_pipe.stages.dump.fidelity import kl_of
from tinyhd_pipe.stages.networks.device import why_not
from tinyhd_pipe.stages.networks.network import Kind, Network, ready
from tinyhd_pipe.stages.networks.precision import Precision
from tinyhd_pipe.stages.networks.teacher_maps import teacher_maps, window_batches

pytestmark = pytest.mark.cuda
SIZE = (64, 96)
NETWORKS = ("hd2s", "S", "M")
GPU = "cuda"


def _network(name: str, device: str, precision: Precision = "float32") -> Network:
    kind: Kind = "hd2s" if name == "hd2s" else "tinyhd"
    if name == "hd2s":
        module = lively_hd2s(0.25, 1)
        return ready(
            kind, type(module).from_state_dict(module.state_dict()), size=SIZE, device=device, precision=precision
        )
    made = lively_tinyhd(1, reduction=2) if name == "S" else lively_tinyhd(1, reduction=4, outputs=16)
    return ready(kind, made, size=SIZE, device=device, precision=precision)


def _pictures(count: int) -> NDArray[np.uint8]:
    """Drifting blobs, (frame, y, x, 3)."""
    at = np.arange(count)[:, None, None, None] / 7 + np.arange(3)
    y, x = np.mgrid[0:80, 0:120][:, None, :, :, None] / 25
    return np.uint8(127 + 120 * np.sin(x + at) * np.cos(y - at))


def _maps(network: Network, count: int = 40) -> dict[str, Tensor]:
    parts = [logits for _, logits in teacher_maps(network, iter(_pictures(count)))]
    return {level: torch.cat([part[level] for part in parts]).cpu() for level in parts[0]}


def _exact(name: str, count: int = 40) -> dict[str, Tensor]:
    """The same in double precision, a window at a time."""
    network = replace(_network(name, "cpu"), batch=1)
    exact = replace(network, module=network.module.double())
    batches = window_batches(network, iter(_pictures(count)))
    parts = [(exact.frame_logits(batch.clip.double(), batch.answered), list(batch.wanted)) for batch in batches]
    return {level: torch.cat([part[level][wanted] for part, wanted in parts]) for level in parts[0][0]}


def _error(maps: Tensor, exact: Tensor) -> float:
    return float((maps.sigmoid() - exact.sigmoid()).abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_maps_of_a_video_are_as_right_as_the_processors(name: str) -> None:
    exact, here, there = _exact(name), _maps(_network(name, "cpu")), _maps(_network(name, GPU))
    for level, right in exact.items():
        assert _error(there[level], right) <= 1e-6 + 5 * _error(here[level], right), level


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_keeps_maps_as_well_as_it_does_on_the_processor(name: str) -> None:
    exact, here, there = (
        _exact(name, 17),
        _maps(_network(name, "cpu", "bfloat16"), 17),
        _maps(_network(name, GPU, "bfloat16"), 17),
    )
    for level, right in exact.items():
        size = (right.shape[-2], right.shape[-1])
        assert kl_of(right, there[level], size) <= 1e-5 + 2 * kl_of(right, here[level], size), level


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_video_gives_the_same_bits(name: str) -> None:
    network = _network(name, GPU, "bfloat16")
    one, other = _maps(network), _maps(network)
    assert all(torch.equal(one[level], other[level]) for level in one)


def test_a_gpu_is_as_right_as_the_check_for_other_devices_asks() -> None:
    assert why_not(GPU) is None
