"""Stores of several teachers fused into one: the maps that training would fuse on the fly, written once.

Maps are fused by the code that training uses (training/targets.py), as distributions by weight, and stored as imported
maps are, with the maximum of each at .5 and the last code there (dump/map_files.py). The decision that is not obvious:
no video is needed. What a store knows of its videos is enough for plan, shards and a rerun after a kill. Maps of
mirrored clips are not carried over; a level that only some teachers have is fused over those. Cost: one read of all
stores, and 2 ms a map to encode.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice

import numpy as np
import torch

from tinyhd_pipe.stages.dump.fidelity import choose_levels, to_grid
from tinyhd_pipe.stages.dump.map_files import BRIGHTEST, prepared
from tinyhd_pipe.stages.networks.licence import ACCEPTED, combined, forbids_commerce, refuse_unasked
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.store.encoding import Floats
from tinyhd_pipe.store.errors import DataError, SettingError
from tinyhd_pipe.store.lock import exclusive
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.plan import Source
from tinyhd_pipe.store.reader import open_store
from tinyhd_pipe.store.schema import Description, Temporal
from tinyhd_pipe.store.shard import ShardWriter
from tinyhd_pipe.store.storage import open_storage
from tinyhd_pipe.store.writer import create_or_open, read_description

TOGETHER = 32
"""Frames that are read at once."""
SAMPLED_VIDEOS, SAMPLED_FRAMES = 4, 48
"""What grids and steps are chosen from: frames that are evenly spread over the first videos."""


@dataclass(frozen=True)
class Fused:
    """What fusing left."""

    store: str
    videos: int
    frames: int
    """Fused maps of each level that this run wrote."""
    already_there: int
    """Videos that were there before."""
    left_out: tuple[str, ...]
    """Videos that not all stores hold."""
    licence: str


def fuse_stores(
    urls: Sequence[str],
    weights: Sequence[float] | None,
    out: str,
    options: DumpOptions,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Fused:
    """Write the fused maps of every video that all stores hold and `out` does not have yet.

    Arguments:
        weights: one for each store, positive; only their ratios count. Equal ones where none are given.
        report: told (frames written, frames in all).

    Raises StoreError where a store is missing or `out` is of other teachers, SettingError for weights that do not fit,
    DataError where the stores hold different videos of one name, or no video in common.
    """
    if len(urls) < 2 or out in urls:
        raise SettingError(f"{', '.join(urls)}: expected two stores or more, and another one for --store")
    if weights is not None and (len(weights) != len(urls) or min(weights) <= 0):
        said = " ".join(f"{weight:g}" for weight in weights)
        raise SettingError(f"--weights {said}: expected a positive number for each of {len(urls)} stores")
    targets = Targets.of([open_store(url) for url in urls], weights)
    rows = {video: row for video in targets.videos if (row := targets.video(video)).rows}
    if not rows:
        raise DataError(f"{targets.urls}: hold no video in common; fuse stores of the same videos")
    with exclusive(open_storage(out)):
        for store in targets.stores if read_description(out) is None else ():
            facts = store.description.provenance
            allowed = options.allow_noncommercial or ACCEPTED.items() <= facts.items()
            refuse_unasked(str(facts.get("licence", "")), store.url, allowed=allowed)
        writer = create_or_open(out, _description(targets, rows, out, options))
        sources = [Source(row.id, row.digest, row.frames, _made_from(targets, row)) for row in rows.values()]
        plan = writer.plan(sources, shard_bytes=options.shard_bytes, prune=options.prune)
        left = [member.id for task in plan.todo for member in task.to_make]
        total = sum(_frames(targets, rows[video]) for video in left)
        done = 0
        for task in plan.todo:
            with writer.shard(task) as shard:
                for member in task.to_make:
                    for count in _write_video(shard, targets, rows[member.id], writer.description):
                        done += count
                        report(done, total)
    known = {video for store in targets.stores for video in store.videos}
    left_out = tuple(sorted(known - rows.keys()))
    return Fused(out, len(rows), done, len(rows) - len(left), left_out, combined(targets.licences))


def _frames(targets: Targets, row: VideoRow) -> int:
    return -(-row.frames // targets.every)


def _made_from(targets: Targets, row: VideoRow) -> str:
    """Digest of what the fused maps of a video follow from beside the video and the store's own facts."""
    facts = [(each.maps, each.failed) for store in targets.stores for each in (store.video(row.id),)]
    return sha256(repr(facts).encode()).hexdigest()


