"""Where a dump takes its maps from: a network that makes them, or files in which others have left theirs.

Everything else of a dump is the same for both: plan, shards, workers, fidelity, verification. The decision that is not
obvious: a source gives *work*, functions that may be called in any thread, a batch of frames each. What has to be done
in the order of frames (decoding, cutting windows, reading a film of maps) is done before, what takes long within.
"""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from tinyhd_pipe.stages.networks.levels import STORED
from tinyhd_pipe.stages.networks.network import PROVENANCE, Network, Size
from tinyhd_pipe.stages.networks.teacher_maps import (
    WindowBatch,
    batch_logits,
    logits_at,
    teacher_maps,
    threads_for,
    window_batches,
)
from tinyhd_pipe.stages.video.decoding import Picture, decode
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.schema import Temporal


@dataclass(frozen=True, eq=False)
class Maps:
    """Some maps of a video, one after another."""

    logits: Mapping[str, Tensor]
    """Level -> float32 (frame, y, x)."""
    failed: Sequence[int] = ()
    """Places in the video of those of these frames that have no valid map; their rows are filling."""


Work = Callable[[Collection[str]], Maps]
"""Gives the maps of a batch of frames, of those of these levels that there are."""


class MapSource(Protocol):
    """Maps of any video, and what a store must say of them. Can be pickled where workers share a dump."""

    @property
    def size(self) -> Size:
        """(y, x) of the maps, at which storing them is measured."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What must be equal for two maps to be of one teacher."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Other facts that a store keeps of them."""

    @property
    def top(self) -> float | None:
        """Logit of the brightest pixel of any map, where it is known."""

    @property
    def threads(self) -> int:
        """How many threads should work."""

    def temporal(self, every: int) -> Temporal:
        """Which frames a map is made from."""

    def content(self, source: VideoSource) -> str:
        """Digest of what a video's maps follow from beside the video; empty where that is the identity alone."""

    def work(
        self, source: VideoSource, pictures: Iterator[Picture | None], every: int
    ) -> Generator[Work, None, str | None]:
        """What there is to do for every `every`-th frame of a video, by rising frame; returns in one line what its
        maps lack."""

    def sample(
        self, source: VideoSource, frames: int, levels: Collection[str], *, every: int = 1
    ) -> Mapping[str, Tensor]:
        """Level -> logits of the maps of every `every`-th of the first frames of a video, valid ones alone."""

    def at(self, source: VideoSource, row: VideoRow, frame: int, levels: Collection[str]) -> Mapping[str, Tensor]:
        """Level -> logits (1, y, x) of one absolute frame of a video that the store knows as `row`, by another way than
        `work`. Raises VideoError where a frame that it needs does not decode."""


@dataclass(frozen=True)
class LiveMaps:
    """A network as a source: every map is made from its window."""

    network: Network

    @property
    def size(self) -> Size:
        return self.network.scaling.size

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.network.identity

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {name: self.network.facts[name] for name in PROVENANCE}

    @property
    def top(self) -> float | None:
        return None

    @property
    def threads(self) -> int:
        return threads_for(self.network)

    def temporal(self, every: int) -> Temporal:
        if self.network.outputs == 1:
            return Temporal(every=every)
        return Temporal(
            map_of="every frame of the window", head="the first window", short_video="first frame repeated", every=every
        )

    def content(self, source: VideoSource) -> str:
        return ""

    def work(
        self, source: VideoSource, pictures: Iterator[Picture | None], every: int
    ) -> Generator[Work, None, str | None]:
        for batch in window_batches(self.network, pictures, every=every):
            yield partial(_answer, self.network, batch)
        return None

    def sample(
        self, source: VideoSource, frames: int, levels: Collection[str], *, every: int = 1
    ) -> Mapping[str, Tensor]:
        pictures = islice(decode(source), frames)
        batches = [logits for _, logits in teacher_maps(self.network, pictures, every=every, levels=levels)]
        return {level: torch.cat([logits[level].cpu() for logits in batches]) for level in batches[0]}

    def at(self, source: VideoSource, row: VideoRow, frame: int, levels: Collection[str]) -> Mapping[str, Tensor]:
        return logits_at(
            self.network,
            row.numbering.places([frame]),
            frames=row.frames,
            read=lambda places: read_frames(source, row.numbering.numbers(places)),
            levels=levels,
        )


def map_source(maps: Network | MapSource) -> MapSource:
    """A network as what makes maps; anything else as it is."""
    return LiveMaps(maps) if isinstance(maps, Network) else maps


def _answer(network: Network, batch: WindowBatch, levels: Collection[str] = STORED) -> Maps:
    failed = [frame.place for frame in batch.frames if not frame.decoded]
    return Maps(batch_logits(network, batch, levels), failed)
