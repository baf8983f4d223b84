"""S3D as its public file has it, in plain torch: one numbered sequence, poolings included, and its file."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

ROWS = {
    5: (192, 64, 96, 128, 16, 32, 32),
    6: (256, 128, 128, 192, 32, 96, 64),
    8: (480, 192, 96, 208, 16, 48, 64),
    9: (512, 160, 112, 224, 24, 64, 64),
    10: (512, 128, 128, 256, 24, 64, 64),
    11: (512, 112, 144, 288, 32, 64, 64),
    12: (528, 256, 160, 320, 32, 128, 128),
    14: (832, 256, 160, 320, 32, 128, 128),
    15: (832, 384, 192, 384, 48, 128, 128),
}
"""Channels of each Inception block by its number: in, then of its branches."""
FEATURES = {2: 4, 3: 7, 4: 13, 5: 15}
"""The last layer before each of the features that HD2S takes, by its block."""


class _Unit(nn.Module):
    """Convolution, batch norm, ReLU; separable ones do that in space and then in time."""

    def __init__(self, inputs: int, outputs: int, size: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.separable = size > 1
        if not self.separable:
            self.conv, self.bn = nn.Conv3d(inputs, outputs, 1, bias=False), nn.BatchNorm3d(outputs, eps=1e-3)
            return
        half = size // 2
        space, time = (
            ((1, size, size), (1, stride, stride), (0, half, half)),
            ((size, 1, 1), (stride, 1, 1), (half, 0, 0)),
        )
        self.conv_s, self.bn_s = nn.Conv3d(inputs, outputs, *space, bias=False), nn.BatchNorm3d(outputs, eps=1e-3)
        self.conv_t, self.bn_t = nn.Conv3d(outputs, outputs, *time, bias=False), nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        if not self.separable:
            return torch.relu(self.bn(self.conv(x)))
        return torch.relu(self.bn_t(self.conv_t(torch.relu(self.bn_s(self.conv_s(x))))))


class _Mixed(nn.Module):
    def __init__(
        self, inputs: int, point: int, wide_in: int, wide: int, narrow_in: int, narrow: int, pool: int
    ) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(_Unit(inputs, point))
        self.branch1 = nn.Sequential(_Unit(inputs, wide_in), _Unit(wide_in, wide, 3))
        self.branch2 = nn.Sequential(_Unit(inputs, narrow_in), _Unit(narrow_in, narrow, 3))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, 1), _Unit(inputs, pool))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in (self.branch0, self.branch1, self.branch2, self.branch3)], dim=1)


class PublicS3D(nn.Module):
    """Random weights, all of them other than what a fresh network has."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        layers: dict[int, nn.Module] = {
            0: _Unit(3, 64, 7, 2),
            1: nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            2: _Unit(64, 64),
            3: _Unit(64, 192, 3),
            4: nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            7: nn.MaxPool3d(3, 2, 1),
            13: nn.MaxPool3d(2, 2),
        }
        layers |= {number: _Mixed(*row) for number, row in ROWS.items()}
        self.base = nn.Sequential(*(layers[number] for number in range(16)))
        self.fc = nn.Sequential(nn.Conv3d(1024, 400, 1))
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in self.state_dict().items():
            if tensor.is_floating_point():
                spread = torch.rand(tensor.shape, generator=generator)
                wide = tensor.ndim > 1
                tensor.copy_(
                    (spread - 0.45) / (tensor[0].numel() ** 0.5) if wide else 0.5 + spread * (".bias" not in name)
                )
            else:
                tensor.fill_(12)

    def features(self, clip: Tensor) -> Iterator[tuple[int, Tensor]]:
        """HD2S's block to the features after the pooling that follows it."""
        x = clip
        for number, layer in enumerate(self.base):
            x = layer(x)
            yield from ((block, x) for block, last in FEATURES.items() if last == number)

    def file(self, *, prefix: str = "", shuffled: int | None = None) -> dict[str, Tensor]:
        """Its state dict as files have it, with DataParallel's prefix and in any order."""
        items = [(f"{prefix}{name}", tensor.clone()) for name, tensor in self.state_dict().items()]
        if shuffled is not None:
            items = [items[place] for place in np.random.default_rng(shuffled).permutation(len(items))]
        return dict(items)
