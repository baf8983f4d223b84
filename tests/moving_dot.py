"""A video whose every frame tells its own number: a bright dot moves by two pixels a frame, and so do its maps."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store import Description, Level, Source, Store, create_or_open, open_store

SIZE = (32, 64)
STEP = 2
"""Pixels that the dot moves from frame to frame."""
LEVELS = ("conspicuity_2", "conspicuity_3", "conspicuity_4", "conspicuity_5", "final")


def dot(frame: int, row: int = 16) -> NDArray[np.float32]:
    """A Gaussian around the dot's place in this frame, float32 (y, x) with peak 1."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.exp(-((y - row) ** 2 + (x - 2 - STEP * frame) ** 2) / 8).astype(np.float32)


def column_of(picture: NDArray[np.floating]) -> int:
    """Where the dot is: the brightest column of (y, x)."""
    return int(np.asarray(picture).sum(axis=0).argmax())


def make_data(root: Path, *, videos: int = 4, frames: int = 24, labelled: int = 2) -> tuple[AnnotatedVideo, ...]:
    """Frame folders in the DHF1K layout below `root`; of them, the first `labelled` have density maps."""
    for number in range(1, videos + 1):
        pictures = root / "video" / f"{number:03d}"
        maps = root / "annotation" / f"{number:04d}" / "maps"
        pictures.mkdir(parents=True)
        for frame in range(frames):
            grey = (40 + 200 * dot(frame, row=8 + 4 * number)).astype(np.uint8)
            Image.fromarray(np.repeat(grey[..., None], 3, axis=2)).save(pictures / f"{frame + 1:04d}.png")
            if number <= labelled:
                maps.mkdir(parents=True, exist_ok=True)
                density = (255 * dot(frame, row=8 + 4 * number)).astype(np.uint8)
                Image.fromarray(density).save(maps / f"{frame + 1:04d}.png")
    return find_annotated_videos(root).videos


def make_store(path: Path, sources: list[VideoSource], *, frames: int = 24, slip: int = 0) -> Store:
    """A store of dots as maps of those videos; with `slip` the maps are that many frames late."""
    description = Description(
        levels=tuple(Level.at_budget(level, SIZE) for level in LEVELS),
        teacher_grid=SIZE,
        teacher={"kind": "dots"},
    )
    writer = create_or_open(path, description)
    with writer.exclusive():
        for task in writer.plan([Source(source.id, digest(source), frames) for source in sources]).todo:
            with writer.shard(task) as shard:
                for member in shard.to_make:
                    row = 8 + 4 * int(member.id)
                    logits = np.stack([-5 + 8 * dot(max(0, frame - slip), row=row) for frame in range(frames)])
                    with shard.video(member.id) as video:
                        video.append(dict.fromkeys(LEVELS, logits))
                        video.finish(frames)
    return open_store(path)
