"""Maps that others have made become a store: of one level, `final`, for training, comparison and export.

The loop is that of every dump (dump/dumping.py): plan, shards, a rerun that ends with the same bytes, workers, refusal
of another teacher's maps. A video belongs to a store with the digest of its maps, so that changed maps are imported
again and nothing else is. Cost: some 3 ms a frame, beside decoding the video for the number of its frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tinyhd_pipe.stages.dump.dumping import Dumped, Listeners, dump
from tinyhd_pipe.stages.dump.identity import SAMPLED_FRAMES, SAMPLED_VIDEOS
from tinyhd_pipe.stages.dump.map_files import Credit, MapFiles
from tinyhd_pipe.stages.dump.map_traits import traits_of
from tinyhd_pipe.stages.networks.network import Size
from tinyhd_pipe.stages.predictions.map_places import find_maps
from tinyhd_pipe.stages.predictions.map_reading import kind_of
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError, VideoError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.reader import open_store
from tinyhd_pipe.store.writer import read_description

if TYPE_CHECKING:
    from tinyhd_pipe.stages.dump.cluster import Cluster


@dataclass(frozen=True)
class Given:
    """Maps that were found for some of the videos given."""

    maps: MapFiles
    sources: tuple[VideoSource, ...]
    """The videos that have maps."""
    without_maps: tuple[str, ...]
    """Ids of the others."""
    without_video: tuple[str, ...]
    """Places of maps that belong to none of the videos."""


@dataclass(frozen=True)
class Imported:
    """What an import left in the store, and what it passed over."""

    dumped: Dumped
    maps: int
    """Frames of the videos given that have a valid map in the store now."""
    left_over: Mapping[str, int]
    """Id of a video to how many of its maps are of frames that it does not have."""
    without_maps: tuple[str, ...]
    without_video: tuple[str, ...]


def find_given_maps(
    root: Path, sources: Sequence[VideoSource], credit: Credit, *, size: Size | None = None, first: int | None = None
) -> Given:
    """The maps below a folder that belong to these videos.

    Arguments:
        size: (y, x) to which maps are brought; 192x256, at which students learn, by default.
        first: the number in the name of frame 0's map, where names are not read as everywhere (video/numbers.py).

    Raises DataError where there are none, or where they are kept in files of several kinds.
    """
    found = find_maps(root, sources)
    kinds = {kind_of(place): place for place in found.of.values()}
    if len(kinds) > 1:
        (one, place), (other, its), *_ = kinds.items()
        raise DataError(f"{root}: {place} holds {one} and {its} {other}; import each kind into a store of its own")
    maps = MapFiles(credit, found.of, next(iter(kinds)), size or (192, 256), first)
    having = tuple(source for source in sources if source.id in found.of)
    return Given(maps, having, found.without_maps, found.without_video)


def with_traits(given: Given, url: str) -> MapFiles:
    """The same maps, and for a store that is new what they show of how they were saved.

    Raises VideoError where none of the first videos has a map that one could learn from.
    """
    if read_description(url) is not None:
        return given.maps
    samples, reasons = [], []
    for source in given.sources:
        try:
            samples.append(given.maps.first_maps(source, SAMPLED_FRAMES))
        except VideoError as error:
            reasons.append(str(error))
        if len(samples) == SAMPLED_VIDEOS:
            break
    if not samples:
        raise VideoError(reasons[0])
    every_third = islice((one for maps in samples for one in maps), 0, None, 3)  # neighbours show the same
    return replace(given.maps, traits=traits_of(every_third).facts())


def import_maps(
    given: Given, url: str, options: DumpOptions, listeners: Listeners, *, cluster: "Cluster | None" = None
) -> Imported:
    """Bring these maps of every video that the store does not have yet into it.

    Raises StoreError when the store is of another teacher or another dump writes to it, VideoError when no video or no
    map can be read. A frame without a map is failed in the store, and its video listed with what it lacks.
    """
    maps = with_traits(given, url)
    dumped = dump(given.sources, url, maps, options, listeners, cluster)
    store = open_store(url)
    known = set(store.videos)
    there = [source for source in given.sources if source.id in known]  # others cannot be read
    rows = [store.video(source.id) for source in there]
    valid = sum(row.rows - len(row.failed) for row in rows)
    left_over = {
        row.id: count for row, source in zip(rows, there, strict=True) if (count := _left_over(row, source, maps))
    }
    return Imported(dumped, valid, left_over, given.without_maps, given.without_video)


def _left_over(row: VideoRow, source: VideoSource, maps: MapFiles) -> int:
    """How many maps are of frames that the video does not have."""
    if not row.frames:
        return 0
    frames = maps.given(source).frames
    return int((~np.isin(frames, row.numbering.numbers(np.arange(row.frames)))).sum())
