"""S3D, the encoder of HD2S: five blocks of separable 3D convolutions and Inception branches.

Attributes carry the names of the published HD2S checkpoint. The decision that is not obvious: features are
taken *after* the pooling that follows a block, so decoder 2 starts on an eighth of the grid and not on a
quarter; the keys do not show it, the published maps do. Cost at width 1: 35 GFLOP of HD2S's 44 for 16
frames of 192x256.

Architecture: Xie et al., "Rethinking Spatiotemporal Feature Learning", ECCV 2018.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.cpu import Conv3d, MaxPool3d
from tinyhd_pipe.stages.networks.layers.norm import RELU, normalised

STEM = 64
"""Channels of block 1 at width 1."""
BLOCK2 = 192
"""Channels of block 2 at width 1."""

S3D_EPS = 1e-3
"""Batch-norm epsilon of the encoder, and of all of HD2S but the separable layers of its decoders."""


class InceptionChannels(NamedTuple):
    """Output channels of the convolutions in one Inception block."""

    point: int
    """Branch 0: 1x1x1."""
    wide_in: int
    """Branch 1: 1x1x1 down to this, ..."""
    wide: int
    """... then a separable 3x3x3."""
    narrow_in: int
    """Branch 2: the same, with fewer channels."""
    narrow: int
    pool: int
    """Branch 3: 3x3x3 maximum, then 1x1x1."""

    @property
    def outputs(self) -> int:
        return self.point + self.wide + self.narrow + self.pool

    def scaled(self, width: float) -> "InceptionChannels":
        return InceptionChannels(*(scaled(count, width) for count in self))


# fmt: off
INCEPTION: Mapping[int, tuple[InceptionChannels, ...]] = {
    # block               point wide_in wide narrow_in narrow pool
    3: (InceptionChannels(   64,   96,  128,    16,     32,    32),
        InceptionChannels(  128,  128,  192,    32,     96,    64)),
    4: (InceptionChannels(  192,   96,  208,    16,     48,    64),
        InceptionChannels(  160,  112,  224,    24,     64,    64),
        InceptionChannels(  128,  128,  256,    24,     64,    64),
        InceptionChannels(  112,  144,  288,    32,     64,    64),
        InceptionChannels(  256,  160,  320,    32,    128,   128)),
    5: (InceptionChannels(  256,  160,  320,    32,    128,   128),
        InceptionChannels(  384,  192,  384,    48,    128,   128)),
}
"""Blocks 3 to 5 at width 1."""
# fmt: on


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 4, at least 4; published counts stay at width 1."""
    return max(4, 4 * round(channels * width / 4))


def block_channels(block: int, width: float) -> int:
    """Channels that encoder block 2, 3, 4 or 5 gives."""
    return scaled(BLOCK2, width) if block == 2 else INCEPTION[block][-1].scaled(width).outputs


