"""Fused layers: the maps of the layers that they stand for, but for rounding, in any thread."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.lively_networks import lively, noise
from tests.small_dumps import write_teacher
from tinyhd_pipe.stages.networks import fused as fusing
from tinyhd_pipe.stages.networks.decoders import interpolate, pixel_shuffle
from tinyhd_pipe.stages.networks.fused import FusedResidual, FusedStem, fused
from tinyhd_pipe.stages.networks.layers.folding import folded
from tinyhd_pipe.stages.networks.layers.grids import interpolated, shuffled
from tinyhd_pipe.stages.networks.layers.kernels import Kernels
from tinyhd_pipe.stages.networks.mobilenet import Activated, InvertedResidual, spatiotemporal
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.prediction import fastest
from tinyhd_pipe.stages.networks.tinyhd import TinyHD

ROUNDING = 1e-5
"""Of float32, as a share of the largest value."""


Layer = TypeVar("Layer", bound=nn.Module)


def _layer(seed: int, **settings: Any) -> InvertedResidual:
    return _learned(seed, InvertedResidual(**settings))


def _learned(seed: int, layer: Layer) -> Layer:
    """The layer with norms that have learned, folded; its ReLU6 cuts off on both sides."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in layer.eval().modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight)
            elif isinstance(module, nn.BatchNorm3d):
                for values in (module.weight, module.running_var):
                    nn.init.uniform_(values, 0.5, 2)
                for values in (module.bias, module.running_mean):
                    nn.init.normal_(values)
    return folded(layer)


def _off(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@settings(max_examples=60, deadline=None)  # the first call may compile the kernels
@given(
    inputs=st.integers(1, 9),
    outputs=st.integers(1, 9),
    expansion=st.sampled_from([1, 2, 6]),
    frames=st.sampled_from([1, 2, 3]),
    stride=st.sampled_from([(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 2, 2)]),
    size=st.tuples(st.sampled_from([2, 4, 6]), st.sampled_from([2, 6]), st.sampled_from([4, 16, 34, 150, 256])),
    residual=st.booleans(),
)
@torch.inference_mode()
def test_any_inverted_residual_is_one_kernel(
    inputs: int,
    outputs: int,
    expansion: int,
    frames: int,
    stride: tuple[int, int, int],
    size: tuple[int, int, int],
    residual: bool,
) -> None:
    layer = _layer(
        1, inputs=inputs, outputs=outputs, expansion=expansion, frames=frames, stride=stride, residual=residual
    )
    x = noise(2, 2, inputs, *size)
    layer.residual = layer.residual and frames != 2  # which leaves one frame less
    assert _off(FusedResidual(layer)(x), layer.double()(x.double())) < ROUNDING


@settings(deadline=None)
@given(
    outputs=st.sampled_from([1, 8, 13, 32]),
    size=st.tuples(st.sampled_from([2, 6]), st.sampled_from([2, 8]), st.sampled_from([32, 64, 96, 256])),
    is_as_scaled=st.booleans(),
)
@torch.inference_mode()
def test_the_stem_is_one_kernel(outputs: int, size: tuple[int, int, int], is_as_scaled: bool) -> None:
    layer = _learned(1, Activated(spatiotemporal(3, outputs, frames=3, stride=(2, 2, 2))))
    x = noise(2, 2, 3, *size)
    seen = x.contiguous(memory_format=torch.channels_last_3d) if is_as_scaled else x
    found = FusedStem(layer)(seen)
    assert _off(found, layer.double()(x.double())) < ROUNDING
    for axis in (2, 3, 4):
        assert _off(found, layer(x.double().flip(axis))) > 0.1, "a clip the other way round is another one"


@settings(max_examples=30, deadline=None)
@given(
    inputs=st.integers(1, 5),
    blocks=st.integers(1, 3),
    time=st.sampled_from([1, 2]),
    space=st.sampled_from([1, 2]),
    lifts=st.sampled_from([0, 1, 2]),
    is_added=st.booleans(),
    stride=st.sampled_from([1, 2]),
    size=st.tuples(st.sampled_from([2, 3]), st.integers(1, 5), st.sampled_from([1, 7, 16, 33, 128])),
)
@torch.inference_mode()
def test_what_comes_before_and_after_a_kernel_gives_the_same_within_it(
    inputs: int,
    blocks: int,
    time: int,
    space: int,
    lifts: int,
    is_added: bool,
    stride: int,
    size: tuple[int, int, int],
) -> None:
    layer = _layer(1, inputs=inputs, outputs=4 * blocks, expansion=2, frames=3, stride=(stride, 1, 1), residual=False)
    kernel, x = FusedResidual(layer), noise(2, 2, inputs, *size)
    apart = kernel(interpolated(x, time=time, space=space))
    expected = shuffled(apart, time=lifts) if lifts else apart
    onto = expected.flip(-1).contiguous() if is_added else None
    found = kernel(x, finer=(time, space), lifts=lifts, onto=onto)
    assert _off(found, expected if onto is None else expected + onto) < ROUNDING


@torch.inference_mode()
def test_a_tap_on_the_wrong_frame_would_be_seen() -> None:
    layer = _layer(1, inputs=3, outputs=2, expansion=2, frames=3, stride=(1, 1, 1), residual=False)
    x = noise(2, 1, 3, 4, 6, 16)
    kernel = FusedResidual(layer)
    for parameter in layer.parameters():
        if parameter.ndim == 5 and parameter.shape[2] == 3:
            parameter.data = parameter.data.flip(2)
    assert _off(kernel(x), layer(x)) > 0.1


@torch.inference_mode()
def test_what_is_not_a_number_is_none_in_the_results_and_nowhere_else() -> None:
    layer = _layer(1, inputs=3, outputs=2, expansion=2, frames=3, stride=(1, 1, 1), residual=False)
    stem = _learned(1, Activated(spatiotemporal(3, 8, frames=3, stride=(2, 2, 2))))
    x = noise(2, 1, 3, 6, 8, 64)
    x[0, 1, 2, 3, 40] = torch.nan
    for kernel, layers in ((FusedResidual(layer), layer), (FusedStem(stem), stem)):
        found, expected = kernel(x).isnan(), layers(x).isnan()
        assert expected.any()
        assert torch.equal(found, expected)


@settings(deadline=None)
@given(
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 40)),
    time=st.sampled_from([1, 2]),
    space=st.sampled_from([1, 2]),
)
@torch.inference_mode()
def test_finer_grids_are_those_of_torch(channels: int, size: tuple[int, int, int], time: int, space: int) -> None:
    x = noise(3, 2, 4 * channels, *size)
    assert torch.equal(shuffled(x, time=1), pixel_shuffle(x))
    doubled = interpolate(pixel_shuffle(x.double()), time=time, space=1)
    assert _off(shuffled(x, time=time), doubled) < ROUNDING
    expected = interpolate(x.double(), time=time, space=space)
    assert _off(interpolated(x, time=time, space=space), expected) < ROUNDING


