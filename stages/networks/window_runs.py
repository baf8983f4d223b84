"""What neighbouring windows of HD2S share, computed once: exact reuse, for a run of windows one frame apart.

Block 1 is a spatial convolution, which sees each frame by itself, and a temporal one of 7 frames and stride 2. Two
windows that are two frames apart have the same frames under it but at their ends, where one of them has zeros:

    stem frames       0 1 2 3 4 5 6 7 8 9 . . . . . . . .
    window 0, slots   0   1   2   3   4   5   6   7                2 to 6 see no end
    window 2, slots       0   1   2   3   4   5   6   7            its 2 to 5 are window 0's 3 to 6

So does all that follows and sees each slot by itself: pooling and the first half of block 2. Of a run of 8 windows
this leaves 2.9 spatial frames a window instead of 16, and 5 slots instead of 8.

Cost: three quarters of the time of as many windows apart, and the memory of a run's stem frames.
"""

from collections.abc import Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from tinyhd_pipe.stages.networks.layers.cpu import Conv3d
from tinyhd_pipe.stages.networks.s3d import S3DEncoder, separable
from tinyhd_pipe.stages.video.clips import WINDOW

INNER = 5
"""Slots of a window that do not see its ends: 2 to 6 of 0 to 7."""

TOGETHER = 40 << 20
"""Bytes of framewise features that the rest of the network sees at once: few windows of large frames, so that
threads do not wait for memory (by up to 1.5 times), many of small ones, where every layer's overhead counts."""


def features_of_run(encoder: S3DEncoder, frames: Tensor) -> Iterator[dict[int, Tensor]]:
    """The encoder's features of every 16 consecutive frames, of as many windows at a time as fit.

    Arguments and order as in `framewise_of_run`, features as in `S3DEncoder.forward`.
    """
    windows = framewise_of_run(encoder, frames)
    for first in windows:
        others = islice(windows, max(0, TOGETHER // first.nbytes - 1))
        yield encoder.behind(torch.cat([first, *others]))


def framewise_of_run(encoder: S3DEncoder, frames: Tensor) -> Iterator[Tensor]:
    """`encoder.framewise(encoder.block1(window))` of every 16 consecutive frames, in their order.

    Arguments:
        frames: (1, 3, 15 + windows, H, W).

    Yields (1, 192, 8, H/4, W/4) for each window, channels at width 1.
    """
    unit = separable(encoder.block1)
    temporal = unit.conv_t
    assert isinstance(temporal, Conv3d)
    stem = unit.spatial(frames)  # (1, 64, T, H/2, W/2)

    def slots(first: int, last: int, taps: slice = slice(None)) -> Tensor:
        """Slots that see the stem frames `first` to `last`, with those of the kernel's taps that fall on a frame."""
        block1: Tensor = unit.bn_t(temporal.inside(stem[:, :, first : last + 1], taps))
        return block1

    def ends(window: int) -> Tensor:
        """Slots 0, 1 and 7."""
        first, last = window, window + WINDOW - 1
        seen = [
            slots(first, first + 3, slice(3, 7)),
            slots(first, first + 5, slice(1, 7)),
            slots(last - 4, last, slice(0, 5)),
        ]
        return encoder.framewise(F.relu(torch.cat(seen, dim=2), inplace=True))

    windows = stem.shape[2] - WINDOW + 1
    inner = []  # of even windows, of odd ones
    for first in range(min(windows, 2)):
        last = windows - 1 - (windows - 1 - first) % 2
        inner.append(encoder.framewise(F.relu(slots(first + 1, last + WINDOW - 1), inplace=True)))
    for window in range(windows):
        shared = inner[window % 2][:, :, window // 2 : window // 2 + INNER]
        own = ends(window)
        yield torch.cat([own[:, :, :2], shared, own[:, :, 2:]], dim=2)
