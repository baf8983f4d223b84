"""Small stores of smooth synthetic maps for the tests of the store."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinyhd_pipe.store import Description, Level, ShardTask, Source, StoreWriter, Temporal, create_or_open
from tinyhd_pipe.store.encoding import Floats, tolerance

LEVELS = {"final": (24, 32), "conspicuity_2": (12, 16)}


def describe(*, every: int = 1, weights: str = "abc", levels: Mapping[str, tuple[int, int]] = LEVELS) -> Description:
    """A store of a small teacher."""
    return Description(
        levels=tuple(Level.at_budget(name, grid) for name, grid in levels.items()),
        teacher_grid=(24, 32),
        teacher={"kind": "hd2s", "weights": weights},
        temporal=Temporal(every=every),
    )


def synthetic_logits(video_id: str, frames: int, levels: Mapping[str, tuple[int, int]] = LEVELS) -> dict[str, Floats]:
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


def sources_of(lengths: Mapping[str, int], changed: Mapping[str, str] | None = None) -> list[Source]:
    """Videos of these lengths; `changed` gives some another content."""
    digests = {video_id: f"digest of {video_id}" for video_id in lengths} | dict(changed or {})
    return [Source(video_id, digests[video_id], frames) for video_id, frames in lengths.items()]


def make_shard(writer: StoreWriter, task: ShardTask, lengths: Mapping[str, int], *, threads: int = 1) -> list[str]:
    """Write one shard as a dump does, maps a few at a time; returns the ids that were made rather than copied."""
    with writer.shard(task, threads=threads) as shard:
        for member in task.to_make:
            frames = lengths[member.id]
            live = synthetic_logits(member.id + member.digest, frames)
            with shard.video(member.id, height=48, width=64, rate="25/1") as video:
                for start in range(0, frames, 5):
                    video.append({level: maps[start : start + 5] for level, maps in live.items()})
                video.finish(frames, problem=None if frames else "no frames")
    return [member.id for member in task.to_make]


def write_store(
    path: Path | str,
    lengths: Mapping[str, int],
    *,
    changed: Mapping[str, str] | None = None,
    shard_bytes: int = 2**20,
    **options: bool,
) -> list[str]:
    """Dump videos of these lengths; returns the ids that were made."""
    writer = create_or_open(path, describe())
    with writer.exclusive():
        plan = writer.plan(sources_of(lengths, changed), shard_bytes=shard_bytes, **options)
        return [video_id for task in plan.todo for video_id in make_shard(writer, task, lengths)]


def live_logits(video_id: str, frames: int, digest: str | None = None) -> dict[str, Floats]:
    """What `write_store` stored."""
    return synthetic_logits(video_id + (digest or f"digest of {video_id}"), frames)


def assert_stored(read: Floats, live: Floats, scale: float) -> None:
    """Logits (frame, y, x) as read are those that were written, up to what storing them may change."""
    assert read.shape == live.shape
    for stored, written in zip(read, live, strict=True):
        assert (np.abs(stored - written) <= tolerance(written, scale) + 1e-4).all()


def content_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
