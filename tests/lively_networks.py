"""TinyHD networks and clips in which a fault shows, and how they are asked."""

from typing import Any

import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.tinyhd import TinyHD


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lively(seed: int, **settings: Any) -> TinyHD:
    """A network in which no 0, no 1 and no dead map could hide a fault; the statistics are those of noise."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = TinyHD(**settings).train()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.startswith("decoder."):
                    nn.init.normal_(parameter)
                elif parameter.ndim == 1:
                    nn.init.uniform_(parameter, 0.5, 1.5) if name.endswith("weight") else nn.init.normal_(parameter)
            for module in network.modules():
                if isinstance(module, nn.BatchNorm3d):
                    module.momentum = 1.0
            network(noise(seed, 2, 3, 16, 64, 96))
    return network.eval()


def answer(network: TinyHD, clip: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        maps: dict[str, Tensor] = network(clip)
    return maps
