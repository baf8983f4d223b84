"""Frames that our kernel scales are those that torch scales, whatever their size."""

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tinyhd_pipe.stages.networks.network import Scaling, scaling_for

ROUNDING = 1e-5
"""Of inputs, which lie within -2.2 and 2.7."""


def _scaled(scaling: Scaling, frame: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    place = torch.full((*scaling.size, 3), torch.nan)
    scaling.prepare_into(place, frame)
    return place


@settings(deadline=None)  # the first call may compile the kernels
@given(
    frame=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.sampled_from([(32, 64), (64, 32), (96, 128)]),
    is_mirrored=st.booleans(),
)
def test_a_frame_of_any_size_is_scaled_as_torch_does_it(
    frame: tuple[int, int], size: tuple[int, int], is_mirrored: bool
) -> None:
    scaling = scaling_for("tinyhd", size)
    pixels = np.random.default_rng(0).integers(0, 256, (*frame, 3), dtype=np.uint8)
    pixels = pixels[:, ::-1] if is_mirrored and frame[1] > 1 else pixels
    found = _scaled(replace(scaling, fast=True), pixels)
    expected = scaling.prepare(pixels[None])[:, 0].permute(1, 2, 0)
    assert float((found - expected).abs().max()) < ROUNDING
    assert torch.equal(_scaled(scaling, pixels), expected)


def test_a_clip_is_scaled_as_its_frames_are() -> None:
    scaling = replace(scaling_for("tinyhd", (32, 64)), fast=True)
    frames = np.random.default_rng(1).integers(0, 256, (3, 50, 70, 3), dtype=np.uint8)
    clip = scaling.prepare(frames)
    assert clip.shape == (3, 3, 32, 64)
    assert all(torch.equal(clip[:, t].permute(1, 2, 0), _scaled(scaling, frames[t])) for t in range(3))


def test_a_pixel_to_the_side_would_be_seen() -> None:
    scaling = scaling_for("tinyhd", (32, 64))
    pixels = np.random.default_rng(0).integers(0, 256, (65, 130, 3), dtype=np.uint8)
    found = _scaled(replace(scaling, fast=True), pixels[:-1, :-1])
    assert float((found - scaling.prepare(pixels[None, 1:, 1:])[:, 0].permute(1, 2, 0)).abs().max()) > 0.1
