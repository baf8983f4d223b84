"""A network as one graph of plain layers: what every exported file computes.

    clip     float32 (B, 3, 16, y, x), scaled        or, with its preprocessing inside,
    frames   uint8 (B, 16, Y, X, 3), RGB, any Y and X
             -> maps in [0, 1], float32 (B, y, x) or (B, 16, y, x)

The decision that is not obvious: the graph is traced on contiguous clips, since channels-last ones go through operators
that exist here alone (layers/cpu.py), and with TinyHD's norms folded into its convolutions, so that no runtime has to.
Cost: a copy of the network.
"""

from collections.abc import Sequence
from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.layers.folding import folded
from tinyhd_pipe.stages.networks.layers.layout import contiguous
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.video.clips import WINDOW

EXAMPLES = 2
"""Windows in the batch that is traced: of one, a tracer takes the batch for a constant."""


class Graph(nn.Module):
    """The network with a sigmoid behind it, and its preprocessing before it where that is wanted.

    Arguments:
        network: float32, on the CPU.
        levels: names of the maps that are given, in this order.
        takes_frames: input is uint8 frames as decoded, and not a scaled clip.
    """

    def __init__(self, network: Network, levels: Sequence[str], *, takes_frames: bool) -> None:
        super().__init__()
        copy = folded(network.module) if network.kind == "tinyhd" else deepcopy(network.module)
        self.network = contiguous(copy.eval())
        self.scaling = network.scaling
        self.register_buffer("mean", torch.tensor(network.scaling.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(network.scaling.std).view(3, 1, 1))
        self.levels = tuple(levels)
        self.takes_frames = takes_frames

    def forward(self, seen: Tensor) -> tuple[Tensor, ...]:
        """Maps in [0, 1], one tensor for each level: (B, y, x), or (B, 16, y, x) where a level has a map a frame."""
        logits = self.network(self._prepared(seen) if self.takes_frames else seen)
        return tuple(logits[level].sigmoid() for level in self.levels)

    def _prepared(self, frames: Tensor) -> Tensor:
        """`Scaling.prepare` of whole windows: uint8 (B, T, Y, X, 3) to float32 (B, 3, T, y, x)."""
        batch, count = frames.shape[:2]
        pixels = frames.permute(0, 1, 4, 2, 3).flatten(0, 1).float()  # (B T, 3, Y, X)
        pixels = F.interpolate(pixels, size=self.scaling.size, mode="bilinear", align_corners=False)
        scaled = (pixels - self.get_buffer("mean")) / self.get_buffer("std")
        return scaled.view(batch, count, 3, *self.scaling.size).transpose(1, 2)

    @property
    def input_name(self) -> str:
        return "frames" if self.takes_frames else "clip"

    def example(self) -> Tensor:
        """An input to trace with."""
        y, x = self.scaling.size
        if self.takes_frames:  # of another size than the network's, or its resize would not be traced
            return torch.zeros(EXAMPLES, WINDOW, y + 24, x + 40, 3, dtype=torch.uint8)
        return torch.zeros(EXAMPLES, 3, WINDOW, y, x)

    def dynamic_shapes(self) -> tuple[dict[int, torch.export.Dim]]:
        """Which axes of the input may have any length."""
        dims = {0: torch.export.Dim("batch", min=1, max=1024)}
        if self.takes_frames:
            dims |= {2: torch.export.Dim("height", min=2, max=16384), 3: torch.export.Dim("width", min=2, max=16384)}
        return (dims,)


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """The graph as torch's own operators, for any batch (and any size of frames)."""
    with torch.no_grad():
        return torch.export.export(graph, (graph.example(),), dynamic_shapes=graph.dynamic_shapes())