def _norm(conv: nn.Conv2d | nn.Conv3d, eps: float) -> nn.BatchNorm2d | nn.BatchNorm3d:
    # S3D's momentum of 1e-3 takes thousands of steps to forget its start. Inference does not depend on it, so
    # torch's 0.1 stays, which suits the short training of a reduced teacher.
    if isinstance(conv, nn.Conv3d):
        return nn.BatchNorm3d(conv.out_channels, eps=eps)
    return nn.BatchNorm2d(conv.out_channels, eps=eps)


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv
        self.bn = _norm(conv, S3D_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return normalised(self.bn, self.conv(x), top=RELU)


class SeparableUnit(nn.Module):
    """Two convolutions that share the work of one, each followed by batch norm and ReLU.

    In the encoder `conv_s` is spatial and `conv_t` temporal; in HD2S's decoders they are depthwise and 1x1.
    """

    def __init__(self, conv_s: nn.Conv2d | nn.Conv3d, conv_t: nn.Conv2d | nn.Conv3d, eps: float) -> None:
        super().__init__()
        self.conv_s = conv_s
        self.bn_s = _norm(conv_s, eps)
        self.conv_t = conv_t
        self.bn_t = _norm(conv_t, eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.temporal(self.spatial(x))

    def spatial(self, x: Tensor) -> Tensor:
        """The first half, which sees every frame by itself."""
        return normalised(self.bn_s, self.conv_s(x), top=RELU)

    def temporal(self, x: Tensor) -> Tensor:
        """The second half, of what `spatial` gave."""
        return normalised(self.bn_t, self.conv_t(x), top=RELU)


def _pointwise(inputs: int, outputs: int) -> ConvUnit:
    return ConvUnit(Conv3d(inputs, outputs, 1, bias=False))


def _space_time(inputs: int, outputs: int, size: int, stride: int = 1) -> SeparableUnit:
    """A `size`³ convolution as `size`² in space, then `size` in time; `stride` holds for both."""
    pad = size // 2
    return SeparableUnit(
        Conv3d(inputs, outputs, (1, size, size), (1, stride, stride), (0, pad, pad), bias=False),
        Conv3d(outputs, outputs, (size, 1, 1), (stride, 1, 1), (pad, 0, 0), bias=False),
        S3D_EPS,
    )


class Inception(nn.Module):
    """Four parallel branches over the same features, their outputs side by side."""

    def __init__(self, inputs: int, c: InceptionChannels) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(_pointwise(inputs, c.point))
        self.branch1 = nn.Sequential(_pointwise(inputs, c.wide_in), _space_time(c.wide_in, c.wide, 3))
        self.branch2 = nn.Sequential(_pointwise(inputs, c.narrow_in), _space_time(c.narrow_in, c.narrow, 3))
        self.branch3 = nn.Sequential(MaxPool3d((3, 3, 3), (1, 1, 1), (1, 1, 1)), _pointwise(inputs, c.pool))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)


def _inceptions(block: int, width: float) -> nn.Sequential:
    layers = []
    inputs = block_channels(block - 1, width)
    for row in INCEPTION[block]:
        channels = row.scaled(width)
        layers.append(Inception(inputs, channels))
        inputs = channels.outputs
    return nn.Sequential(*layers)


def separable(block: nn.Sequential) -> SeparableUnit:
    """The unit that ends block 1 or 2."""
    unit = block[-1]
    assert isinstance(unit, SeparableUnit)
    return unit


class S3DEncoder(nn.Module):
    """S3D without its classifier: five blocks, with a pooling between each two.

    Arguments:
        width: multiplies every channel count.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        stem = scaled(STEM, width)
        self.pool = MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.pool3 = MaxPool3d((3, 3, 3), (2, 2, 2), (1, 1, 1))
        self.pool4 = MaxPool3d((2, 2, 2), (2, 2, 2), (0, 0, 0))
        self.block1 = nn.Sequential(_space_time(3, stem, 7, stride=2))
        self.block2 = nn.Sequential(_pointwise(stem, stem), _space_time(stem, scaled(BLOCK2, width), 3))
        self.block3 = _inceptions(3, width)
        self.block4 = _inceptions(4, width)
        self.block5 = _inceptions(5, width)

    def forward(self, clip: Tensor) -> dict[int, Tensor]:
        """Features by block, each after the pooling that follows it; block 1 feeds no decoder.

        Arguments:
            clip: float (B, 3, 16, H, W).

        Returns:
            2: (B, 192, 8, H/8, W/8), 3: (B, 480, 4, H/16, W/16), 4: (B, 832, 2, H/32, W/32), and 5, which no
            pooling follows: (B, 1024, 2, H/32, W/32); channels at width 1.
        """
        return self.behind(self.framewise(self.block1(clip)))

    def framewise(self, block1: Tensor) -> Tensor:
        """What follows block 1 and sees each of its frames by itself: (B, 64, T, H/2, W/2) to (B, 192, T, H/4, W/4)."""
        return separable(self.block2).spatial(self.block2[0](self.pool(block1)))

    def behind(self, framewise: Tensor) -> dict[int, Tensor]:
        """All that follows `framewise`, of 8 frames; what `forward` returns."""
        block2 = self.pool(separable(self.block2).temporal(framewise))
        block3 = self.pool3(self.block3(block2))
        block4 = self.pool4(self.block4(block3))
        return {2: block2, 3: block3, 4: block4, 5: self.block5(block4)}
