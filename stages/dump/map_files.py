"""Files of maps that others have made, as what a dump takes its maps from.

Maps come as they are: 0 to 255 or 0 to 1, 8 bits or floats, divided by their maximum or not. What a student learns from
is their shape alone (maps are divided by their sums), so the decision that is not obvious is free: each map is scaled
so that its maximum is .5, which is logit 0, and the last of the 256 codes lies there. A map whose maximum is 1 has no
finite logit; with the codes around where networks' maps lie (encoding.py), what is 0 would become 2e-5, and there is so
much of it that a density map would cost KL 4e-3. With the codes below .5 nothing comes out at 2e-7 or more, and all
maps that were tried cost 1e-4 (docs/store-import-export.md). What is lost is how bright one map is beside another.

Cost: reading a map, some 2 ms, and bringing it to size, 1 ms; the video is decoded for the number of its frames.
"""

from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinyhd_pipe.stages.dump.map_source import Maps, MapSource, Work
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.networks.network import Size
from tinyhd_pipe.stages.networks.overlap import cores
from tinyhd_pipe.stages.predictions.map_reading import GivenMaps, Values, content_of, given_maps
from tinyhd_pipe.stages.video.decoding import Picture
from tinyhd_pipe.stages.video.numbers import spelled
from tinyhd_pipe.stages.video.sources import VideoSource, numbering_of
from tinyhd_pipe.store.errors import DataError, VideoError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.schema import Temporal

BRIGHTEST = 0.5
"""What the maximum of every map becomes."""
NOTHING = 1e-7
"""What is less, as a share of the maximum, is stored as this much, or as the lowest code."""
TOGETHER = 16
"""Maps that are brought to size together."""


@dataclass(frozen=True)
class Credit:
    """Whose maps they are."""

    teacher: str
    """Name of the network, or of whatever made them."""
    licence: str
    origin: str
    """Where they came from."""


@dataclass(frozen=True, eq=False)
class MapFiles:
    """Maps in files, by video."""

    credit: Credit
    places: Mapping[str, Path]
    """Id of a video to where its maps lie."""
    kind: str
    """What they are kept in: pictures, arrays or film."""
    size: Size = (192, 256)
    """(y, x) to which maps are brought: that at which students learn."""
    first: int | None = None
    """The number in the name of frame 0's map; None: as names are read everywhere."""
    traits: Mapping[str, Any] = field(default_factory=dict)
    """What the maps show of how they were saved, for a new store."""

    @property
    def identity(self) -> Mapping[str, Any]:
        scaling = {"size": list(self.size), "resize": "bilinear, antialiased", "maximum": BRIGHTEST, "least": NOTHING}
        return {"kind": "maps", "name": self.credit.teacher, "saved_as": self.kind, "preprocessing": scaling}

    @property
    def provenance(self) -> Mapping[str, Any]:
        return {"licence": self.credit.licence, "maps_from": self.credit.origin, "sampled_maps": dict(self.traits)} | (
            {} if self.first is None else {"first_name": self.first}
        )

    @property
    def top(self) -> float | None:
        return 0.0  # the logit of BRIGHTEST

    @property
    def threads(self) -> int:
        return cores()

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(str(place) for place in self.places.values())

    def absolute(self) -> "MapFiles":
        """The same for processes with other working directories."""
        return replace(self, places={video: place.absolute() for video, place in self.places.items()})

    def source(self, device: str | None = None) -> MapSource:
        return self

    def temporal(self, every: int) -> Temporal:
        said = "as whoever made the maps did it"
        return Temporal(window=0, map_of="the frame that its file names", head=said, short_video=said, every=every)

    def content(self, source: VideoSource) -> str:
        place = self.places.get(source.id)
        return "" if place is None else content_of(place, source, self.first)

    def given(self, source: VideoSource) -> GivenMaps:
        """The maps of a video as they lie there. Raises VideoError where there are none, or no files of maps."""
        place = self.places.get(source.id)
        if place is None:
            raise VideoError(f"{source.where}: has no maps among those given")
        try:
            return given_maps(place, source, self.first)
        except DataError as error:
            raise VideoError(str(error)) from error

    def work(
        self, source: VideoSource, pictures: Iterator[Picture | None], every: int
    ) -> Generator[Work, None, str | None]:
        found = _Found(self.given(source))
        numbering = numbering_of(source)
        batch: list[tuple[int, Values | None]] = []
        for place, picture in enumerate(pictures):
            if place % every == 0:
                batch.append((place, None if picture is None else found.take(int(numbering.numbers(place)))))
            if len(batch) == TOGETHER:
                yield partial(_answer, batch, self.size)
                batch = []
        if batch:
            yield partial(_answer, batch, self.size)
        return found.lacking()

    def sample(
        self, source: VideoSource, frames: int, levels: Collection[str], *, every: int = 1
    ) -> Mapping[str, Tensor]:
        if FINAL not in levels:
            return {}
        return {FINAL: torch.stack([prepared(one, self.size) for one in self.first_maps(source, frames)[::every]])}

    def first_maps(self, source: VideoSource, count: int) -> Sequence[Values]:
        """The first valid maps of a video, as they lie there. Raises VideoError where there is none."""
        given = self.given(source)
        found = _Found(given)
        maps = [one for frame in given.frames[:count].tolist() if (one := found.take(frame)) is not None]
        if not maps:
            raise VideoError(_of_place(self.places[source.id], found.lacking() or "holds no map"))
        return maps

    def at(self, source: VideoSource, row: VideoRow, frame: int, levels: Collection[str]) -> Mapping[str, Tensor]:
        found = _Found(self.given(source))
        values = found.take(frame)
        if values is None:
            raise VideoError(_of_place(self.places[source.id], found.lacking() or ""))
        return {FINAL: prepared(values, self.size)[None]}


