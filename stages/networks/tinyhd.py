"""TinyHD, the student: a MobileNetV2 encoder, any choice of its three kinds of decoders, and a fusion of their maps.

Attributes carry the published names, so published checkpoints load with strict keys. What their keys do not
show was found by search against maps that the authors' networks gave: adapters have no residual connection,
and the maps are fused as *sigmoids*.

The decision that is not obvious is where training starts. Saliency maps peak near .05 and are compared as
distributions, so a map needs logits below zero, where a sigmoid has the contrast of an exponential: every map
starts with scale 2 and shift -4, near the 1.9 and -4.7 at which published D1 heads ended (from 1 and 0,
twenty steps hardly move it). Fusion weights start positive, so that D2 and D3, which the loss gives no map to
match unless an assistant teaches, learn which sign is salient; in the published rc4 files both came out
inverted.

Cost, 16 frames of 192x256 at reduction 1: S 3.94 M parameters and 10.3 GFLOP, M 3.92 M and 14.4 with D1
single. Every map is made on the full grid, much of it in depthwise layers: memory traffic is what costs.

Architecture: Hu et al., WACV 2023, "TinyHD: Efficient Video Saliency Prediction with Heterogeneous Decoders
using Hierarchical Maps Distillation".
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from torch import Tensor, nn

from tinyhd_pipe.stages.networks.decoders import (
    DECODERS,
    SHUFFLED_FEATURES,
    Decoding,
    Scales,
    adapters,
    d1_maps,
    d2_map,
    d3_map,
    group_features,
)
from tinyhd_pipe.stages.networks.levels import levels_of
from tinyhd_pipe.stages.networks.mobilenet import STEM, InvertedResidual, MobileNetV2, initialise
from tinyhd_pipe.stages.networks.weights import load_strictly
from tinyhd_pipe.store.errors import SettingError, WeightsError

FRAMES = 16
"""Frames of a clip."""
GRID = 32
"""Height and width are multiples of this: the encoder halves the picture five times."""
REDUCTIONS = (1, 2, 4)
OUTPUTS = (1, FRAMES)


class Start(NamedTuple):
    """Where an affine layer starts to learn."""

    scale: float
    shift: float


MAP_START = Start(2.0, -4.0)
"""Batch norm at the end of every map: standard logits become a map that peaks well below 1/2."""
FUSION_START = Start(4.0, -4.0)
"""Fusion: `final` starts low where all maps are, and rises with each of them."""


class Aggregator(nn.Module):
    """The decoders, with their adapters in one list, numbered as published."""

    def __init__(self, decoders: Sequence[str], *, reduction: int, outputs: int, d1_outputs: int) -> None:
        super().__init__()
        self.decoders = tuple(decoders)
        self.reduction = reduction
        self.fused = False  # as in `Decoding`; fused.py sets it
        self.map_outputs = {name: d1_outputs if name == "d1" else outputs for name in self.decoders}
        self.aggregate_adapter = nn.ModuleList(
            InvertedResidual(
                adapter.inputs,
                adapter.outputs,
                expansion=2,
                # Every kernel of an M network spans three frames, even where nothing changes in time.
                frames=3 if adapter.halves or outputs > 1 else 1,
                stride=(2, 1, 1) if adapter.halves and self.map_outputs[name] == 1 else (1, 1, 1),
                residual=False,
            )
            for name in self.decoders
            for adapter in adapters(name, reduction).values()
        )
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm3d) and norm.num_features == 1:  # only maps have one channel
                nn.init.constant_(norm.weight, MAP_START.scale)
                nn.init.constant_(norm.bias, MAP_START.shift)

    def forward(self, features: Scales[Tensor]) -> dict[str, Tensor]:
        """Logits of every decoder's maps, (B, T, H, W), T = 1 or 16; decoders in their order."""
        maps: dict[str, Tensor] = {}
        for levels, (name, decoding) in zip(levels_of(self.decoders), self._decodings(), strict=True):
            if name == "d1":
                maps |= zip(levels, d1_maps(decoding, features), strict=True)
            else:
                maps[levels[0]] = (d2_map if name == "d2" else d3_map)(decoding, features)
        return {level: logits.squeeze(1) for level, logits in maps.items()}

    def _decodings(self) -> Iterator[tuple[str, Decoding]]:
        modules = iter(self.aggregate_adapter)
        for name in self.decoders:
            yield (
                name,
                Decoding(
                    {adapter: next(modules) for adapter in adapters(name, self.reduction)},
                    shuffles_features=self.reduction in SHUFFLED_FEATURES[name],
                    time=1 if self.map_outputs[name] == 1 else 2,
                    fused=self.fused,
                ),
            )


