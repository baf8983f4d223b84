"""The kernels that training on a CPU is fast with: torch's values, better gradients, the same bits on any threads."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers import depthwise as depthwise_module
from tinyhd_pipe.stages.networks.layers import norm as norm_module
from tinyhd_pipe.stages.networks.layers.cpu import Conv2d, Conv3d
from tinyhd_pipe.stages.networks.layers.kernels import _kernels, kernels
from tinyhd_pipe.stages.networks.layers.layout import as_channels_last
from tinyhd_pipe.stages.networks.layers.norm import RELU, RELU6, normalised, trains_in_kernels
from tinyhd_pipe.stages.networks.layers.operators import depthwise, norm
from tinyhd_pipe.stages.networks.mobilenet import MobileNetV2
from tinyhd_pipe.stages.networks.tinyhd import TinyHD

ROUNDING = 2e-6
"""Relative error of what is summed in blocks of float32."""


def test_this_machine_has_a_compiler_so_the_other_tests_mean_something() -> None:
    assert kernels().library is not None, kernels().told


@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(*(st.integers(1, most) for most in (3, 70, 4, 9, 9))).filter(lambda s: s[0] * s[3] * s[4] > 8),
    top=st.sampled_from([None, RELU6, RELU]),
    flat=st.booleans(),
    seed=st.integers(0, 99),
)
def test_norm_and_activation_agree_with_double_precision(
    shape: tuple[int, ...], top: float | None, flat: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = (shape[0], *shape[1:2], *shape[3:]) if flat else shape
    x = 3 * torch.randn(size, generator=generator) + 2
    upstream = torch.randn(size, generator=generator)
    ours = (nn.BatchNorm2d if flat else nn.BatchNorm3d)(shape[1])
    nn.init.uniform_(ours.weight, 0.5, 2, generator=generator)
    exact = (nn.BatchNorm2d if flat else nn.BatchNorm3d)(shape[1]).double()
    exact.load_state_dict(ours.state_dict())
    answer, truth = _answer(ours, x, upstream, top), _answer(exact, x.double(), upstream.double(), top)
    for mine, true in zip(answer, truth, strict=True):
        assert _error(mine, true) < 2e-5
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer.double(), exact.get_buffer(name).double(), rtol=1e-5, atol=1e-6)


def _answer(layer: nn.BatchNorm2d | nn.BatchNorm3d, x: Tensor, upstream: Tensor, top: float | None) -> list[Tensor]:
    x = as_channels_last(x).requires_grad_()
    y = normalised(layer, x, top=top)
    return [y, *torch.autograd.grad(y, (x, layer.weight, layer.bias), upstream)]


def _error(found: Tensor, true: Tensor) -> float:
    return float(
        (found.detach().double() - true.detach()).norm() / true.detach().norm().clamp(min=1e-3 * true.numel() ** 0.5)
    )


def test_on_a_large_clip_gradients_are_a_thousand_times_nearer_to_double_precision_than_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    x = as_channels_last(2 * torch.randn(1, 12, 4, 192, 256, generator=generator) + 1)
    upstream = as_channels_last(torch.randn(x.shape, generator=generator))
    layer = nn.BatchNorm3d(12)
    _, true, *_ = _answer(nn.BatchNorm3d(12).double(), x.double(), upstream.double(), RELU6)
    _, ours, *_ = _answer(layer, x, upstream, RELU6)
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (torchs,) = torch.autograd.grad(F.hardtanh(layer(leaf), 0, 6), leaf, upstream)
    assert _error(ours, true) < ROUNDING
    assert _error(ours, true) < _error(torchs, true) / 100


@settings(deadline=None, max_examples=40)
@given(
    kernel=st.sampled_from([(3, 3, 3), (1, 3, 3), (2, 3, 3), (1, 5, 5)]),
    stride=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2), (1, 1, 3)]),
    shape=st.tuples(*(st.integers(1, most) for most in (3, 40, 5, 11, 11))),
    seed=st.integers(0, 99),
)
def test_depthwise_values_and_gradients_agree_with_double_precision(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], shape: tuple[int, ...], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    padding = ((kernel[0] - 1) // 2, kernel[1] // 2, kernel[2] // 2)
    batch, channels, frames, *size = shape
    x = torch.randn(batch, channels, max(frames, kernel[0]), *size, generator=generator)
    weight = torch.randn(channels, 1, *kernel, generator=generator)

    def answer(x: Tensor, weight: Tensor, *, exactly: bool) -> list[Tensor]:
        x, weight = as_channels_last(x).requires_grad_(), weight.clone().requires_grad_()
        y = (
            F.conv3d(x, weight, None, stride, padding, 1, channels)
            if exactly
            else depthwise(x, weight, stride, padding)
        )
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed)).to(y)
        return [y, *torch.autograd.grad(y, (x, weight), upstream)]

    for mine, true in zip(
        answer(x, weight, exactly=False), answer(x.double(), weight.double(), exactly=True), strict=True
    ):
        assert _error(mine, true) < ROUNDING


@pytest.mark.parametrize("layer", [Conv2d(7, 5, 1), Conv3d(7, 5, 1, bias=False)], ids=["2D, with bias", "3D"])
def test_a_kernel_of_one_pixel_trains_as_a_product_with_the_same_gradients(layer: Conv2d | Conv3d) -> None:
    x = torch.randn(2, 7, *([3] if isinstance(layer, Conv3d) else []), 6, 8)
    upstream = torch.randn_like(layer(x))
    plain = x.clone().requires_grad_()
    last = as_channels_last(x.clone()).requires_grad_()
    parameters = tuple(layer.parameters())
    torchs = torch.autograd.grad(layer(plain), (plain, *parameters), upstream)
    ours = torch.autograd.grad(layer(last), (last, *parameters), upstream)
    for mine, theirs in zip(ours, torchs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_a_number_that_is_none_stays_none() -> None:
    x = as_channels_last(torch.randn(1, 4, 2, 4, 4))
    x[0, 1, 0, 0, 0] = float("nan")
    y, _ = norm(x, torch.ones(4), torch.zeros(4), epsilon=1e-5, top=6)
    assert y[0, 1].isnan().all()
    assert not y[0, 0].isnan().any()


def test_gradients_have_the_same_bits_on_any_number_of_threads() -> None:
    x = as_channels_last(torch.randn(1, 24, 4, 40, 48, generator=torch.Generator().manual_seed(1)))
    answers = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
            weight = torch.ones(24, 1, 3, 3, 3).requires_grad_()
            y, _ = norm(
                depthwise(leaf, weight, (1, 1, 1), (1, 1, 1)), torch.ones(24), torch.zeros(24), epsilon=1, top=6
            )
            answers.append(torch.autograd.grad(y.square().sum(dim=tuple(range(1, y.ndim))).sum(), (leaf, weight)))
    finally:
        torch.set_num_threads(before)
    for other in answers[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, answers[0], strict=True))


def test_a_step_of_a_student_has_the_gradients_of_double_precision_as_nearly_as_the_plain_networks() -> None:
    clip = torch.randn(1, 3, 16, 64, 64, generator=torch.Generator().manual_seed(2))
    upstream = torch.randn(1, 64, 64, generator=torch.Generator().manual_seed(4))

    def gradients(module: TinyHD, x: Tensor) -> Tensor:
        module(x)["final"].backward(upstream.to(x))
        return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])

    networks = [TinyHD(decoders=("d2",), reduction=4, seed=3).train() for _ in range(3)]
    true = gradients(networks[0].double(), clip.double())
    ours = gradients(networks[1], as_channels_last(clip))
    with pytest.MonkeyPatch.context() as patch:
        for layers in (norm_module, depthwise_module):
            patch.setattr(layers, "trains_in_kernels", lambda layer, x: False)
        plain = gradients(networks[2], clip)
    assert trains_in_kernels(networks[1], clip)
    assert not torch.equal(ours, plain)
    assert float(F.cosine_similarity(ours.double(), true, dim=0)) > 0.999
    assert _error(ours, true) < 1.5 * _error(plain, true)


def test_torch_can_trace_the_layers_and_their_gradients() -> None:
    arguments = (torch.randn(1, 8, 2, 4, 4), torch.ones(8), torch.zeros(8))
    tensors = tuple(as_channels_last(t).requires_grad_() if t.ndim > 1 else t.requires_grad_() for t in arguments)
    torch.library.opcheck(torch.ops.tinyhd.norm.default, (*tensors, 1e-5, 6.0))
    x, weight = tensors[0], torch.randn(8, 1, 3, 3, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.tinyhd.depthwise.default, (x, weight, [1, 2, 2], [1, 1, 1]))
    kernel = torch.randn(4, 8, 3, 3, 3, requires_grad=True)
    torch.library.opcheck(torch.ops.tinyhd.convolution.default, (x, kernel, None, [1, 1, 1], [1, 1, 1], [1, 1, 1], 1))


def test_a_channels_last_network_can_be_exported() -> None:
    encoder = MobileNetV2(reduction=4, one_deep_frame=False).eval()
    clip = as_channels_last(torch.randn(1, 3, 16, 32, 32))
    exported = torch.export.export(encoder, (clip,)).module()
    torch.testing.assert_close(exported(clip)[-1], encoder(clip)[-1], rtol=1e-4, atol=1e-4)


def test_without_a_compiler_or_with_one_that_fails_there_is_a_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _kernels.__wrapped__  # anew, whatever this process has
    broken = tmp_path / "cc"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no such header" >&2\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "compiled by" in found().told
    assert len(list(tmp_path.glob("tinyhd-pipe/*"))) == 1
    monkeypatch.setenv("CC", str(broken))
    assert found().told == f"{broken} does not compile our kernels: no such header"
    monkeypatch.setenv("CC", "none-such")
    assert found().told == "there is no C compiler (none-such) to compile our kernels"
    monkeypatch.setenv("TINYHD_PIPE_KERNELS", "off")
    assert found().library is None
    assert len(list(tmp_path.glob("tinyhd-pipe/*"))) == 1
