"""What neighbouring windows share is computed once, and every window gets what it would have got alone."""

from collections import Counter
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.stages.networks.test_hd2s import SMALLEST, blobs, lively
from tinyhd_pipe.stages.networks import window_runs
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import windows_of_run
from tinyhd_pipe.stages.networks.window_runs import framewise_of_run
from tinyhd_pipe.stages.video.clips import WINDOW

THREE_WINDOWS = 3 * 12 * 8 * 8 * 16 * 8
"""Bytes of their framewise features: 12 channels of 8 frames of 8x16 in float64."""


def frames_of(windows: int, seed: int) -> Tensor:
    """A run's frames, (1, 3, 15 + windows, 32, 64), float64: rounding cannot hide a slot that is one frame off."""
    clips = blobs(seed, 2, 32, 64).double()
    return torch.cat([*clips.unsqueeze(1)], dim=2)[:, :, : WINDOW - 1 + windows]


@settings(deadline=None, max_examples=12)
@given(windows=st.integers(1, 9), seed=st.integers(0, 9), together=st.sampled_from([1, THREE_WINDOWS, 1 << 30]))
def test_a_run_gives_each_window_what_it_gets_alone(windows: int, seed: int, together: int) -> None:
    network, frames = deepcopy(lively(SMALLEST, 5)).double(), frames_of(windows, seed)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(window_runs, "TOGETHER", together)
        of_run = network.native_logits(frames)
        alone = [network.native_logits(frames[:, :, first : first + WINDOW]) for first in range(windows)]
        for level, maps in of_run.items():
            assert len(maps) == windows
            torch.testing.assert_close(maps, torch.cat([one[level] for one in alone]), rtol=0, atol=1e-9)


def test_a_window_of_the_run_that_is_one_frame_off_is_seen() -> None:
    network, frames = deepcopy(lively(SMALLEST, 5)).double(), frames_of(4, seed=1)
    with torch.inference_mode():
        maps = network.native_logits(frames)["conspicuity_2"]
    assert (maps[1:] - maps[:-1]).abs().amax(dim=(1, 2)).min() > 1e-3


def test_shared_frames_and_slots_are_computed_once() -> None:
    network, done = HD2S(width=SMALLEST).eval(), Counter[str]()
    encoder = network.featureExtractor

    def count(name: str, layer: nn.Module) -> None:
        layer.register_forward_hook(lambda layer, inputs, result: done.update({name: result.shape[2]}))

    count("stem frames", encoder.block1[0].conv_s)  # type: ignore[arg-type]
    count("slots", encoder.block2[1].conv_s)  # type: ignore[arg-type]
    with torch.inference_mode():
        maps = list(framewise_of_run(encoder, torch.zeros(1, 3, WINDOW - 1 + 8, 32, 64)))
    assert [tuple(one.shape) for one in maps] == [(1, 12, 8, 8, 16)] * 8
    assert done == {"stem frames": 23, "slots": 8 * 3 + 2 * (5 + 3)}, "128 and 64 without sharing"


def test_a_run_is_cut_into_its_windows_in_their_order() -> None:
    run = torch.randn(1, 3, 20, 4, 6)
    windows = windows_of_run(run)
    assert windows.shape == (5, 3, 16, 4, 6)
    assert all(torch.equal(windows[first], run[0, :, first : first + 16]) for first in range(5))
