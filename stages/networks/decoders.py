"""TinyHD's three decoders: tables of named adapters, and how features flow through them.

The order of a table is the published key numbering. What those keys do not show was found by search against
maps that the authors' networks gave: decoders add what they join, and each follows one law of time. In a
decoder with one output, adapters marked `halves` halve the frames until one is left; in a decoder with 16
outputs none does, and everything that doubles the picture doubles the frames as well.

The decision that is not obvious: an adapter's channels follow from what it reads and feeds (a pixel shuffle
leaves a quarter), so the tables hold few numbers of their own.

Cost at reduction 1, 16 frames of 192x256: D1 3.4, D2 2.3, D3 1.4 GFLOP with one output; 3.8, 4.4 and 2.9 in M
with D1 single.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.grids import interpolated, shuffled
from tinyhd_pipe.stages.networks.layers.layout import in_layout_of
from tinyhd_pipe.stages.networks.mobilenet import encoder_channels

DECODERS = ("d1", "d2", "d3")

T = TypeVar("T")


class Scales(NamedTuple, Generic[T]):
    """One value for each scale of the encoder's features."""

    half: T
    """H/2, 8 frames: block 1, beside blocks 2 and 3 pixel-shuffled."""
    quarter: T
    """H/4, 4 frames: blocks 4 to 6 pixel-shuffled."""
    eighth: T
    """H/8, 2 frames: blocks 7 to 13 pixel-shuffled."""
    sixteenth: T
    """H/16, 2 frames (S) or 1 (M): blocks 14 to 18 pixel-shuffled."""


class Adapter(NamedTuple):
    """What an inverted residual of a decoder does."""

    inputs: int
    outputs: int
    halves: bool = False
    """With one output, halve the frames."""


class HeadLayer(NamedTuple):
    """A layer of D1."""

    outputs: int
    halves: bool = False
    doubles: bool = False
    """Pixel-shuffle what the adapter gives: twice the height and width, a quarter of the channels."""


D1_HEADS = Scales(
    half=(
        HeadLayer(24, halves=True),
        HeadLayer(48, doubles=True),
        HeadLayer(24, halves=True),
        HeadLayer(1, halves=True),
    ),
    quarter=(
        HeadLayer(56, halves=True, doubles=True),
        HeadLayer(56, doubles=True),
        HeadLayer(28, halves=True),
        HeadLayer(1),
    ),
    eighth=(
        HeadLayer(56, halves=True, doubles=True),
        HeadLayer(56, doubles=True),
        HeadLayer(56, doubles=True),
        HeadLayer(1),
    ),
    sixteenth=(  # the features are doubled once before
        HeadLayer(136, halves=True, doubles=True),
        HeadLayer(136, doubles=True),
        HeadLayer(136, doubles=True),
        HeadLayer(1),
    ),
)
"""D1: four independent heads; their channels do not follow the reduction."""

D3_CHANNELS = {"full": 2, "half": 8, "quarter": 32}
"""Channels of D3's nodes after its first column; their coarser neighbour is adapted to four times as many."""

SHUFFLED_FEATURES: Mapping[str, tuple[int, ...]] = {"d1": (1, 2), "d2": (1,), "d3": (1,)}
"""Reductions at which a decoder doubles unadapted features by pixel shuffle; at others it interpolates."""


def feature_channels(reduction: int) -> Scales[int]:
    """Channels of the encoder's features; 28, 24, 136 and 520 at reduction 1."""
    block = encoder_channels(reduction)
    return Scales(
        half=block[1] + sum(block[2:4]) // 4,
        quarter=sum(block[4:7]) // 4,
        eighth=sum(block[7:14]) // 4,
        sixteenth=sum(block[14:19]) // 4,
    )


def group_features(blocks: list[Tensor], *, fused: bool = False) -> Scales[Tensor]:
    """Group the outputs of encoder blocks 0 to 18 by scale; block 0 is not used. `fused` as in `Decoding`."""
    return Scales(
        half=torch.cat([blocks[1], shuffle(torch.cat(blocks[2:4], 1), time=1, fused=fused)], 1),
        quarter=shuffle(torch.cat(blocks[4:7], 1), time=1, fused=fused),
        eighth=shuffle(torch.cat(blocks[7:14], 1), time=1, fused=fused),
        sixteenth=shuffle(torch.cat(blocks[14:19], 1), time=1, fused=fused),
    )


