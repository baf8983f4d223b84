"""Videos that are learned from their density maps, and what is left out of them and why.

Every map is read once before the first step: one that is black, or no picture, must never become a target, and one of
them must not cost a training that has run for hours. Cost: each video decoded once and each map read once, side by side
on all cores; some 3 ms a frame of 640x360.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, named, read_density
from tinyhd_pipe.stages.networks.overlap import cores, in_parallel
from tinyhd_pipe.stages.training.dataset import TrainingVideo
from tinyhd_pipe.stages.video.index import index_frames
from tinyhd_pipe.stages.video.sources import VideoSource, digest, numbering_of
from tinyhd_pipe.store.errors import DataError, VideoError

NO_FRAME = "density maps of frames that are not there"
BLACK = "density maps that are black"
UNREADABLE = "density maps that cannot be read"


@dataclass(frozen=True)
class Learnable:
    """What can be learned from."""

    videos: list[TrainingVideo]
    left_out: tuple[str, ...]
    """A line for each kind of thing that cannot: how many, and the first of them."""


@dataclass(frozen=True)
class _Looked:
    """One video, looked at."""

    id: str
    video: TrainingVideo | None
    problem: str | None
    """Why there is none."""
    maps: Mapping[str, int]
    """Kind of what cannot be learned from -> how many maps."""


def learnable(videos: Sequence[AnnotatedVideo]) -> Learnable:
    """These videos as something to learn from, without those that do not decode or have no map that is a target."""
    looked = list(in_parallel(_look_at, iter(videos), cores()))
    problems = [each.problem for each in looked if each.problem]
    return Learnable(
        [each.video for each in looked if each.video is not None],
        (
            *(f"{sum(counts.values())} {kind}, in {named(list(counts))}" for kind, counts in _by_kind(looked).items()),
            *problems,
        ),
    )


def labelled_videos(sources: Sequence[VideoSource], annotated: Sequence[AnnotatedVideo]) -> Learnable:
    """Those of these videos that are annotated, matched by path. Raises DataError where none is."""
    given = {source.path.resolve(): source for source in sources}
    matched = [video for video in annotated if video.source.path.resolve() in given]
    if not matched:
        raise DataError(
            f"none of the {len(sources)} videos given is labelled; give --labels DIR, or maps to learn from"
        )
    found = learnable(matched)
    by_path = {video.source.path.resolve(): video for video in found.videos}
    return Learnable(
        [replace(by_path[p], source=s, digest=digest(s)) for p, s in given.items() if p in by_path],
        (*unmatched(sources, annotated), *found.left_out),
    )


def unmatched(sources: Sequence[VideoSource], annotated: Sequence[AnnotatedVideo]) -> Iterable[str]:
    """What to say of labelled videos that are not among those given."""
    given = {source.path.resolve() for source in sources}
    if others := [video.source.id for video in annotated if video.source.path.resolve() not in given]:
        yield counted(others, "labelled", "not among those given")


def counted(ids: Sequence[str], kind: str, why: str) -> str:
    """A line on some videos."""
    of_kind = f"{kind} " if kind else ""
    return f"{len(ids)} {of_kind}video{'s' if len(ids) > 1 else ''} {why}: {named(ids)}"


def _look_at(video: AnnotatedVideo) -> _Looked:
    try:
        learned, maps = _training_video(video)
    except VideoError as error:
        return _Looked(video.source.id, None, str(error), {})
    if learned.usable is None or learned.usable.any():
        return _Looked(video.source.id, learned, None, maps)
    return _Looked(video.source.id, None, f"{video.source.where}: no frame has a density map to learn from", maps)


def _training_video(video: AnnotatedVideo) -> tuple[TrainingVideo, Mapping[str, int]]:
    """The video, and how many of its maps are no targets, by kind."""
    decoded = index_frames(video.source).valid
    numbering = numbering_of(video.source)
    numbers = numbering.numbers(np.arange(len(decoded)))
    kinds = [_kind_of(video, int(number)) if number in video.density_maps else None for number in numbers]
    counts = {kind: kinds.count(kind) for kind in (BLACK, UNREADABLE)}
    counts[NO_FRAME] = len(video.density_maps.keys() - set(numbers.tolist()))
    usable: NDArray[np.bool_] = decoded & np.array([kind == "" for kind in kinds])
    learned = TrainingVideo(video.source, frames=len(usable), annotation=video, usable=usable, numbering=numbering)
    return learned, {kind: count for kind, count in counts.items() if count}


def _kind_of(video: AnnotatedVideo, frame: int) -> str:
    """What is wrong with a map that is there; empty where nothing is."""
    try:
        return BLACK if read_density(video, frame) is None else ""
    except DataError:
        return UNREADABLE


def _by_kind(looked: Iterable[_Looked]) -> dict[str, dict[str, int]]:
    """Kind of what cannot be learned from -> video id -> maps."""
    kinds: dict[str, dict[str, int]] = {}
    for each in looked:
        for kind, count in each.maps.items():
            kinds.setdefault(kind, {})[each.id] = count
    return kinds