class Fusion(nn.Module):
    """A 1x1 convolution over the sigmoids of all maps; `decoder` is its published name."""

    def __init__(self, maps: int, *, outputs: int) -> None:
        super().__init__()
        mixing = nn.Conv2d(maps, 1, 1) if outputs == 1 else nn.Conv3d(maps, 1, 1)
        nn.init.constant_(mixing.weight, FUSION_START.scale)
        nn.init.constant_(mixing.get_parameter("bias"), FUSION_START.shift)
        self.decoder = nn.Sequential(mixing)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (B, T, H, W), float32, of the maps' logits, (B, 1 or T, H, W) each."""
        # Written as a sum: it stays float32 under autocast, and single maps spread over time without a copy.
        weights = self.decoder.get_parameter("0.weight").flatten()
        final = self.decoder.get_parameter("0.bias")
        for weight, logits in zip(weights, maps, strict=True):
            final = final + weight * logits.to(final.dtype).sigmoid()
        return final


@dataclass(frozen=True)
class Topology:
    """What a published checkpoint shows of its network."""

    decoders: tuple[str, ...]
    """Of d1, d2 and d3, each any number of times, in the order of their keys."""
    reduction: int
    """Channel reduction: 1, 2 or 4."""
    outputs: int
    """1 (S: the last frame) or 16 (M: every frame)."""


class TinyHD(nn.Module):
    """The whole network; keys and shapes of its state dict are those of the published checkpoints.

    Arguments:
        decoders: any of d1, d2 and d3 in any order, each any number of times.
        reduction: 1, 2 or 4 times fewer channels.
        outputs: 1 map for the last of 16 frames (S), or 16 (M).
        d1_outputs: maps of D1 in an M network, 1 for the clip or 16; not visible in weights.
        fusion_order: order in which the decoders' maps meet the fusion's weights, by default that of
            `decoders`; not visible in weights. Decoders of one kind keep their order among themselves.
        seed: of the initial weights, which depend on nothing else.

    Raises SettingError for anything else.
    """

    def __init__(
        self,
        *,
        decoders: Sequence[str] = DECODERS,
        reduction: int = 1,
        outputs: int = 1,
        d1_outputs: int = 1,
        fusion_order: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_settings(decoders, reduction, outputs, d1_outputs, fusion_order)
        self.decoders = tuple(decoders)
        self.reduction = reduction
        self.outputs = outputs
        self.d1_outputs = d1_outputs
        self.fusion_order = tuple(fusion_order or decoders)
        self.encoder = MobileNetV2(reduction=reduction, one_deep_frame=outputs > 1)
        self.aggregator = Aggregator(decoders, reduction=reduction, outputs=outputs, d1_outputs=d1_outputs)
        initialise(self, seed)
        self.decoder = Fusion(len(self._fused_levels()), outputs=outputs)

    @property
    def topology(self) -> Topology:
        return Topology(self.decoders, self.reduction, self.outputs)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        """Logits of every map: `conspicuity_2` to `conspicuity_5` with D1, `d2`, `d3`, and always `final`.

        A second decoder of a kind gives `conspicuity_2-2` and so on (levels.py).

        Arguments:
            clip: (B, 3, 16, H, W), ImageNet mean and deviation, H and W multiples of 32.

        Returns (B, H, W) for maps of one output, (B, 16, H, W) for maps of 16; maps are their sigmoids.

        Raises SettingError for a clip of another shape.
        """
        _check_clip(clip.shape)
        maps = self.aggregator(group_features(self.encoder(clip), fused=self.aggregator.fused))
        maps["final"] = self.decoder([maps[level] for level in self._fused_levels()])
        return {level: logits[:, 0] if logits.shape[1] == 1 else logits for level, logits in maps.items()}

    def native_logits(self, clip: Tensor) -> dict[str, Tensor]:
        """The same as `forward`: every map is made on the full grid, none has a smaller one."""
        maps: dict[str, Tensor] = self(clip)
        return maps

    def _fused_levels(self) -> list[str]:
        return list(chain(*levels_of(self.fusion_order)))

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Tensor], *, d1_outputs: int = 1, fusion_order: Sequence[str] | None = None
    ) -> "TinyHD":
        """Build the network that `state` belongs to and load it with strict keys.

        Raises WeightsError for another network's weights, SettingError for options that contradict it.
        """
        topology = topology_from_state_dict(state)
        network = cls(
            decoders=topology.decoders,
            reduction=topology.reduction,
            outputs=topology.outputs,
            d1_outputs=d1_outputs,
            fusion_order=fusion_order,
        )
        load_strictly(network, state, f"a TinyHD network with {topology}")
        return network


