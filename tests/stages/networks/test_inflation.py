"""Image weights in the encoder: what it then sees in a picture that stands still, with all channels and with fewer."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.image_network import BLOCKS, image_features, image_weights
from tests.lively_networks import noise
from tinyhd_pipe.stages.networks.inflation import inflated, start_encoder
from tinyhd_pipe.stages.networks.mobilenet import MobileNetV2
from tinyhd_pipe.store.errors import WeightsError

PICTURE = noise(5, 1, 3, 64, 96)
STILL = PICTURE[:, :, None].expand(-1, -1, 16, -1, -1).contiguous()
"""The picture 16 times, (1, 3, 16, 64, 96)."""

ROUNDING = {"atol": 1e-4, "rtol": 1e-4}
"""Of weights: a third of a float32 is not exact."""

WHOLE_IN_TIME = {0: range(1, 8), 1: range(2, 7), 2: range(3, 6), 3: range(4, 5)}
"""Frames of the first blocks that see no zeros beside the clip: the stem sees frame -1 in its first one only."""


def encoder_of(state: dict[str, Tensor], *, reduction: int = 1, one_deep_frame: bool = False) -> MobileNetV2:
    encoder = MobileNetV2(reduction=reduction, one_deep_frame=one_deep_frame).eval()
    encoder.load_state_dict(inflated(state, encoder))
    return encoder


def features(encoder: MobileNetV2, clip: Tensor) -> list[Tensor]:
    with torch.inference_mode():
        return encoder(clip)


def standing_on(encoder: MobileNetV2) -> MobileNetV2:
    """The same encoder for a picture that has always stood still: time goes on beside the clip, where zeros were."""

    def go_on(conv: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        return F.pad(inputs[0], (0, 0, 0, 0, 1, 1), mode="replicate")

    for conv in encoder.modules():
        if isinstance(conv, nn.Conv3d) and conv.padding[0] == 1:
            conv.padding = (0, 1, 1)
            conv.register_forward_pre_hook(go_on)
    return encoder


@pytest.mark.parametrize("one_deep_frame", [False, True])
def test_of_a_still_picture_the_encoder_sees_what_the_image_network_sees(one_deep_frame: bool) -> None:
    state = image_weights(1)
    expected = image_features(state, PICTURE)
    seen = features(encoder_of(state, one_deep_frame=one_deep_frame), STILL)
    for block, frames in WHOLE_IN_TIME.items():
        for frame in frames:
            torch.testing.assert_close(seen[block][:, :, frame], expected[block], **ROUNDING)
    assert (seen[0][:, :, 0] - expected[0]).abs().max() > 0.1, "beside the clip there are zeros"


@pytest.mark.parametrize("one_deep_frame", [False, True])
def test_where_time_goes_on_beside_the_clip_every_block_sees_it(one_deep_frame: bool) -> None:
    """Residuals, strides, kernels of three, of two and of one frame: 19 blocks in all frames."""
    state = image_weights(2)
    expected = image_features(state, PICTURE.double())
    encoder = encoder_of(state, one_deep_frame=one_deep_frame)
    seen = features(standing_on(encoder).double(), STILL.double())
    assert [block.shape[2] for block in seen] == [8] * 4 + [4] * 3 + [2] * 7 + [1 if one_deep_frame else 2] * 5
    for block, (still, picture) in enumerate(zip(seen, expected, strict=True)):
        assert picture.std() > 1e-2, block
        torch.testing.assert_close(
            still, picture[:, :, None].expand_as(still), atol=1e-4, rtol=1e-4
        )  # thirds, in float32


def half_dead(state: dict[str, Tensor], reduction: int) -> dict[int, Tensor]:
    """Leave alive every so many channels, at random places; returns those of each block's output.

    A dead channel has a filter without weights and is zero; what reads it stays as it was.
    """
    generator = torch.Generator().manual_seed(reduction)

    def alive(count: int) -> Tensor:
        return torch.randperm(count, generator=generator)[: count // reduction].sort().values

    def kill(conv: str, norm: str, living: Tensor) -> None:
        dead = torch.ones(len(state[f"features.{conv}.weight"]), dtype=torch.bool)
        dead[living] = False
        state[f"features.{conv}.weight"][dead] = 0
        for name in ("weight", "bias", "running_mean"):
            state[f"features.{norm}.{name}"][dead] = 0

    living = {0: alive(32)}
    kill("0.0", "0.1", living[0])
    for number, (expansion, channels, _) in enumerate(BLOCKS, start=1):
        joined = number > 1 and BLOCKS[number - 2][1] == channels
        living[number] = living[number - 1] if joined else alive(channels)
        inside, at = living[number - 1], 0
        if expansion > 1:
            inside, at = alive(len(state[f"features.{number}.conv.0.0.weight"])), 1
            kill(f"{number}.conv.0.0", f"{number}.conv.0.1", inside)
        kill(f"{number}.conv.{at}.0", f"{number}.conv.{at}.1", inside)
        kill(f"{number}.conv.{at + 1}", f"{number}.conv.{at + 2}", living[number])
    living[18] = alive(1280)
    kill("18.0", "18.1", living[18])
    return living


@pytest.mark.parametrize("reduction", [2, 4])
def test_a_network_of_which_a_part_lives_is_the_same_without_the_rest(reduction: int) -> None:
    """Only where each layer reads just what the one before kept can a reduced encoder give what the whole one gives."""
    state = image_weights(3)
    living = half_dead(state, reduction)
    expected = image_features(state, PICTURE.double())
    seen = features(standing_on(encoder_of(state, reduction=reduction)).double(), STILL.double())
    for block, (still, picture) in enumerate(zip(seen, expected, strict=True)):
        kept = picture[:, living[block], None]
        assert kept.std() > 1e-2, block
        torch.testing.assert_close(still, kept.expand_as(still), **ROUNDING)


def test_a_channel_that_nothing_passes_on_is_not_kept_however_large_its_filter() -> None:
    """Half of the channels of block 5 have great expanding filters and no depthwise kernel."""
    state = image_weights(4)
    mute = torch.arange(192) % 2 == 0
    state["features.5.conv.0.0.weight"][mute] *= 100
    state["features.5.conv.1.0.weight"][mute] = 0
    kernel = encoder_of(state, reduction=2).state_dict()["encoder.5.conv.1.0.weight"]
    assert torch.equal(kernel[:, :, 0], state["features.5.conv.1.0.weight"][~mute] / 3)


def _without_a_tensor(state: dict[str, Any]) -> None:
    del state["features.17.conv.3.running_var"]


def _of_half_the_width(state: dict[str, Any]) -> None:
    state["features.0.0.weight"] = state["features.0.0.weight"][:16]


def _with_more_blocks(state: dict[str, Any]) -> None:
    state["features.19.0.weight"] = torch.zeros(3, 3, 1, 1)


def _of_another_network(state: dict[str, Any]) -> None:
    state.clear()
    state["conv1.weight"] = torch.zeros(64, 3, 7, 7)


class _Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def _that_would_run(state: dict[str, Any]) -> None:
    state["features.0.0.weight"] = _Command()


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (_without_a_tensor, "features.17.conv.3.running_var is missing"),
        (_of_half_the_width, "features.0.0.weight is (16, 3, 3, 3), expected (32, 3, 3, 3)"),
        (_with_more_blocks, "features.19.0.weight is none of its tensors"),
        (_of_another_network, "features.0.0.weight is missing"),
        (_that_would_run, "refused, since reading it would run"),
    ],
)
def test_another_file_is_refused_in_one_line_and_changes_nothing(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state: dict[str, Any] = image_weights(6)
    spoil(state)
    torch.save(state, tmp_path / "w.pth", pickle_module=pickle)
    encoder = MobileNetV2(reduction=4, one_deep_frame=False)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(WeightsError) as refusal:
        start_encoder(encoder, tmp_path / "w.pth")
    assert str(refusal.value).startswith(f"{tmp_path / 'w.pth'}: ")
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())
    assert capsys.readouterr().out == ""


def test_without_a_file_nothing_changes_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    encoder = MobileNetV2(reduction=4, one_deep_frame=False)
    before = encoder.encoder.get_submodule("0.0").get_parameter("weight").clone()
    assert start_encoder(encoder, None) is None
    assert torch.equal(encoder.encoder.get_submodule("0.0").get_parameter("weight"), before)
    with pytest.raises(WeightsError, match="no such weights file"):
        start_encoder(encoder, tmp_path / "gone.pth")
