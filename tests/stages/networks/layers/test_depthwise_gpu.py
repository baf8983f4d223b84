"""The GPU's depthwise kernels give the values and gradients of double precision, for every kernel and stride in use."""

import pytest
import torch
from torch import nn

from tinyhd_pipe.stages.networks.layers.cpu import Steps
from tinyhd_pipe.stages.networks.layers.depthwise import DepthwiseConv3d

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3), (2, 3, 3)], ids=str)
@pytest.mark.parametrize("stride", [(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2)], ids=str)
def test_values_and_gradients_are_those_of_double_precision(kernel: Steps, stride: Steps) -> None:
    for channels in (5, 24, 96, 128):
        _compare(kernel, stride, channels, torch.float32, tolerance=2e-6)
        _compare(kernel, stride, channels, torch.bfloat16, tolerance=6e-3)


def _compare(kernel: Steps, stride: Steps, channels: int, dtype: torch.dtype, *, tolerance: float) -> None:
    padding = ((kernel[0] - 1) // 2, 1, 1)
    ours = DepthwiseConv3d(channels, kernel, stride, padding).cuda()
    right = nn.Conv3d(channels, channels, kernel, stride, padding, groups=channels, bias=False).double()
    right.load_state_dict(ours.state_dict())
    generator = torch.Generator().manual_seed(channels)
    x = torch.randn(2, channels, 5, 17, 22, generator=generator).to(dtype)
    here, there = x.double().requires_grad_(), x.cuda().to(memory_format=torch.channels_last_3d).requires_grad_()
    expected, found = right(here), ours(there)
    upstream = torch.randn(expected.shape, generator=generator).to(dtype)
    expected.backward(upstream.double())
    found.backward(upstream.cuda())
    assert found.dtype == dtype
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    for mine, exact in ((found, expected), (there.grad, here.grad), (ours.weight.grad, right.weight.grad)):
        assert mine is not None
        assert exact is not None
        assert (mine.detach().cpu().double() - exact).norm() <= tolerance * exact.norm()


def test_the_same_step_gives_the_same_bits() -> None:
    layer = DepthwiseConv3d(48, (3, 3, 3), (1, 1, 1), (1, 1, 1)).cuda()
    x = torch.randn(4, 48, 8, 48, 64, device="cuda").to(memory_format=torch.channels_last_3d)
    gradients = []
    for _ in range(3):
        layer.zero_grad()
        layer(x).square().sum().backward()
        assert layer.weight.grad is not None
        gradients.append(layer.weight.grad.clone())
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])
