"""Folded norms: the same maps but for rounding, and the network that was folded stays as it was."""

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.lively_networks import lively
from tinyhd_pipe.stages.networks.layers.cpu import Conv3d, clamped
from tinyhd_pipe.stages.networks.layers.folding import folded
from tinyhd_pipe.stages.networks.layers.layout import channels_last
from tinyhd_pipe.stages.networks.tinyhd import TinyHD


@pytest.fixture(scope="module", params=[1, 16])
def network(request: pytest.FixtureRequest) -> TinyHD:
    outputs: Literal[1, 16] = request.param
    return lively(5, reduction=4, outputs=outputs)


def _norms(module: nn.Module) -> list[nn.Module]:
    return [each for each in module.modules() if isinstance(each, nn.BatchNorm2d | nn.BatchNorm3d)]


@pytest.fixture
def clip() -> Tensor:
    made = torch.randn(1, 3, 16, 32, 64, generator=torch.Generator().manual_seed(3))
    return made.contiguous(memory_format=torch.channels_last_3d)


@torch.inference_mode()
def test_a_folded_network_gives_the_same_maps_and_has_no_norm_left(network: TinyHD, clip: Tensor) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fast = folded(network)
    assert _norms(network)
    assert not _norms(fast)
    plain, quick = network.double()(clip.double()), folded(network.double())(clip.double())
    network.float()
    for level in plain:
        assert plain[level].std() > 0.01
        assert (plain[level] - quick[level]).abs().max() < 1e-9 * plain[level].abs().max(), level
        assert (fast(clip)[level] - plain[level]).abs().max() < 2e-3 * plain[level].std(), level
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@torch.inference_mode()
def test_a_mean_that_were_forgotten_would_be_seen(network: TinyHD, clip: Tensor) -> None:
    plain = network(clip)["final"]
    wrong = folded(network)
    biases = (layer.bias for layer in wrong.modules() if isinstance(layer, nn.Conv3d) and layer.bias is not None)
    next(biases).data.add_(0.05)
    assert (wrong(clip)["final"] - plain).abs().max() > 2e-3 * plain.std()


@given(
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    kernel=st.sampled_from([(1, 1, 1), (3, 3, 3), (2, 3, 3)]),
    stride=st.sampled_from([(1, 1, 1), (2, 2, 2), (1, 2, 2)]),
    has_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_convolution_takes_its_norm_in(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: tuple[int, int, int], has_bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    row = nn.Sequential(Conv3d(inputs, outputs, kernel, stride, bias=has_bias), nn.BatchNorm3d(outputs))
    norm = row[1]
    for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
        nn.init.uniform_(values, 0.5, 1.5)
    row = channels_last(row.eval())
    x = torch.randn(2, inputs, 4, 6, 7).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        expected = row(x)
        assert torch.allclose(folded(row)(x), expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(clamped(folded(row)[0], x, 6.0), folded(row)[0](x).clamp(0, 6))


def test_a_norm_that_follows_no_convolution_stays() -> None:
    row = nn.Sequential(nn.ReLU(), nn.BatchNorm3d(2))
    assert len(_norms(folded(row))) == 1


def test_a_norm_without_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="without running statistics"):
        folded(nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2, track_running_stats=False)))