def _of_place(place: Path, reason: str) -> str:
    return reason if reason.startswith(str(place)) else f"{place}: {reason}"


def prepared(values: Values, size: Size) -> Tensor:
    """A map (y, x) on any scale as it is stored: float32 logits of this size, 0 at its maximum."""
    shares = torch.from_numpy(values / values.max())[None, None]
    if shares.shape[-2:] != size:
        shares = F.interpolate(shares, size=size, mode="bilinear", antialias=True, align_corners=False)
    shares = shares[0, 0].clamp(min=0)
    return (shares / shares.max()).clamp(min=NOTHING).mul(BRIGHTEST).logit()


def _answer(batch: Sequence[tuple[int, Values | None]], size: Size, levels: Collection[str]) -> Maps:
    even = torch.full(size, -5.0)
    logits = [even if values is None else prepared(values, size) for _, values in batch]
    return Maps({FINAL: torch.stack(logits)}, [place for place, values in batch if values is None])


@dataclass
class _Found:
    """Takes maps of a video one by one, and remembers those that were not to be had."""

    given: GivenMaps
    missing: list[int] = field(default_factory=list)
    wrong: dict[int, str] = field(default_factory=dict)
    """Frame to what is wrong with its map."""

    def __post_init__(self) -> None:
        self.there = frozenset(self.given.frames.tolist())

    def take(self, frame: int) -> Values | None:
        """The map of a frame; None where there is none that one could learn from."""
        if frame not in self.there:
            self.missing.append(frame)
            return None
        try:
            values = self.given.read(frame)
        except (DataError, VideoError, OSError) as error:
            self.wrong[frame] = str(error)
            return None
        reason = next((reason for reason, is_wrong in _REASONS if is_wrong(values)), None)
        if reason is None:
            return values
        self.wrong[frame] = f"the map of frame {frame} {reason}"
        return None

    def lacking(self) -> str | None:
        said = [f"no maps of frames {spelled(self.missing)}"] if self.missing else []
        if self.wrong:
            others = f", and {len(self.wrong) - 1} more like it" if len(self.wrong) > 1 else ""
            said.append(f"{next(iter(self.wrong.values()))}{others}")
        return "; ".join(said) or None


_REASONS: tuple[tuple[str, Callable[[Values], bool]], ...] = (
    ("is not finite", lambda values: not np.isfinite(values).all()),
    ("is below 0 (logits, log-probabilities?); expected values of 0 and more", lambda values: bool(values.min() < 0)),
    ("is 0 everywhere", lambda values: not values.any()),
)