@pytest.fixture(scope="module", params=[(1, 4), (16, 4), (1, 1), (16, 2)], ids=str)
def network(request: pytest.FixtureRequest) -> TinyHD:
    """Of one output and 16, at every reduction: each has its own way of doubling features."""
    outputs, reduction = request.param
    return lively(5, decoders=("d2", "d1", "d3"), reduction=reduction, outputs=outputs).eval()


@torch.inference_mode()
def test_a_fused_network_gives_the_same_maps_in_any_thread(network: TinyHD) -> None:
    fast = fused(network)
    assert not [module for module in fast.modules() if isinstance(module, InvertedResidual)]
    assert [module for module in network.modules() if isinstance(module, InvertedResidual)], "a copy"
    clips = [noise(seed, 1, 3, 16, 32, 64).contiguous(memory_format=torch.channels_last_3d) for seed in range(4)]
    alone, layers = [fast(clip) for clip in clips], network(clips[0])
    expected = network.double()(clips[0].double())
    network.float()
    for level, maps in expected.items():
        assert maps.std() > 0.01
        off, rounding = ((one[level] - maps).abs().mean() for one in (alone[0], layers))
        assert off < 3 * rounding + 1e-6 * maps.std(), level  # which such networks blow up

    def answer(clip: Tensor) -> dict[str, Tensor]:
        with torch.inference_mode():
            return fast(clip)

    with ThreadPoolExecutor(3) as pool:
        for one, other in zip(pool.map(answer, clips * 3), alone * 3, strict=True):
            assert all(torch.equal(maps, other[level]) for level, maps in one.items())
    together = fast(torch.cat(clips[:2]))
    assert all(torch.equal(maps[:1], alone[0][level]) for level, maps in together.items())


def test_without_a_compiler_layers_are_as_they_were(network: TinyHD, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "kernels", lambda: Kernels(None, "there is no C compiler"))
    kept = fused(network)
    assert [type(module) for module in kept.modules()] == [type(module) for module in folded(network).modules()]


def test_only_float32_in_our_layout_is_fused(tmp_path: Any) -> None:
    path = write_teacher(tmp_path / "m.safetensors")

    def is_fused(**changed: Any) -> bool:
        return any(
            isinstance(module, FusedResidual) for module in fastest(load_student(path, **changed)).module.modules()
        )

    assert is_fused()
    assert not is_fused(precision="bfloat16")
