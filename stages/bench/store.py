"""Random windows out of a store: our reader beside zarr's own slicing, a memory map and HDF5 of the very same codes.

All of them have to give equal codes before any is timed. What is counted is processor time of the whole process, so
that a reader with threads of its own gains nothing by them, and files lie in the page cache. Our reader is timed
without its cache of decoded chunks, which would give the answer away where the store is small, and once with it.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.video.clips import WINDOW
from tinyhd_pipe.store.encoding import Codes
from tinyhd_pipe.store.errors import StoreError, TinyHDError
from tinyhd_pipe.store.manifest import shard_folder
from tinyhd_pipe.store.reader import Store, open_store

ZARR = "zarr's own slicing"
ROUNDS = 5
WINDOWS = 100
COPIED_BYTES = 256 << 20
"""How much of the store is compared, as codes: more than a processor's caches and a reader's hold."""


@dataclass(frozen=True)
class Window:
    """Sixteen maps in a row of one video."""

    video: str
    frames: NDArray[np.int64]
    """Their absolute frames."""
    row: int
    """Where they start in the copies that are compared."""


Read = Callable[[Window], Mapping[str, Codes]]


@dataclass(frozen=True)
class ReaderFigure:
    """How fast one reader is."""

    name: str
    windows_per_second: float
    """Windows of all levels in a second of one core: median over the rounds."""
    spread: float
    """(slowest - fastest) / median over the rounds."""
    ratio: float
    """How many times as fast as zarr's own slicing."""


@dataclass(frozen=True)
class StoreBenchmark:
    """A comparison of readers, and what it was made on."""

    readers: tuple[ReaderFigure, ...]
    levels: Mapping[str, tuple[int, int]]
    """Level -> grid (y, x)."""
    maps: int
    """Maps of each level that windows were drawn from."""
    machine: Mapping[str, str]


