"""Whether an exported file gives the maps of the network that it was made of: on real windows, before it gets its name.

The decision that is not obvious: what is compared is the file, loaded again by the runtime that others will use, with
the network as it predicts here, norms and all; and windows are given one at a time and several at once, since a batch
that was traced as a constant shows in nothing else. Cost: some dozen windows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.video.clips import WINDOW, student_window
from tinyhd_pipe.stages.video.index import frame_numbers, read_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import TinyHDError

DIFFERENCE = 1e-3
"""Largest difference of a map's values, in [0, 1], from those of the network here."""
WINDOWS = 4
"""Windows that are compared, from all videos."""
SYNTHETIC = (216, 320)
"""(y, x) of the frames that stand in where no video is given."""

Windows = NDArray[np.uint8]
"""(window, frame, y, x, 3)"""
Runs = Callable[[NDArray[Any]], Mapping[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Checked:
    """How far a file's maps are from the network's."""

    differences: Mapping[str, float]
    """Level -> largest difference of values in [0, 1]."""
    windows: int
    of: str
    """What the windows were cut from."""

    @property
    def largest(self) -> float:
        return float(np.max(list(self.differences.values())))


def windows_of(sources: Sequence[VideoSource], count: int = WINDOWS) -> list[tuple[str, Windows]]:
    """About `count` windows of videos, from their heads to their ends: (name of the video, windows).

    Without videos: noise that drifts, so that every layer has something to do. Raises VideoError for a video of which
    nothing decodes.
    """
    if not sources:
        return [("synthetic frames", _synthetic())]
    found = []
    each = -(-count // len(sources))
    for source in sources[:count]:
        numbers = frame_numbers(source)
        ends = np.linspace(0, len(numbers) - 1, each + 1).round().astype(int)[1:]
        found.append((source.id, np.stack([read_frames(source, numbers[student_window(int(end))]) for end in ends])))
    return found


def checked(network: Network, run: Runs, windows: Sequence[tuple[str, Windows]], *, takes_frames: bool) -> Checked:
    """`compared`; raises TinyHDError where maps differ by more than `DIFFERENCE`, or are not numbers."""
    found = compared(network, run, windows, takes_frames=takes_frames)
    if not found.largest <= DIFFERENCE:
        level = next(level for level, off in found.differences.items() if not off <= DIFFERENCE)
        raise TinyHDError(
            f"{level}: maps of the exported file differ from the network's by {found.largest:.1e} on {found.of}, "
            f"expected {DIFFERENCE:g} at most; nothing is kept, use another --format or version of its runtime"
        )
    return found


def compared(network: Network, run: Runs, windows: Sequence[tuple[str, Windows]], *, takes_frames: bool) -> Checked:
    """How far a file that is loaded again is from the network that it was made of.

    Arguments:
        run: the file, from its input to level -> maps.
        takes_frames: whether that is uint8 frames.
    """
    differences: dict[str, float] = {}
    for _, frames in windows:
        clips = torch.cat([network.preprocess(window) for window in frames])
        seen = frames if takes_frames else clips.numpy()
        for part in (slice(0, 1), slice(0, len(seen))):  # alone, then all at once
            expected = network(clips[part])
            for level, maps in run(np.ascontiguousarray(seen[part])).items():
                off = np.abs(maps - expected[level].numpy()).max()
                differences[level] = float(np.maximum(differences.get(level, 0.0), off))  # which keeps a NaN
    return Checked(differences, sum(len(frames) for _, frames in windows), ", ".join(name for name, _ in windows))


def _synthetic() -> Windows:
    rng = np.random.default_rng(0)
    y, x = SYNTHETIC
    coarse = torch.from_numpy(rng.random((2, 3, y // 8 + WINDOW, x // 8), dtype=np.float32))
    fine = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear", align_corners=False)
    pixels = (255 * fine).byte().permute(0, 2, 3, 1).numpy()  # (window, taller than y, x, 3)
    return np.stack([[picture[4 * frame : 4 * frame + y] for frame in range(WINDOW)] for picture in pixels])
