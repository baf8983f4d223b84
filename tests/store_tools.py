"""Small stores of smooth synthetic maps for the tests of the store."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyhd_pipe.store import Description, Level, Temporal, create_or_open
from tinyhd_pipe.store.encoding import Floats

LEVELS = {"final": (24, 32), "conspicuity_2": (12, 16)}


def describe(*, every: int = 1, weights: str = "abc", levels: Mapping[str, tuple[int, int]] = LEVELS) -> Description:
    """A store of a small teacher."""
    return Description(
        levels=tuple(Level.at_budget(name, grid) for name, grid in levels.items()),
        teacher_grid=(24, 32),
        teacher={"kind": "hd2s", "weights": weights},
        temporal=Temporal(every=every),
    )


def synthetic_logits(
    video_id: str, frames: int, levels: Mapping[str, tuple[int, int]] = LEVELS
) -> dict[str, Floats]:
    """A blob that wanders over a noisy background: float32 (frame, y, x) for each level, a function of the id."""
    rng = np.random.default_rng(zlib.crc32(video_id.encode()))
    y0, x0, speed = rng.random(3)
    time = np.arange(frames)[:, None, None]
    maps = {}
    for name, grid in levels.items():
        y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in grid), indexing="ij")
        distance = (y - y0 - 0.2 * np.sin(time * speed)) ** 2 + (x - x0 - 0.2 * np.cos(time * speed)) ** 2
        maps[name] = (-5 + 5 * np.exp(-distance * 20) + rng.normal(0, 0.1, grid)).astype(np.float32)
    return maps


def write_store(path: Path, lengths: Mapping[str, int]) -> Path:
    """A store with one shard of these videos."""
    writer = create_or_open(path, describe())
    with writer.shard(0) as shard:
        for video_id, frames in lengths.items():
            with shard.video(video_id, f"digest of {video_id}", height=48, width=64, rate="25/1") as video:
                video.append(synthetic_logits(video_id, frames))
                video.finish(frames)
    return path
