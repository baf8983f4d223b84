"""MobileNetV2 with a time axis: TinyHD's encoder, and the inverted residual of its decoders.

Every 3x3 depthwise kernel of the image network becomes 3x3x3, 1x1 kernels stay pointwise. The decision that
is not obvious is where time shrinks: 16 frames are halved at the stem and wherever the picture is halved,
except at block 2, which keeps 8 frames, and at block 14. There networks that answer for one frame (S) keep 2
frames; those that answer for 16 (M) have one kernel of 2 frames without padding, and 1 frame from there on.

Cost at reduction 1, 16 frames of 192x256: 3.1 GFLOP in S, 2.9 in M; at reduction 4 a seventh of it.

Architecture: Sandler et al., CVPR 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks".
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.cpu import Conv3d, clamped
from tinyhd_pipe.stages.networks.layers.depthwise import DepthwiseConv3d
from tinyhd_pipe.stages.networks.layers.norm import RELU6, normalised

STEM = 32
"""Channels of block 0 at reduction 1."""
LAST = 1280
"""Channels of block 18, the last one, at reduction 1."""


class Stage(NamedTuple):
    """Blocks of equal channels; the strides are those of the first of them."""

    expansion: int
    """Depthwise channels for each input channel."""
    channels: int
    """Output channels at reduction 1."""
    blocks: int
    space_stride: int
    time_stride: int


# fmt: off
STAGES = (
    # expansion channels blocks space_stride time_stride
    Stage(    1,      16,     1,           1,          1),  # block 1
    Stage(    6,      24,     2,           2,          1),  # blocks 2 and 3
    Stage(    6,      32,     3,           2,          2),  # blocks 4 to 6
    Stage(    6,      64,     4,           2,          2),  # blocks 7 to 10
    Stage(    6,      96,     3,           1,          1),  # blocks 11 to 13
    Stage(    6,     160,     3,           2,          1),  # blocks 14 to 16
    Stage(    6,     320,     1,           1,          1),  # block 17
)
"""Table 2 of the MobileNetV2 paper, with a column for time."""
# fmt: on

FIRST_OF_DEEPEST = 14
"""The block that halves the picture for the last time; in M it leaves one frame."""


def pointwise(inputs: int, outputs: int) -> Conv3d:
    """1x1x1 without bias."""
    return Conv3d(inputs, outputs, 1, bias=False)


def spatiotemporal(
    inputs: int, outputs: int, *, frames: int, stride: tuple[int, int, int], groups: int = 1
) -> nn.Conv3d:
    """3x3 over `frames` frames, padded to keep the size but for the stride; 2 frames are not padded."""
    padding = ((frames - 1) // 2, 1, 1)
    if groups == inputs:
        return DepthwiseConv3d(inputs, (frames, 3, 3), stride, padding)
    return Conv3d(inputs, outputs, (frames, 3, 3), stride, padding, groups=groups, bias=False)


class Activated(nn.Sequential):
    """A convolution, batch norm and ReLU6."""

    def __init__(self, layer: nn.Conv3d) -> None:
        super().__init__(layer, nn.BatchNorm3d(layer.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        layer, norm = self
        assert isinstance(layer, nn.Conv3d)
        if isinstance(norm, nn.Identity):  # folded into the layer
            return clamped(layer, x, RELU6)
        assert isinstance(norm, nn.BatchNorm3d)
        return normalised(norm, layer(x), top=RELU6)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3 over `frames` frames, linear 1x1 projection.

    Arguments:
        expansion: depthwise channels for each input channel; with 1 there is no expanding convolution.
        frames: temporal size of the depthwise kernel.
        stride: (t, y, x) of the depthwise convolution.
        residual: add the input to the output where their shapes agree.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        expansion: int,
        frames: int,
        stride: tuple[int, int, int] = (1, 1, 1),
        residual: bool,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [Activated(pointwise(inputs, hidden))] if expansion > 1 else []
        self.conv = nn.Sequential(
            *expand,
            Activated(spatiotemporal(hidden, hidden, frames=frames, stride=stride, groups=hidden)),
            pointwise(hidden, outputs),
            nn.BatchNorm3d(outputs),
        )
        self.residual = residual and stride == (1, 1, 1) and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        *layers, norm = self.conv
        y = x  # (B, inputs, T, H, W) -> (B, outputs, T / stride, H / stride, W / stride)
        for layer in layers:
            y = layer(y)
        if not isinstance(norm, nn.Identity):  # folded into the projection
            assert isinstance(norm, nn.BatchNorm3d)
            y = normalised(norm, y)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """The encoder, with its channels divided by `reduction`.

    Arguments:
        reduction: 1, 2 or 4.
        one_deep_frame: bring blocks 14 to 18 to one frame (M) instead of two (S).
    """

    def __init__(self, *, reduction: int, one_deep_frame: bool) -> None:
        super().__init__()
        self.channels = encoder_channels(reduction)
        blocks: list[nn.Module] = [
            Activated(spatiotemporal(3, self.channels[0], frames=3, stride=(2, 2, 2))),
        ]
        for stage in STAGES:
            for position in range(stage.blocks):
                number = len(blocks)
                strided = (stage.time_stride, stage.space_stride, stage.space_stride)
                blocks.append(
                    InvertedResidual(
                        self.channels[number - 1],
                        self.channels[number],
                        expansion=stage.expansion,
                        frames=_kernel_frames(number, one_deep_frame),
                        stride=strided if position == 0 else (1, 1, 1),
                        residual=True,
                    )
                )
        blocks.append(Activated(pointwise(self.channels[-2], self.channels[-1])))
        self.encoder = nn.Sequential(*blocks)

    def forward(self, clip: Tensor) -> list[Tensor]:
        """The outputs of blocks 0 to 18 for a clip (B, 3, 16, H, W), H and W multiples of 32.

        Grids: blocks 0 and 1 at H/2 with 8 frames, 2 and 3 at H/4 with 8, 4 to 6 at H/8 with 4, 7 to 13 at
        H/16 with 2, 14 to 18 at H/32 with 2 (S) or 1 (M).
        """
        stem, *blocks = self.encoder
        x = stem(clip)
        outputs = [x]
        for block in blocks:
            x = block(x)
            outputs.append(x)
        return outputs


def encoder_channels(reduction: int) -> tuple[int, ...]:
    """Output channels of blocks 0 to 18."""
    inner = [stage.channels for stage in STAGES for _ in range(stage.blocks)]
    return tuple(channels // reduction for channels in (STEM, *inner, LAST))


def _kernel_frames(block: int, one_deep_frame: bool) -> int:
    if not one_deep_frame or block < FIRST_OF_DEEPEST:
        return 3
    return 2 if block == FIRST_OF_DEEPEST else 1


def initialise(module: nn.Module, seed: int) -> None:
    """Weights to train from: He et al. (ICCV 2015) for every 3D convolution, a function of the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Conv3d):
            # By fan-in: torch's fan-out ignores groups and would make depthwise kernels far too small.
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
