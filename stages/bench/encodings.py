"""What a stored map costs in bytes and in fidelity: the store's encoding beside those that people use without it.

The live teacher's maps of real videos are packed by each encoding and unpacked again; KL(live ‖ stored) is taken on
normalised maps at the teacher's size. Our grids and steps are chosen as a dump chooses them, on the first frames of
the first videos, and measured on all frames here. Encodings of maps in [0, 1] store 0 for what is faint, which would
cost an infinite KL: such a pixel counts as half of the smallest value.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import numpy as np
import torch
import zarr
from PIL import Image
from torch import Tensor
from zarr.codecs import ZstdCodec

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.dump.fidelity import choose_levels, kl_of, to_grid, to_size
from tinyhd_pipe.stages.dump.identity import SAMPLED_FRAMES, SAMPLED_VIDEOS
from tinyhd_pipe.stages.networks.levels import LEVELS
from tinyhd_pipe.stages.networks.network import Network, Size
from tinyhd_pipe.stages.networks.teacher_maps import teacher_maps
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.codec import decode_chunk, encode_chunk
from tinyhd_pipe.store.encoding import CHUNK_FRAMES, Codes, Floats, look_up, map_table, pair_table, quantise
from tinyhd_pipe.store.schema import Level

BUDGETS = (2e-4, 1.5e-3)
FRAMES = 48
FLOAT16_FAINTEST = 2.0**-25
LINEAR_FAINTEST = 0.5 / 255
ROUNDS = 3


@dataclass(frozen=True)
class Packed:
    """The maps of one level of one video in one encoding."""

    bytes: int
    unpack: Callable[[], Floats]
    """Gives the maps in [0, 1] on the grid on which they are stored, float32 (frame, y, x)."""


@dataclass(frozen=True)
class EncodingFigure:
    """What one encoding costs."""

    name: str
    bytes_per_map: float
    kl: float
    """Mean KL(live ‖ stored) over levels and frames, nats."""
    worst_kl: float
    """The same of the level that it costs most."""
    maps_per_second: float
    """Decoded to float32 on the stored grid, in a second of one core."""


@dataclass(frozen=True)
class EncodingBenchmark:
    """Encodings compared on the same maps."""

    encodings: tuple[EncodingFigure, ...]
    levels: Mapping[str, Mapping[str, Size]]
    """Our encodings -> level -> the grid that was chosen."""
    maps: int
    """Maps of each level."""
    machine: Mapping[str, str]


Pack = Callable[[str, Tensor], Packed]
"""From a level's name and its live logits (frame, y, x) on their native grid."""