def _description(targets: Targets, rows: Mapping[str, VideoRow], out: str, options: DumpOptions) -> Description:
    """What the store says of itself; grids and steps of one that is there are kept."""
    size, said, total = targets.stores[0].description.teacher_grid, "as each teacher has it", sum(targets.weights)
    description = read_description(out)
    if description is None:
        samples = _samples(targets, rows, size)
        choices = choose_levels(samples, size=size, budget=options.fidelity, given=options.levels, top=0.0)
        description = Description(
            levels=tuple(choice.level for choice in choices),
            teacher_grid=size,
            teacher={},
            measured={one.level.name: {"kl": one.kl, "bytes_per_map": one.bytes_per_map} for one in choices},
            provenance={
                "licence": combined(targets.licences),
                "fused_from": [store.url for store in targets.stores],
                **(ACCEPTED if forbids_commerce(combined(targets.licences)) else {}),
            },
        )
    return replace(
        description,
        teacher_grid=size,
        teacher={
            "kind": "fused",
            "teachers": [dict(store.description.teacher) for store in targets.stores],
            "weights": [weight / total for weight in targets.weights],
            "preprocessing": {"maximum": BRIGHTEST},
        },
        temporal=Temporal(window=0, map_of=said, head=said, short_video=said, every=targets.every),
        budget=options.fidelity,
    )


def _samples(targets: Targets, rows: Mapping[str, VideoRow], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    pieces: dict[str, list[Floats]] = {}
    for row in islice(rows.values(), SAMPLED_VIDEOS):
        for _, fused in islice(_fused(targets, row, size), 1 + SAMPLED_FRAMES // TOGETHER):
            for level, logits in fused.items():
                pieces.setdefault(level, []).append(logits)
    if not pieces:
        raise DataError(f"{targets.urls}: no frame of which all have a valid map; fuse stores of the same videos")
    return {level: torch.from_numpy(np.concatenate(several)) for level, several in pieces.items()}


def _fused(targets: Targets, row: VideoRow, size: tuple[int, int]) -> Iterator[tuple[list[int], dict[str, Floats]]]:
    """(places, level -> logits (frame, y, x)) of the frames of a video that all stores have valid maps of."""
    places = np.arange(0, row.frames, targets.every)
    failed = set(row.numbering.places(row.failed).tolist())
    valid = np.array([place for place in places.tolist() if place not in failed], np.int64)
    for start in range(0, len(valid), TOGETHER):
        some = valid[start : start + TOGETHER]
        read = targets.read(row.id, row.numbering.numbers(some), size=size)
        yield (
            some.tolist(),
            {level: torch.stack([prepared(one, size) for one in maps]).numpy() for level, maps in read.items()},
        )


def _write_video(shard: ShardWriter, targets: Targets, row: VideoRow, description: Description) -> Iterator[int]:
    """Write one video; gives how many frames were written, time and again."""
    grids = {level.name: level.grid for level in description.levels}
    with shard.video(row.id, height=row.height, width=row.width, rate=row.rate) as video:
        for places, fused in _fused(targets, row, description.teacher_grid):
            logits = {level: to_grid(torch.from_numpy(maps), grids[level]).numpy() for level, maps in fused.items()}
            for at, place in enumerate(places):
                while video.next_frame < place:
                    video.mark_failed(video.next_frame)
                video.append({level: maps[at : at + 1] for level, maps in logits.items()})
            yield len(places)
        while video.next_frame < row.frames:
            video.mark_failed(video.next_frame)
        video.finish(row.frames, row.problem, numbering=row.numbering)
