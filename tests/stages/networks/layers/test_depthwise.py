"""The depthwise convolution gives torch's values and torch's gradients, for every kernel and stride in use."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.depthwise import DepthwiseConv3d


def _gradients(layer: nn.Conv3d, x: Tensor, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    layer.zero_grad()
    answer = layer(x)
    answer.backward(upstream)
    assert x.grad is not None
    assert layer.weight.grad is not None
    return answer.detach(), x.grad, layer.weight.grad.clone()


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.sampled_from([(3, 3, 3), (1, 3, 3), (2, 3, 3)]),
    stride=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2)]),
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(2, 6), st.integers(2, 6)),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_are_those_of_torch(
    kernel: tuple[int, int, int],
    stride: tuple[int, int, int],
    shape: tuple[int, int, int, int, int],
    channels_last: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    padding = ((kernel[0] - 1) // 2, 1, 1)
    shape = (*shape[:2], max(shape[2], kernel[0]), *shape[3:])
    ours = DepthwiseConv3d(shape[1], kernel, stride, padding).double()
    torchs = nn.Conv3d(shape[1], shape[1], kernel, stride, padding, groups=shape[1], bias=False).double()
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last_3d)
    upstream = torch.randn(torchs(x).shape, generator=generator, dtype=torch.float64)
    for mine, theirs in zip(_gradients(ours, x, upstream), _gradients(torchs, x, upstream), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_a_frozen_layer_passes_gradients_on(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = DepthwiseConv3d(2, (3, 3, 3), (1, 1, 1), (1, 1, 1))
    layer.requires_grad_(False)
    x = torch.randn(1, 2, 4, 4, 4, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