def bench_encodings(
    teacher: Network,
    sources: Sequence[VideoSource],
    *,
    frames: int = FRAMES,
    budgets: Sequence[float] = BUDGETS,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> EncodingBenchmark:
    """Run the teacher over the first frames of every video, and store its maps in every way.

    Arguments:
        frames: of each video.
        budgets: mean KL that our encoding may cost a level, nats.
        report: told (videos seen by the teacher, videos in all).

    Raises VideoError for a video that does not decode, SettingError when 8 bits cannot keep a budget.
    """
    live: list[dict[str, Tensor]] = []
    for source in sources:
        batches = [logits for _, logits in teacher_maps(teacher, islice(decode(source), frames))]
        # The levels that every teacher has, so that figures of several can be compared.
        live.append(
            {level: torch.cat([one[level].cpu() for one in batches]) for level in LEVELS if level in batches[0]}
        )
        report(len(live), len(sources))
    size = teacher.scaling.size
    chosen = {f"ours, budget {budget:g}": _chosen(live, size, budget) for budget in budgets}
    with TemporaryDirectory() as folder:
        packs = others(Path(folder), size) | {name: ours(levels) for name, levels in chosen.items()}
        figures = tuple(_figure(name, pack, live, size) for name, pack in packs.items())
    return EncodingBenchmark(
        encodings=figures,
        levels={name: {level.name: level.grid for level in levels} for name, levels in chosen.items()},
        maps=sum(len(video["final"]) for video in live),
        machine=machine(str(teacher.device)),
    )


def _chosen(live: Sequence[Mapping[str, Tensor]], size: Size, budget: float) -> list[Level]:
    sample = {level: torch.cat([video[level][:SAMPLED_FRAMES] for video in live[:SAMPLED_VIDEOS]]) for level in live[0]}
    return [choice.level for choice in choose_levels(sample, size=size, budget=budget)]


def ours(levels: Sequence[Level]) -> Pack:
    """The store's chunks, padding of the last one included."""
    by_name = {level.name: level for level in levels}

    def pack(name: str, logits: Tensor) -> Packed:
        level = by_name[name]
        small = to_grid(logits, level.grid).numpy()
        padded = np.concatenate([small, np.repeat(small[-1:], -len(small) % CHUNK_FRAMES, axis=0)])
        codes = quantise(padded, level.scale, level.offset).reshape(-1, CHUNK_FRAMES, *level.grid)
        chunks = [encode_chunk(chunk) for chunk in codes]
        pairs = pair_table(map_table(level.scale, level.offset))

        def unpack() -> Floats:
            maps = np.empty(codes.shape, np.float32)
            for chunk, values in zip(chunks, maps, strict=True):
                look_up(pairs, decode_chunk(memoryview(chunk), (CHUNK_FRAMES, *level.grid)), values)
            return maps.reshape(-1, *level.grid)[: len(small)]

        return Packed(sum(map(len, chunks)), unpack)

    return pack


def others(folder: Path, size: Size) -> dict[str, Pack]:
    """What people store maps as, at the teacher's size; zarr's files go to the folder."""

    def full(logits: Tensor) -> Floats:
        maps: Floats = to_size(logits, size).sigmoid().numpy()
        return maps

    return {
        "raw float16": lambda _, logits: _raw(full(logits)),
        "npz, float16": lambda _, logits: _npz(full(logits)),
        "zarr, float16, zstd": lambda _, logits: _zarr(folder, full(logits).astype(np.float16)),
        "zarr, 8 bit linear, zstd": lambda _, logits: _zarr(folder, _linear(full(logits))),
        "PNG, 8 bit linear": lambda _, logits: _png(_linear(full(logits))),
    }


def _raw(maps: Floats) -> Packed:
    raw = maps.astype(np.float16).tobytes()
    return Packed(len(raw), lambda: _floats(np.frombuffer(raw, np.float16).reshape(maps.shape)))


def _npz(maps: Floats) -> Packed:
    file = BytesIO()
    np.savez_compressed(file, maps=maps.astype(np.float16))

    def unpack() -> Floats:
        file.seek(0)
        with np.load(file) as archive:
            return _floats(archive["maps"])

    return Packed(file.getbuffer().nbytes, unpack)


def _zarr(folder: Path, values: np.ndarray) -> Packed:
    path = folder / str(len(list(folder.iterdir())))
    chunks = (CHUNK_FRAMES, *values.shape[1:])
    array = zarr.create_array(
        path, shape=values.shape, dtype=values.dtype, chunks=chunks, compressors=ZstdCodec(level=3)
    )
    array[:] = values
    stored = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return Packed(stored, lambda: _floats(np.asarray(array[:])))


def _png(values: Codes) -> Packed:
    files = []
    for picture in values:
        file = BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        files.append(file)
    stored = sum(file.getbuffer().nbytes for file in files)
    return Packed(stored, lambda: _floats(np.stack([np.asarray(Image.open(file)) for file in files])))


def _linear(maps: Floats) -> Codes:
    codes: Codes = np.rint(maps * np.float32(255)).astype(np.uint8)
    return codes


def _floats(values: np.ndarray) -> Floats:
    """Stored values as maps that have no zero."""
    maps: Floats
    if values.dtype == np.uint8:
        maps = np.maximum(values * np.float32(1 / 255), np.float32(LINEAR_FAINTEST))
    else:
        maps = np.maximum(values.astype(np.float32), np.float32(FLOAT16_FAINTEST))
    return maps


def _figure(name: str, pack: Pack, live: Sequence[Mapping[str, Tensor]], size: Size) -> EncodingFigure:
    stored, maps, seconds = 0, 0, 0.0
    costs = dict.fromkeys(live[0], 0.0)
    for video in live:
        for level, logits in video.items():
            packed = pack(level, logits)
            seconds += min(_seconds(packed.unpack) for _ in range(ROUNDS))
            unpacked = torch.from_numpy(packed.unpack()).double().clamp(max=1 - 1e-7).logit()
            costs[level] += kl_of(logits, unpacked, size) * len(logits)
            stored, maps = stored + packed.bytes, maps + len(logits)
    kl = [cost * len(costs) / maps for cost in costs.values()]
    return EncodingFigure(name, stored / maps, float(np.mean(kl)), max(kl), maps / max(seconds, 1e-9))


def _seconds(work: Callable[[], object]) -> float:
    started = process_time()
    work()
    return process_time() - started
