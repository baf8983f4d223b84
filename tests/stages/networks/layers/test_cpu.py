"""The fast layers give torch's values for every kernel and stride in use, and leave channels last in memory."""

import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.layers.cpu import Conv2d, Conv3d, MaxPool3d
from tinyhd_pipe.stages.networks.layers.layout import channels_last, is_channels_last
from tinyhd_pipe.stages.networks.overlap import one_thread
from tinyhd_pipe.stages.networks.tinyhd import TinyHD

LAST = torch.channels_last_3d
SHAPES = st.tuples(st.integers(1, 2), st.integers(2, 5), st.integers(3, 8), st.integers(2, 7), st.integers(2, 7))
POOLS = [  # kernel, stride, padding
    ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    ((3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0)),
]


def random(shape: tuple[int, ...], seed: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=LAST)


@settings(deadline=None, max_examples=60)
@given(
    shape=SHAPES,
    outputs=st.integers(1, 6),
    kernel=st.sampled_from([(1, 1, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3)]),
    stride=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 2)]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_convolution_gives_the_values_of_torch(
    shape: tuple[int, ...], outputs: int, kernel: tuple[int, ...], stride: tuple[int, ...], bias: bool, seed: int
) -> None:
    padding = tuple(width // 2 for width in kernel)
    ours = Conv3d(shape[1], outputs, kernel, stride, padding, bias=bias)  # type: ignore[arg-type]
    x = random(shape, seed)
    exact = F.conv3d(
        x.double(),
        ours.weight.double(),
        None if ours.bias is None else ours.bias.double(),
        stride,  # type: ignore[arg-type]
        padding,  # type: ignore[arg-type]
    )
    with torch.inference_mode(), one_thread():
        torch.testing.assert_close(ours(x).double(), exact, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x.contiguous()).double(), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kernel", "groups"), [(1, 1), (3, 1), (3, 6)])
def test_pictures_are_convolved_as_torch_does(kernel: int, groups: int) -> None:
    ours = Conv2d(6, 6, kernel, padding=kernel // 2, groups=groups)
    x = random((1, 6, 1, 7, 9), seed=5)[:, :, 0].contiguous(memory_format=torch.channels_last)
    exact = F.conv2d(x.double(), ours.weight.double(), ours.bias.double(), padding=kernel // 2, groups=groups)  # type: ignore[union-attr]
    with torch.inference_mode(), one_thread():
        torch.testing.assert_close(ours(x).double(), exact, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_torch() -> None:
    ours, torchs = Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0)), nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0))
    torchs.load_state_dict(ours.state_dict())
    x = random((2, 4, 5, 6, 7), seed=1)
    for layer in (ours, torchs):
        layer(x).square().sum().backward()
    for mine, theirs in zip(ours.parameters(), torchs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)


def test_part_of_a_kernel_without_padding_sees_the_frames_inside() -> None:
    conv, x = Conv3d(3, 4, (7, 1, 1), (2, 1, 1), (3, 0, 0), bias=False), random((1, 3, 16, 4, 6), seed=2)
    with torch.inference_mode():
        whole = conv(x)
        inside = [conv.inside(x[:, :, :4], slice(3, 7)), conv.inside(x[:, :, 1:16], slice(None))]
    torch.testing.assert_close(torch.cat(inside, dim=2), whole[:, :, [0, 2, 3, 4, 5, 6]], rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    pool=st.sampled_from(POOLS),
    shape=SHAPES,
    kind=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0),
)
def test_pooling_gives_the_very_values_of_torch(
    pool: tuple[tuple[int, int, int], ...], shape: tuple[int, ...], kind: torch.dtype, seed: int
) -> None:
    x = random(shape, seed % 1000).to(kind)
    with torch.inference_mode():
        ours = MaxPool3d(*pool)(x)
    assert torch.equal(ours, F.max_pool3d(x, *pool))


def test_pooling_passes_gradients_on() -> None:
    x = random((1, 3, 4, 6, 8), seed=3).requires_grad_()
    MaxPool3d(*POOLS[1])(x).sum().backward()
    assert x.grad is not None
    assert x.grad.sum() == 3 * 2 * 3 * 4


def _left_contiguous(network: nn.Module) -> Iterator[str]:
    """Names of the layers whose results are not channels-last, for a small clip in one thread."""
    found: list[str] = []

    def look(name: str, result: Tensor) -> None:
        if not result.is_contiguous(memory_format=torch.channels_last if result.ndim == 4 else LAST):
            found.append(name)

    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d | MaxPool3d):
            layer.register_forward_hook(lambda layer, inputs, result, name=name: look(name, result))
    with torch.inference_mode(), one_thread():
        network(random((1, 3, 16, 64, 96), seed=4))
    return iter(found)


@pytest.mark.parametrize(
    "make", [lambda: HD2S(width=0.25), lambda: TinyHD(reduction=4), lambda: TinyHD(reduction=4, outputs=16)]
)
def test_no_layer_of_a_network_loses_the_layout(make, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    assert not list(_left_contiguous(channels_last(make().eval())))
    for ours, torchs in ((Conv2d, nn.Conv2d), (Conv3d, nn.Conv3d)):
        monkeypatch.setattr(ours, "forward", torchs.forward)
    assert len(list(_left_contiguous(channels_last(make().eval())))) > 10, "torch alone does"


def test_a_tensor_that_is_both_counts_as_contiguous() -> None:
    for shape, last in itertools.product([(2, 3, 4, 5), (2, 3, 4, 5, 6)], [False, True]):
        layout = torch.channels_last if len(shape) == 4 else LAST
        x = torch.zeros(shape).contiguous(memory_format=layout if last else torch.contiguous_format)
        assert is_channels_last(x) == last
    assert not is_channels_last(torch.zeros(1, 1, 4, 5, 6).contiguous(memory_format=LAST))