def adapters(decoder: str, reduction: int) -> dict[str, Adapter]:
    """The adapters of one decoder by name, in the order of the published keys."""
    features = feature_channels(reduction)
    quartered = 4 if reduction in SHUFFLED_FEATURES[decoder] else 1
    doubled = Scales(*(channels // quartered for channels in features))
    table: Mapping[str, Callable[[Scales[int], Scales[int]], dict[str, Adapter]]] = {
        "d1": _d1_adapters,
        "d2": _d2_adapters,
        "d3": _d3_adapters,
    }
    return table[decoder](features, doubled)


def _d1_adapters(features: Scales[int], doubled: Scales[int]) -> dict[str, Adapter]:
    table = {}
    entering = features._replace(sixteenth=doubled.sixteenth)
    for scale, inputs, head in zip(Scales._fields, entering, D1_HEADS, strict=True):
        for number, layer in enumerate(head):
            table[f"{scale}_{number}"] = Adapter(inputs, layer.outputs, layer.halves)
            inputs = layer.outputs // 4 if layer.doubles else layer.outputs
    return table


def _d2_adapters(features: Scales[int], doubled: Scales[int]) -> dict[str, Adapter]:
    return {
        "sixteenth_to_eighth": Adapter(features.sixteenth, 4 * features.eighth),
        "eighth_to_quarter": Adapter(features.eighth, 4 * features.quarter),
        "skip_quarter": Adapter(features.quarter, features.quarter, halves=True),
        "quarter_to_half": Adapter(features.quarter, 4 * features.half),
        "skip_half_0": Adapter(features.half, features.half, halves=True),
        "skip_half_1": Adapter(features.half, features.half, halves=True),
        "join_half": Adapter(features.half, features.half, halves=True),
        "map": Adapter(doubled.half, 1, halves=True),
    }


def _d3_adapters(features: Scales[int], doubled: Scales[int]) -> dict[str, Adapter]:
    full, half, quarter = D3_CHANNELS["full"], D3_CHANNELS["half"], D3_CHANNELS["quarter"]
    return {
        "skip_half_0": Adapter(features.half, doubled.quarter, halves=True),
        "skip_quarter_0": Adapter(features.quarter, doubled.eighth, halves=True),
        "skip_eighth_0": Adapter(features.eighth, doubled.sixteenth),
        "half_to_full": Adapter(doubled.quarter, 4 * full),
        "quarter_to_half": Adapter(doubled.eighth, 4 * half),
        "eighth_to_quarter": Adapter(doubled.sixteenth, 4 * quarter, halves=True),
        "skip_full_1": Adapter(doubled.half, full, halves=True),
        "skip_half_1": Adapter(doubled.quarter, half, halves=True),
        "skip_quarter_1": Adapter(doubled.eighth, quarter, halves=True),
        "skip_full_2": Adapter(full, full, halves=True),
        "skip_half_2": Adapter(half, half, halves=True),
        "skip_full_3": Adapter(full, full, halves=True),
        "map": Adapter(full, 1),
    }


def pixel_shuffle(x: Tensor) -> Tensor:
    """Height and width doubled out of the channels, frame by frame: (B, 4C, T, H, W) -> (B, C, T, 2H, 2W)."""
    batch, channels, frames, height, width = x.shape
    pictures = x.transpose(1, 2).flatten(0, 1)  # (B T, 4C, H, W), a view where x is channels-last
    shuffled = F.pixel_shuffle(pictures, 2)  # (B T, C, 2H, 2W)
    clips = shuffled.view(batch, frames, channels // 4, 2 * height, 2 * width).transpose(1, 2)
    return in_layout_of(x, clips)


def shuffle(x: Tensor, *, time: int, fused: bool) -> Tensor:
    """A pixel shuffle, then `time` frames for each: (B, 4C, T, H, W) -> (B, C, time T, 2H, 2W)."""
    return shuffled(x, time=time) if fused else interpolate(pixel_shuffle(x), time=time, space=1)


def interpolate(x: Tensor, *, time: int, space: int, fused: bool = False) -> Tensor:
    """Trilinear with corners aligned: (B, C, T, H, W) -> (B, C, time T, space H, space W)."""
    if time == space == 1:
        return x
    if fused:
        return interpolated(x, time=time, space=space)
    scaled = F.interpolate(x, scale_factor=(time, space, space), mode="trilinear", align_corners=True)
    return in_layout_of(x, scaled)


@dataclass(frozen=True)
class Decoding:
    """One decoder at work: its adapters by name, and how it doubles pictures."""

    adapters: Mapping[str, nn.Module]
    shuffles_features: bool
    """Double unadapted features by pixel shuffle, or else by interpolation."""
    time: int
    """Frames for each frame wherever the picture doubles: 1 with one output, 2 with 16."""
    fused: bool = False
    """By our kernels (fused.py): for contiguous float32 on a CPU, without gradients."""

    def adapt(self, name: str, x: Tensor, *, onto: Tensor | None = None) -> Tensor:
        """Run one adapter, and add what it gives to `onto`: (B, C, T, H, W) -> (B, C', T or T / 2, H, W)."""
        if self.fused:
            adapted: Tensor = self.adapters[name](x, onto=onto)
            return adapted
        return _added(self.adapters[name](x), onto)

    def lift(self, name: str, x: Tensor, *, onto: Tensor | None = None) -> Tensor:
        """Adapt, then shuffle to the next finer scale: (B, C, T, H, W) -> (B, C', time T, 2H, 2W)."""
        if self.fused:
            lifted: Tensor = self.adapters[name](x, lifts=self.time, onto=onto)
            return lifted
        return _added(self.shuffle(self.adapt(name, x)), onto)

    def adapt_doubled(self, name: str, x: Tensor) -> Tensor:
        """Double, then adapt: (B, C, T, H, W) -> (B, C', time T or half of it, 2H, 2W)."""
        if self.fused and not self.shuffles_features:
            adapted: Tensor = self.adapters[name](x, finer=(self.time, 2))
            return adapted
        return self.adapt(name, self.double(x))

    def shuffle(self, x: Tensor) -> Tensor:
        """Bring a node to the next finer scale: (B, 4C, T, H, W) -> (B, C, time T, 2H, 2W)."""
        return shuffle(x, time=self.time, fused=self.fused)

    def double(self, x: Tensor) -> Tensor:
        """Bring features to the next finer scale: (B, C, T, H, W) -> (B, C or C / 4, time T, 2H, 2W)."""
        if self.shuffles_features:
            return self.shuffle(x)
        return interpolate(x, time=self.time, space=2, fused=self.fused)


def _added(x: Tensor, onto: Tensor | None) -> Tensor:
    return x if onto is None else x + onto


def d1_maps(d1: Decoding, features: Scales[Tensor]) -> list[Tensor]:
    """Four heads that know nothing of each other, a map each, shallow to deep: logits (B, 1, T, H, W)."""
    entering = features._replace(sixteenth=d1.double(features.sixteenth))
    maps = []
    for scale, x, head in zip(Scales._fields, entering, D1_HEADS, strict=True):
        for number, layer in enumerate(head):
            x = (d1.lift if layer.doubles else d1.adapt)(f"{scale}_{number}", x)
        maps.append(x)
    return maps


def d2_map(d2: Decoding, features: Scales[Tensor]) -> Tensor:
    """Like a U-Net: climbs from the deepest features and adds those of each scale. Logits (B, 1, T, H, W)."""
    x = d2.lift("sixteenth_to_eighth", features.sixteenth, onto=features.eighth)
    x = d2.adapt("skip_quarter", features.quarter, onto=d2.lift("eighth_to_quarter", x))
    x = d2.lift("quarter_to_half", x)
    x = d2.adapt("skip_half_1", d2.adapt("skip_half_0", features.half), onto=x)
    return d2.adapt_doubled("map", d2.adapt("join_half", x))


def d3_map(d3: Decoding, features: Scales[Tensor]) -> Tensor:
    """Deep layer aggregation: in each column, each scale joins the next finer one. Logits (B, 1, T, H, W)."""
    half = d3.adapt("skip_half_0", features.half, onto=d3.double(features.quarter))
    quarter = d3.adapt("skip_quarter_0", features.quarter, onto=d3.double(features.eighth))
    eighth = d3.adapt("skip_eighth_0", features.eighth, onto=d3.double(features.sixteenth))

    full = d3.lift("half_to_full", half, onto=d3.adapt_doubled("skip_full_1", features.half))
    half = d3.lift("quarter_to_half", quarter, onto=d3.adapt("skip_half_1", half))
    quarter = d3.lift("eighth_to_quarter", eighth, onto=d3.adapt("skip_quarter_1", quarter))

    full = d3.adapt("skip_full_2", full, onto=d3.shuffle(half))
    half = d3.adapt("skip_half_2", half, onto=d3.shuffle(quarter))

    return d3.adapt("map", d3.adapt("skip_full_3", full, onto=d3.shuffle(half)))
