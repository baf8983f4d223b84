"""The image network's weights as a start for TinyHD's encoder: MobileNetV2 of ImageNet, inflated over time.

A 2D kernel is repeated over the frames of the 3D one and divided by their number (Carreira and Zisserman, CVPR 2017,
"Quo Vadis, Action Recognition?"), so of a picture that stands still the encoder sees what the image network sees in
it, but for the frames beside which time is padded with zeros.

The decision that is not obvious is what an encoder with fewer channels keeps: those whose filters have the largest
norm (L1, as Li et al., ICLR 2017, "Pruning Filters for Efficient ConvNets"), chosen once for all layers that must
agree. Blocks that a residual joins share their channels, so there norms are summed; a depthwise kernel only passes a
channel on, so there they are multiplied. What is kept is read by the next layer as it stands; the statistics of batch
norms are those of the whole network, until training has renewed them.

Cost: the file is read once, 14 MB; nothing while training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from tinyhd_pipe.stages.networks.licence import Start, licence_of_start
from tinyhd_pipe.stages.networks.mobilenet import LAST, STAGES, STEM, MobileNetV2
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.store.errors import WeightsError

NORM = ("weight", "bias", "running_mean", "running_var")


class Layer(NamedTuple):
    """A convolution of the image network and the batch norm behind it, by their published names."""

    conv: str
    norm: str
    shape: tuple[int, int, int, int]
    """Of its kernel: (outputs, inputs of a group, y, x)."""
    writes: str
    """The channels that it gives. Layers with one name for them keep the same ones."""
    reads: str | None = None
    """The channels that it mixes; None for the stem, which reads colours, and for a depthwise layer."""

    @property
    def depthwise(self) -> bool:
        return self.shape[1] == 1


def _layers() -> tuple[Layer, ...]:
    """All layers but the classifier, in the order in which a picture passes them."""
    layers = [Layer("0.0", "0.1", (STEM, 3, 3, 3), writes="stem")]
    channels, width, block = "stem", STEM, 0
    for number, stage in enumerate(STAGES):
        for _ in range(stage.blocks):
            block += 1
            hidden, depthwise, wide = channels, f"{block}.conv.0", width * stage.expansion
            if stage.expansion > 1:
                hidden, depthwise = f"inside {block}", f"{block}.conv.1"
                names = f"{block}.conv.0.0", f"{block}.conv.0.1"
                layers.append(Layer(*names, (wide, width, 1, 1), writes=hidden, reads=channels))
            layers.append(Layer(f"{depthwise}.0", f"{depthwise}.1", (wide, 1, 3, 3), writes=hidden))
            behind = int(depthwise[-1]) + 1
            names = f"{block}.conv.{behind}", f"{block}.conv.{behind + 1}"
            channels, width = f"stage {number}", stage.channels
            layers.append(Layer(*names, (width, wide, 1, 1), writes=channels, reads=hidden))
    layers.append(Layer(f"{block + 1}.0", f"{block + 1}.1", (LAST, width, 1, 1), writes="last", reads=channels))
    return tuple(layers)


LAYERS = _layers()


def start_encoder(encoder: MobileNetV2, path: Path | None) -> Start | None:
    """Let an encoder start from a file of image weights, read without running code; None leaves it as it is.

    Arguments:
        path: MobileNetV2 of width 1 in torchvision's format (`features.0.0.weight`, ...); its classifier is not used.

    Returns the SHA-256 of the file and its terms, which belong to the facts of what is trained from it.

    Raises WeightsError for a file that is missing, unsafe, or of another network.
    """
    if path is None:
        return None
    weights = read_weights(path)
    _refuse_other_networks(path, weights.state)
    encoder.load_state_dict(inflated(weights.state, encoder))
    return Start(weights.sha256, licence_of_start(weights))


def inflated(state: Mapping[str, Tensor], encoder: MobileNetV2) -> dict[str, Tensor]:
    """The encoder's whole state dict, made of image weights: fewer channels, kernels repeated over time."""
    own = encoder.state_dict()
    kept = kept_channels(state, {layer.writes: len(own[f"encoder.{layer.conv}.weight"]) for layer in LAYERS})
    for layer in LAYERS:
        channels = kept[layer.writes]
        kernel = state[f"features.{layer.conv}.weight"].float()[channels]  # (C, C of a group, y, x)
        if layer.reads is not None:
            kernel = kernel[:, kept[layer.reads]]
        like = own[f"encoder.{layer.conv}.weight"]  # (C, C of a group, t, y, x)
        own[f"encoder.{layer.conv}.weight"] = kernel[:, :, None].expand_as(like) / like.shape[2]
        for name in NORM:
            own[f"encoder.{layer.norm}.{name}"] = state[f"features.{layer.norm}.{name}"].float()[channels]
    return own


def kept_channels(state: Mapping[str, Tensor], counts: Mapping[str, int]) -> dict[str, Tensor]:
    """Which channels stay, by the name that layers have for them: ascending indices, as many as `counts` says."""
    norms: dict[str, Tensor] = {}
    for layer in LAYERS:
        norm = state[f"features.{layer.conv}.weight"].double().abs().flatten(1).sum(dim=1)  # (C,)
        before = norms.get(layer.writes, torch.zeros_like(norm))
        norms[layer.writes] = before * norm if layer.depthwise else before + norm
    return {
        name: torch.argsort(norm, descending=True, stable=True)[: counts[name]].sort().values
        for name, norm in norms.items()
    }


def _refuse_other_networks(path: Path, state: Mapping[str, Tensor]) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for layer in LAYERS:
        expected[f"features.{layer.conv}.weight"] = layer.shape
        expected |= {f"features.{layer.norm}.{name}": layer.shape[:1] for name in NORM}
    found = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [
        f"{name} is {shape}, expected {expected[name]}"
        for name, shape in found.items()
        if shape != expected.get(name, shape)
    ]
    unused = {f"features.{layer.norm}.num_batches_tracked" for layer in LAYERS}
    problems += [
        f"{name} is none of its tensors"
        for name in found
        if name not in expected and name not in unused and not name.startswith("classifier.")
    ]
    if problems:
        raise WeightsError(
            f"{path}: not MobileNetV2 in torchvision's format ({problems[0]}); give mobilenet_v2-b0353104.pth, "
            "or use --download"
        )
