"""HD2S, the saliency teacher: an S3D encoder and four decoders, each of which gives one conspicuity map.

Attributes carry the published names, so the published checkpoint loads with strict keys. What its keys do
not show was found by search against maps that the authors' network gave: every temporal convolution of a
head halves the frames, every decoder layer ends in a bilinear doubling (align_corners=False), and the
fusion reads the four *sigmoids*, deepest first.

The decision that is not obvious is `native_logits`: a 1x1 convolution commutes with bilinear upsampling, so
each decoder's last layer is projected on the half grid, where a map's logits take a quarter of the room and
lose nothing. A sigmoid does not commute, therefore `final` exists on the full grid only.

Cost at width 1: 29.8 M parameters, 44.0 GFLOP for 16 frames of 192x256; both fall with the square of the
width.

Architecture: Bellitto et al., "Hierarchical Domain-Adapted Feature Learning for Video Saliency Prediction",
IJCV 2021.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.cpu import Conv2d, Conv3d
from tinyhd_pipe.stages.networks.s3d import STEM, ConvUnit, S3DEncoder, SeparableUnit, block_channels, scaled
from tinyhd_pipe.stages.networks.weights import load_strictly
from tinyhd_pipe.stages.networks.window_runs import features_of_run
from tinyhd_pipe.store.errors import SettingError, WeightsError

FRAMES = 16
"""Frames of a clip; encoder and heads halve them down to one."""
GRID = 32
"""Height and width are multiples of this, since the encoder halves them five times."""
FUSION_ORDER = (5, 4, 3, 2)
"""Levels in the order in which the fusion reads their maps."""
DECODER_EPS = 1e-5
"""Batch-norm epsilon of the decoders' separable layers; every other layer has S3D's 1e-3."""

DARK = -7.0
"""Logit at which untrained maps begin. Saliency maps are dark with few bright places: from grey ones (logit
0) the KL of normalised maps fell a third as far in the same 150 steps. From -5, too, peaks rise into the sigmoid's
flat part and stay there, since a divergence of normalised maps asks for no level: after 210 steps of the reduced
teacher two fifths of them were above .98, from -6 a fifth, from -7 none. From -10 there was too far to climb."""
FUSION_GAIN = 4.0
"""Weight of each map in an untrained fusion: one fully bright map lifts `final` from dark to 0.05."""
OPEN = 0.5
"""Shift of every untrained batch norm. With the usual 0 each of the many norm-ReLU pairs in a row drops half of what
comes in, and the decoders' last layers, three channels wide, die for some seeds: held-out CC after 250 steps of the
reduced teacher was .39 to .75 by seed, and .79 to .80 after 125 to 150 steps with 0.5."""


class DecoderChannels(NamedTuple):
    """What turns the features of one encoder block into a conspicuity map."""

    halvings: int
    """Temporal convolutions of the head; each halves the frames, the last leaves one."""
    layers: tuple[int, ...]
    """Output channels of each layer at width 1; each doubles the grid. The last count is never scaled."""
    separable: tuple[int, ...]
    """Depthwise separable convolutions that follow the full one, for each layer."""


# fmt: off
DECODERS: Mapping[int, DecoderChannels] = {
    # level        halvings  layers                  separable
    2: DecoderChannels(3,    (128, 64, 3),           (1, 1, 1)),
    3: DecoderChannels(2,    (256, 128, 64, 3),      (1, 1, 1, 1)),
    4: DecoderChannels(1,    (512, 256, 128, 64, 3), (2, 2, 1, 1, 1)),
    5: DecoderChannels(1,    (512, 256, 128, 64, 3), (2, 2, 1, 1, 1)),
}
"""Decoder k reads encoder block k."""
# fmt: on


def upsample(maps: Tensor) -> Tensor:
    """(B, C, h, w) to (B, C, 2h, 2w), bilinear with align_corners=False: the only resize in the network."""
    return F.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def _project(conv: nn.Module, x: Tensor) -> Tensor:
    """A last 1x1 convolution in its weights' own precision: autocast would round the logits for nothing."""
    with torch.autocast(x.device.type, enabled=False):
        logits: Tensor = conv(x.to(next(conv.parameters()).dtype))
        return logits


