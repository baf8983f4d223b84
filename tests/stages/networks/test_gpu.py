"""On a GPU networks answer as they do on the processor: in float32 within its rounding, in bfloat16 nearly so."""

import numpy as np
import pytest
import torch

from tests.lively_networks import lively as lively_tinyhd
from tests.stages.networks.test_hd2s import lively as lively_hd2s
from tinyhd_pipe.stages.dump.fidelity import kl_of
from tinyhd_pipe.stages.networks.device import why_not
from tinyhd_pipe.stages.networks.network import Kind, Network, ready
from tinyhd_pipe.stages.networks.precision import Precision
from tinyhd_pipe.stages.networks.teacher_maps import teacher_maps

pytestmark = pytest.mark.cuda
SIZE = (64, 96)
NETWORKS = {
    "hd2s": lambda: lively_hd2s(0.25, 1),
    "S": lambda: lively_tinyhd(1, reduction=2),
    "M": lambda: lively_tinyhd(1, reduction=4, outputs=16),
}


def _network(name: str, device: str, precision: Precision = "float32") -> Network:
    kind: Kind = "hd2s" if name == "hd2s" else "tinyhd"
    return ready(kind, NETWORKS[name](), size=SIZE, device=device, precision=precision)


def _pictures(count: int) -> np.ndarray:
    """Drifting blobs, uint8 (frame, y, x, 3)."""
    at = np.arange(count)[:, None, None, None] / 7 + np.arange(3)
    y, x = np.mgrid[0:80, 0:120][:, None, :, :, None] / 25
    return np.uint8(127 + 120 * np.sin(x + at) * np.cos(y - at))


def _maps(network: Network, count: int = 40) -> dict[str, torch.Tensor]:
    parts = [logits for _, logits in teacher_maps(network, iter(_pictures(count)))]
    return {level: torch.cat([part[level] for part in parts]).cpu() for level in parts[0]}


@pytest.mark.parametrize("name", NETWORKS)
def test_float32_maps_of_a_video_are_those_of_the_processor(name: str) -> None:
    right, there = _maps(_network(name, "cpu")), _maps(_network(name, "cuda"))
    for level, logits in right.items():
        assert (logits.sigmoid() - there[level].sigmoid()).abs().max() < 1e-5, level


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_keeps_the_maps(name: str) -> None:
    right, there = _maps(_network(name, "cpu")), _maps(_network(name, "cuda", "bfloat16"))
    for level, logits in right.items():
        assert kl_of(logits, there[level], (logits.shape[-2], logits.shape[-1])) < 2e-3, level


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_video_gives_the_same_bits(name: str) -> None:
    network = _network(name, "cuda", "bfloat16")
    one, other = _maps(network), _maps(network)
    assert all(torch.equal(one[level], other[level]) for level in one)


def test_a_gpu_is_as_right_as_the_check_for_other_devices_asks() -> None:
    assert why_not("cuda") is None
