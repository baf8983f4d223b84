"""MobileNetV2 for pictures, written for tests: a file as torchvision writes it, and what its blocks give."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = [
    (expansion, channels, stride if repeat == 0 else 1)
    for expansion, channels, repeats, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for repeat in range(repeats)
]
"""(t, c, s) of every inverted residual, Table 2 of Sandler et al., CVPR 2018."""


def image_weights(seed: int) -> dict[str, Tensor]:
    """Random weights under torchvision's names; statistics and shifts are such that no fault could hide in them."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def layer(conv: str, norm: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"features.{conv}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        for name, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.3, 0.6),
            ("running_mean", -0.2, 0.2),
            ("running_var", 0.5, 1.5),
        ):
            state[f"features.{norm}.{name}"] = torch.empty(shape[0]).uniform_(low, high, generator=generator)
        state[f"features.{norm}.num_batches_tracked"] = torch.tensor(7)

    layer("0.0", "0.1", 32, 3, 3, 3)
    width = 32
    for number, (expansion, channels, _) in enumerate(BLOCKS, start=1):
        hidden, at = width * expansion, 0
        if expansion > 1:
            layer(f"{number}.conv.0.0", f"{number}.conv.0.1", hidden, width, 1, 1)
            at = 1
        layer(f"{number}.conv.{at}.0", f"{number}.conv.{at}.1", hidden, 1, 3, 3)
        layer(f"{number}.conv.{at + 1}", f"{number}.conv.{at + 2}", channels, hidden, 1, 1)
        width = channels
    layer("18.0", "18.1", 1280, 320, 1, 1)
    state["classifier.1.weight"], state["classifier.1.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    return state


def image_features(state: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """What blocks 0 to 18 give of pictures (B, 3, H, W): (B, C, H', W') each, in evaluation mode."""

    def layer(conv: str, norm: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = state[f"features.{conv}.weight"].to(x.dtype)
        y = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=groups)
        values = (state[f"features.{norm}.{name}"].to(x.dtype) for name in ("running_mean", "running_var"))
        scale, shift = (state[f"features.{norm}.{name}"].to(x.dtype) for name in ("weight", "bias"))
        return F.batch_norm(y, *values, scale, shift)

    outputs = [F.relu6(layer("0.0", "0.1", x, stride=2))]
    for number, (expansion, _, stride) in enumerate(BLOCKS, start=1):
        before = x = outputs[-1]
        at = 0
        if expansion > 1:
            x = F.relu6(layer(f"{number}.conv.0.0", f"{number}.conv.0.1", x))
            at = 1
        x = F.relu6(layer(f"{number}.conv.{at}.0", f"{number}.conv.{at}.1", x, stride=stride, groups=x.shape[1]))
        x = layer(f"{number}.conv.{at + 1}", f"{number}.conv.{at + 2}", x)
        outputs.append(x + before if x.shape == before.shape else x)
    outputs.append(F.relu6(layer("18.0", "18.1", outputs[-1])))
    return outputs
