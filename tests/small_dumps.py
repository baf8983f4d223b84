"""Videos and a teacher so small that a whole dump takes a fraction of a second."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.writing import write_video

SIZE = (32, 32)
LENGTHS = {f"{place}.mp4": 9 + place for place in range(6)}
"""Frames of each video."""
BUDGET = 0.01
SHARD_BYTES = 1_500
"""About one of these videos a shard."""
OPTIONS = DumpOptions(fidelity=BUDGET, shard_megabytes=SHARD_BYTES / 2**20)
SETTINGS = (
    *("--set", "teacher_dump.precision=float32", "--set", f"teacher_dump.fidelity={BUDGET}"),
    *("--set", f"teacher_dump.shard_megabytes={SHARD_BYTES / 2**20}"),
)


def clip(frames: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    """A bright bar that runs over noise."""
    background = np.random.default_rng(seed).integers(0, 120, (48, 96, 3), dtype=np.uint8)
    for frame in range(frames):
        picture = background.copy()
        picture[8:40, 23 * frame % 80 : 23 * frame % 80 + 16] = 240
        yield picture


def write_videos(folder: Path, lengths: Mapping[str, int] = LENGTHS) -> Path:
    """Videos of these lengths in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, frames) in enumerate(lengths.items()):
        write_video(folder / name, clip(frames, seed))
    return folder


def write_teacher(path: Path, seed: int = 0) -> Path:
    """A teacher that answers for 16 frames at once."""
    module = TinyHD(decoders=("d1", "d2"), reduction=4, outputs=16, seed=seed)
    write_weights(path, module.state_dict(), {"kind": "tinyhd", "size": list(SIZE)})
    return path


def finished_shards(store: Path) -> list[Path]:
    """Manifests of the shards that are finished."""
    return sorted(store.glob("shards/*/zarr.json"))


def dump_of(videos: Path, weights: Path, store: Path, *more: str) -> list[object]:
    """The arguments of a dump."""
    where = ["--videos", videos, "--store", store, "--weights", weights]
    return ["teacher-dump", "--teacher", "tinyhd", "--json", *where, *SETTINGS, *more]
