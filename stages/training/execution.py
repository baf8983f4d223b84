"""How a network runs while it is trained: its layout in memory, and whether torch compiles it.

Neither changes what is learned but for rounding. The decision that is not obvious: only training goes through the
compiled network; validation and pictures take the plain one, whose weights are the same, because another mode and
another batch would each be compiled anew.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.layout import as_channels_last, channels_last, contiguous
from tinyhd_pipe.stages.settings.training import Recipe

Trained = Callable[[Tensor], Mapping[str, Tensor]]
"""float32 (B, 3, T, H, W) -> level -> logits."""


def laid_out(module: nn.Module, recipe: Recipe) -> nn.Module:
    """Put the weights in the recipe's memory format, in place, and return the module."""
    return channels_last(module) if recipe.memory_format == "channels_last" else contiguous(module)


def trained(module: nn.Module, recipe: Recipe) -> Trained:
    """The network as its training calls it, on clips in any layout."""
    network = torch.compile(module) if recipe.compile else module
    in_format = as_channels_last if recipe.memory_format == "channels_last" else Tensor.contiguous

    def forward(clip: Tensor) -> Mapping[str, Tensor]:
        logits: Mapping[str, Tensor] = network(in_format(clip))
        return logits

    return forward