def bench_store(
    url: str,
    *,
    windows: int = WINDOWS,
    rounds: int = ROUNDS,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> StoreBenchmark:
    """Read random 16-frame windows of all levels of a store in several ways.

    Arguments:
        windows: how many, drawn from the first videos of one shard (`COPIED_BYTES` of codes at most).
        rounds: how often each reader reads all of them, in turn.

    Raises StoreError where there is no store or no video of 16 maps in it, TinyHDError when two readers do not give
    equal codes: then no time is worth a look.
    """
    cold, warm = open_store(url, cache_bytes=0), open_store(url)
    shard, videos, rows = _sampled(cold)
    drawn = _draw(cold, videos, windows, seed)
    with _other_readers(cold, shard, rows) as others:
        codes: dict[str, Read] = {
            **others,
            "ours, codes": lambda at: cold.read_codes(at.video, at.frames),
            "ours, codes, with its cache": lambda at: warm.read_codes(at.video, at.frames),
        }
        refuse_different(codes, drawn)
        readers: dict[str, Callable[[Window], object]] = {
            **codes,
            "ours, float32 maps": lambda at: cold.read(at.video, at.frames),
        }
        seconds = _timed(readers, drawn, rounds, report)
    base = float(np.median(seconds[ZARR]))
    return StoreBenchmark(
        readers=tuple(_figure(name, len(drawn), taken, base) for name, taken in seconds.items()),
        levels={level.name: level.grid for level in cold.description.levels},
        maps=rows,
        machine={**machine(), **_versions()},
    )


def refuse_different(readers: Mapping[str, Read], windows: Sequence[Window]) -> None:
    """Raise TinyHDError, naming it, where a reader does not give the codes that the first one gives."""
    (truth, read), *others = readers.items()
    for window in windows:
        expected = read(window)
        for name, other in others:
            given = other(window)
            for level, codes in expected.items():
                if not np.array_equal(codes, given[level]):
                    place = f"{window.video}, frames {window.frames[0]} to {window.frames[-1]}, {level}"
                    raise TinyHDError(f"{place}: {name} and {truth} do not give equal codes: nothing was timed")


def _sampled(store: Store) -> tuple[int, dict[str, int], int]:
    """A shard, its first videos with the rows at which they start, and how many rows that is in all."""
    budget = COPIED_BYTES // sum(level.grid[0] * level.grid[1] for level in store.description.levels)
    for manifest in store.manifests:
        videos: dict[str, int] = {}
        rows = 0
        for row in map(manifest.row, range(len(manifest))):
            whole = row.first_frame == 0 and store.video(row.id).rows == row.rows and not row.failed
            if row.first_row + row.rows > budget and videos:
                break
            if whole and row.rows >= WINDOW:
                videos[row.id] = row.first_row
                rows = row.first_row + row.rows
        if videos:
            return manifest.number, videos, rows
    raise StoreError(f"{store.url}: no video with {WINDOW} maps: dump a longer one")


def _draw(store: Store, videos: Mapping[str, int], count: int, seed: int) -> list[Window]:
    """Windows at random, every window of these videos as likely as any other."""
    rng = np.random.default_rng(seed)
    names = list(videos)
    starts = np.array([store.video(name).rows - WINDOW + 1 for name in names])
    drawn = []
    for place in rng.choice(len(names), count, p=starts / starts.sum()):
        start = int(rng.integers(starts[place]))
        frames = store.frames(names[place])[start : start + WINDOW]
        drawn.append(Window(names[place], frames, videos[names[place]] + start))
    return drawn


@contextmanager
def _other_readers(store: Store, shard: int, rows: int) -> Iterator[dict[str, Read]]:
    """zarr on the store itself; memory map and HDF5 on copies in a temporary folder, made with zarr's slicing."""
    length = store.description.chunk_frames
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # numcodecs.delta is outside the specification, as zarr says
        group = zarr.open_group(store.url, mode="r")
        arrays: dict[str, Any] = {name: group[f"{shard_folder(shard)}/{name}"] for name in store.levels}
        folder = Path(stack.enter_context(TemporaryDirectory()))
        mapped: dict[str, Any] = {}
        files: dict[str, dict[str, Any]] = {}
        for name, array in arrays.items():
            codes = np.asarray(array[:rows])
            codes.tofile(folder / name)
            mapped[name] = np.memmap(folder / name, np.uint8, "r", shape=codes.shape)
            for packing in ("gzip", "lzf") if find_spec("h5py") else ():
                packed = _hdf5(folder / f"{name}.{packing}", codes, packing, length, stack)
                files.setdefault(f"h5py, {packing}", {})[name] = packed
        sliced = {ZARR: arrays, **files, "memory map of raw codes": mapped}
        yield {name: _slicing(sources) for name, sources in sliced.items()}


def _hdf5(path: Path, codes: Codes, packing: str, length: int, stack: ExitStack) -> Any:
    """A chunked, compressed HDF5 data set of the codes, open for reading and without a cache of chunks."""
    import h5py

    with h5py.File(path, "w") as file:
        file.create_dataset("codes", data=codes, chunks=(length, *codes.shape[1:]), compression=packing)
    return stack.enter_context(h5py.File(path, "r", rdcc_nbytes=0))["codes"]


def _slicing(sources: Mapping[str, Any]) -> Read:
    """Slice every level's array; a copy, as a training step needs one."""
    return lambda at: {name: np.array(source[at.row : at.row + WINDOW]) for name, source in sources.items()}


def _timed(
    readers: Mapping[str, Callable[[Window], object]],
    windows: Sequence[Window],
    rounds: int,
    report: Callable[[int, int], None],
) -> dict[str, list[float]]:
    """Processor seconds of each round, by reader."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for done in range(rounds):
        for name, read in readers.items():
            started = process_time()
            for window in windows:
                read(window)
            seconds[name].append(max(process_time() - started, 1e-9))
        report(done + 1, rounds)
    return seconds


def _figure(name: str, windows: int, seconds: Sequence[float], base: float) -> ReaderFigure:
    median = float(np.median(seconds))
    return ReaderFigure(name, windows / median, (max(seconds) - min(seconds)) / median, base / median)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("numpy", "zarr", "numcodecs", "h5py") if find_spec(name)}