def _head_names(level: int) -> list[str]:
    """Published names of a head's convolutions: conv_t2_1, conv_t2_2, ..., but conv_t5 where there is one."""
    count = DECODERS[level].halvings
    return [f"conv_t{level}_{step}" for step in range(1, count + 1)] if count > 1 else [f"conv_t{level}"]


def _halve_frames(channels: int) -> ConvUnit:
    return ConvUnit(Conv3d(channels, channels, (3, 1, 1), (2, 1, 1), (1, 0, 0), bias=False))


def _decoder_layer(inputs: int, outputs: int, separable: int) -> nn.Sequential:
    units: list[nn.Module] = [ConvUnit(Conv2d(inputs, outputs, 3, padding=1, bias=False))]
    for _ in range(separable):
        depthwise = Conv2d(outputs, outputs, 3, padding=1, groups=outputs, bias=False)
        units.append(SeparableUnit(depthwise, Conv2d(outputs, outputs, 1, bias=False), DECODER_EPS))
    return nn.Sequential(*units)


class Decoder(nn.Module):
    """Layers that double the grid up to the full one, then a 1x1 convolution to one map."""

    def __init__(self, level: int, width: float) -> None:
        super().__init__()
        _, counts, separable = DECODERS[level]
        channels = [
            block_channels(level, width),
            *(scaled(count, width) for count in counts[:-1]),
            counts[-1],
        ]
        self.names = [f"deconvlayer{level}_{step}" for step in range(len(counts), 0, -1)]
        for name, inputs, outputs, repeats in zip(self.names, channels, channels[1:], separable, strict=False):
            self.add_module(name, _decoder_layer(inputs, outputs, repeats))
        self.projection = f"last_conv{level}"
        self.add_module(self.projection, Conv2d(counts[-1], 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) to the last layer's features before their doubling: (B, 3, H/2, W/2)."""
        for name in self.names[:-1]:
            x = upsample(self.get_submodule(name)(x))
        features: Tensor = self.get_submodule(self.names[-1])(x)
        return features

    def project(self, features: Tensor) -> Tensor:
        """(B, 3, h, w) to logits (B, 1, h, w) on the same grid."""
        return _project(self.get_submodule(self.projection), features)


class HD2S(nn.Module):
    """The teacher network; it answers in logits, and a map is their sigmoid.

    Arguments:
        width: multiplies every channel count; 1.0 is the published network. A multiple of 1/16, so that a
            file's shapes tell it exactly.
        seed: of the initial weights, which depend on nothing else.

    Raises SettingError for any other width.
    """

    def __init__(self, *, width: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        if not (width > 0 and (width * 16).is_integer()):
            raise SettingError(f"width {width}: expected a positive multiple of 1/16, such as 0.25 or 1.0")
        self.width = width
        self.featureExtractor = S3DEncoder(width)
        for level in DECODERS:
            for name in _head_names(level):
                self.add_module(name, _halve_frames(block_channels(level, width)))
            self.add_module(f"decoder{level}", Decoder(level, width))
        self.last_conv = Conv2d(len(FUSION_ORDER), 1, 1)
        self._initialise(seed)

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor]) -> "HD2S":
        """The network that `state` belongs to, with its weights; the first layer's shape tells the width.

        Raises WeightsError when a key or a shape is of another network.
        """
        key, expected = "featureExtractor.block1.0.conv_s.weight", f"({STEM} * width, 3, 1, 7, 7)"
        if key not in state:
            raise WeightsError(f"not an HD2S network: no key {key} of shape {expected}; is it a TinyHD file?")
        shape = tuple(state[key].shape)
        if shape[1:] != (3, 1, 7, 7) or shape[0] not in range(4, 8 * STEM, 4):
            raise WeightsError(f"not an HD2S network: {key} has shape {shape}, expected {expected}")
        network = cls(width=shape[0] / STEM)
        load_strictly(network, state, f"HD2S of width {network.width:g}")
        return network

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Logits of the five maps at the clip's size, computed as published.

        Arguments:
            clip: float (B, 3, 16, H, W), RGB as (2x - 255) / 255; H and W are multiples of 32.

        Returns:
            conspicuity_2 ... conspicuity_5, final: (B, H, W), unbounded.

        Raises SettingError for a clip of another shape.
        """
        _check_clip(clip.shape)
        decoded = self._decoded(self.featureExtractor(clip))
        logits = {level: self._decoder(level).project(upsample(x)) for level, x in decoded.items()}
        return _named(logits) | {"final": self._fused(logits)}

    def native_logits(self, clip: Tensor) -> dict[str, Tensor]:
        """The same logits, each on the smallest grid that holds it. Errors as in `forward`.

        Arguments:
            clip: as in `forward`, or (1, 3, 15 + B, H, W): B windows one frame apart, which share a part of the work.

        Returns:
            conspicuity_2 ... conspicuity_5: (B, H/2, W/2), which `upsample` turns into those of `forward`
            within float rounding; final: (B, H, W).
        """
        _check_clip(clip.shape, run=True)
        if clip.shape[2] == FRAMES:
            return self._native(self.featureExtractor(clip))
        parts = [self._native(features) for features in features_of_run(self.featureExtractor, clip)]
        return {level: torch.cat([part[level] for part in parts]) for level in parts[0]}

    def _native(self, features: Mapping[int, Tensor]) -> dict[str, Tensor]:
        native = {level: self._decoder(level).project(x) for level, x in self._decoded(features).items()}
        full = {level: upsample(logits) for level, logits in native.items()}
        return _named(native) | {"final": self._fused(full)}

    def _decoder(self, level: int) -> Decoder:
        decoder = self.get_submodule(f"decoder{level}")
        assert isinstance(decoder, Decoder)
        return decoder

    def _decoded(self, features: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Each decoder's last features, (B, 3, H/2, W/2), of the encoder's."""
        decoded = {}
        for level, x in features.items():
            for name in _head_names(level):
                x = self.get_submodule(name)(x)
            decoded[level] = self._decoder(level)(x[:, :, 0])  # (B, C, 1, h, w): one frame is left
        return decoded

    def _fused(self, logits: Mapping[int, Tensor]) -> Tensor:
        """Final logits, (B, H, W), of the four conspicuity logits at full size, each (B, 1, H, W)."""
        maps = torch.cat([logits[level].sigmoid() for level in FUSION_ORDER], dim=1)
        return _project(self.last_conv, maps)[:, 0]

    def _initialise(self, seed: int) -> None:
        """Weights to train from: He et al. (ICCV 2015) for every convolution, norms that let most of it through,
        and maps that begin dark and that every feature brightens."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                nn.init.constant_(module.bias, OPEN)
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:  # the five projections to a map; batch norm follows all others
                    nn.init.constant_(module.bias, DARK)
                    module.weight.data.abs_()
        nn.init.constant_(self.last_conv.weight, FUSION_GAIN)  # at first all four maps count, and alike


def round_weights(network: HD2S) -> None:
    """Keep the weights of every convolution that autocast runs in bfloat16 in bfloat16, in place.

    Autocast would round all 30 million of them anew for each clip. The maps are the same to the last bit.
    """
    for unit in network.modules():
        if isinstance(unit, ConvUnit | SeparableUnit):
            for conv in unit.children():
                if isinstance(conv, nn.Conv2d | nn.Conv3d):
                    conv.to(torch.bfloat16)


def _check_clip(shape: Sequence[int], *, run: bool = False) -> None:
    """Raises SettingError unless these are windows of 16 frames, or one run of them where that is possible."""
    fits = len(shape) == 5 and shape[1] == 3 and not any(side % GRID for side in shape[3:])
    if not fits or not (shape[2] == FRAMES or (run and shape[0] == 1 and shape[2] > FRAMES)):
        expected = f"(batch, 3, {FRAMES}, y, x) with y and x multiples of {GRID}"
        raise SettingError(f"a clip of shape {tuple(shape)}: HD2S expects {expected}")


def _named(logits: Mapping[int, Tensor]) -> dict[str, Tensor]:
    return {f"conspicuity_{level}": x[:, 0] for level, x in logits.items()}