def topology_from_state_dict(state: Mapping[str, Tensor]) -> Topology:
    """Read decoders, channel reduction and outputs from keys and shapes.

    Raises WeightsError where they are not those of a TinyHD network.
    """
    stem = _shape(state, "encoder.encoder.0.0.weight")[0]
    deepest_kernel = _shape(state, "encoder.encoder.14.conv.1.0.weight")
    reduction = STEM // stem if stem else 0
    if reduction not in REDUCTIONS or len(deepest_kernel) != 5:
        raise WeightsError(f"weights of an encoder with {stem} channels at its stem: expected TinyHD's 32, 16 or 8")
    return Topology(_decoders(state, reduction), reduction, outputs=FRAMES if deepest_kernel[2] == 2 else 1)


def _decoders(state: Mapping[str, Tensor], reduction: int) -> tuple[str, ...]:
    """Walk over the adapters: the output channels of its first one tell a decoder."""
    tables = {name: list(adapters(name, reduction).values()) for name in DECODERS}
    found: list[str] = []
    position = 0
    while (key := f"aggregator.aggregate_adapter.{position}.conv.2.weight") in state:
        outputs = _shape(state, key)[0]
        name = next((name for name in DECODERS if tables[name][0].outputs == outputs), None)
        if name is None:
            begin = ", ".join(f"{name} {table[0].outputs}" for name, table in tables.items())
            raise WeightsError(
                f"weights whose adapter {position} has {outputs} channels: expected those with which a decoder "
                f"begins ({begin}); are they of another network?"
            )
        found.append(name)
        position += len(tables[name])
    if not found:
        raise WeightsError("weights without a decoder (aggregator.aggregate_adapter.0): expected a TinyHD network")
    return tuple(found)


def _shape(state: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    if key not in state or not state[key].ndim:
        raise WeightsError(f"weights without {key}: expected a TinyHD network; are they of another one?")
    return tuple(state[key].shape)


def _check_clip(shape: Sequence[int]) -> None:
    # Side by side: a comparison of the sides with each other would tie a traced batch to the frames.
    fits = len(shape) == 5 and tuple(shape[1:3]) == (3, FRAMES) and all(side > 0 for side in shape)
    if not fits or shape[3] % GRID or shape[4] % GRID:
        raise SettingError(
            f"a clip of shape {tuple(shape)}: expected (batch, 3, {FRAMES}, y, x), with y and x "
            f"multiples of {GRID}; resize it, for example to 192x256"
        )


def _check_settings(
    decoders: Sequence[str], reduction: int, outputs: int, d1_outputs: int, fusion_order: Sequence[str] | None
) -> None:
    if not decoders or not set(decoders) <= set(DECODERS):
        raise SettingError(f"decoders {list(decoders)}: expected some of {list(DECODERS)}, each as often as wanted")
    if reduction not in REDUCTIONS:
        raise SettingError(f"reduction {reduction}: expected 1, 2 or 4")
    if outputs not in OUTPUTS:
        raise SettingError(f"outputs {outputs}: expected 1 or {FRAMES}")
    if d1_outputs not in (1, outputs):
        raise SettingError(f"d1_outputs {d1_outputs}: expected 1, or {FRAMES} in a network with {FRAMES} outputs")
    if outputs > 1 and set(decoders) == {"d1"} and d1_outputs == 1:
        raise SettingError(f"{outputs} outputs of d1 alone, which gives 1: use d1_outputs={outputs} or outputs=1")
    if fusion_order is not None and sorted(fusion_order) != sorted(decoders):
        raise SettingError(f"fusion_order {list(fusion_order)}: expected the decoders {list(decoders)} in some order")
