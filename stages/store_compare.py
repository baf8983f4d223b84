"""How alike two teachers are, by their stores: KL and correlation of every level, and where they differ most.

TinyHD's authors saw that networks of equal score differ visibly, and that fusing them teaches best; here that is a
figure before a training. Maps are compared as what students learn from, distributions over the picture, at the first
store's size. The decision that is not obvious: KL is given both ways, because it is no distance: KL(A ‖ B) is large
where A sees something that B does not. Cost: one read of both stores and some 5 ms a map; `step` compares fewer frames.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from tinyhd_pipe.stages.gaze.metrics import cc
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.pictures.sheets import colour, sheet
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store.errors import DataError, VideoError
from tinyhd_pipe.store.reader import FrameStatus, Store, open_store

TOGETHER = 32
"""Frames that are read at once."""
MOST = 12
"""Videos and frames that are named."""
OF_A_VIDEO = 2
"""Frames of one video among those: neighbours look alike."""
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class LevelLikeness:
    """How alike the maps of one level are, over all frames that were compared."""

    kl: float
    """Mean KL(first ‖ second), nats."""
    kl_back: float
    """Mean KL(second ‖ first), nats."""
    cc: float
    """Mean correlation over the frames where neither map is flat; NaN where there is none."""


@dataclass(frozen=True)
class FrameDifference:
    """How far apart the maps of one frame are."""

    video: str
    frame: int
    kl: float
    """KL(first ‖ second) of the final maps (of the first common level where there are none), nats."""
    cc: float


@dataclass(frozen=True)
class VideoDifference:
    """The same of a video, as the mean over its frames."""

    video: str
    kl: float
    cc: float


@dataclass(frozen=True)
class Compared:
    """Two stores side by side."""

    first: str
    second: str
    videos: int
    frames: int
    levels: Mapping[str, LevelLikeness]
    most_different_videos: tuple[VideoDifference, ...]
    most_different_frames: tuple[FrameDifference, ...]
    only_in_first: tuple[str, ...]
    """Ids of videos that the other store does not have."""
    only_in_second: tuple[str, ...]


def compare_stores(
    first: str, second: str, *, step: int = 1, report: Callable[[int, int], None] = lambda done, total: None
) -> Compared:
    """Compare the maps of two stores on the frames for which both have valid ones.

    `step`: every `step`-th of these frames of a video is compared. `report` is told (videos done, videos in all).
    Raises StoreError where there is no store, DataError where they share no level or no frame, or where a video of one
    name is another one in each.
    """
    one, other = open_store(first), open_store(second)
    levels = [level for level in one.levels if level in other.levels]
    if not levels:
        raise DataError(f"{first} has {', '.join(one.levels)}, {second} {', '.join(other.levels)}: no level in common")
    shared = [video for video in one.videos if video in set(other.videos)]
    rows: list[tuple[str, int, NDArray[np.float64]]] = []
    for done, video in enumerate(shared):
        report(done, len(shared))
        rows += [(video, frame, figures) for frame, figures in _of_video(one, other, video, levels, step)]
    report(len(shared), len(shared))
    if not rows:
        raise DataError(f"{first}, {second}: no frame of which both have a map; compare stores of the same videos")
    figures = np.stack([each for _, _, each in rows])  # (frame, level, figure)
    lead = levels.index(FINAL) if FINAL in levels else 0
    by_frame = [FrameDifference(video, frame, *each[lead, [0, 2]].tolist()) for video, frame, each in rows]
    return Compared(
        first,
        second,
        videos=len({video for video, _, _ in rows}),
        frames=len(rows),
        levels={
            level: LevelLikeness(_mean(one[:, 0]), _mean(one[:, 1]), _mean(one[:, 2]))
            for level, one in zip(levels, figures.swapaxes(0, 1), strict=True)
        },
        most_different_videos=tuple(nlargest(MOST, _by_video(by_frame), key=lambda difference: difference.kl)),
        most_different_frames=tuple(_largest(by_frame)),
        only_in_first=tuple(video for video in one.videos if video not in set(shared)),
        only_in_second=tuple(video for video in other.videos if video not in set(shared)),
    )


def _of_video(
    one: Store, other: Store, video: str, levels: Sequence[str], step: int
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """(frame, (level, figure)) of a video; figures are KL, KL back, CC."""
    if one.video(video).digest != other.video(video).digest:
        raise DataError(f"{video}: {one.url} and {other.url} saw different videos of that name; dump it again")
    frames = one.frames(video)
    valid = [store.status(video, frames) == FrameStatus.VALID for store in (one, other)]
    frames = frames[valid[0] & valid[1]][::step]
    size = one.description.teacher_grid
    for start in range(0, len(frames), TOGETHER):
        some = frames[start : start + TOGETHER]
        mine, its = (store.read(video, some, size, levels=levels) for store in (one, other))
        figures = np.stack([_figures(mine[level], its[level]) for level in levels], axis=1)
        yield from zip(some.tolist(), figures, strict=True)


def _figures(one: Maps, other: Maps) -> NDArray[np.float64]:
    """(frame, figure): KL(one ‖ other), KL(other ‖ one), CC of maps (frame, y, x)."""
    p, q = (maps / maps.sum(axis=(-2, -1), keepdims=True, dtype=np.float64) for maps in (one, other))
    there, back = (rel_entr(*pair).sum(axis=(-2, -1)) for pair in ((p, q), (q, p)))
    return np.stack([there, back, [cc(*pair) for pair in zip(one, other, strict=True)]], axis=1)


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _by_video(frames: Sequence[FrameDifference]) -> list[VideoDifference]:
    of: dict[str, list[FrameDifference]] = {}
    for each in frames:
        of.setdefault(each.video, []).append(each)
    return [
        VideoDifference(video, float(np.mean([e.kl for e in several])), _mean(np.array([e.cc for e in several])))
        for video, several in of.items()
    ]


def _largest(differences: Sequence[FrameDifference]) -> list[FrameDifference]:
    """Those of largest KL, OF_A_VIDEO of a video at most."""
    taken: dict[str, int] = {}
    found = []
    for each in nlargest(len(differences), differences, key=lambda difference: difference.kl):
        if taken.get(each.video, 0) < OF_A_VIDEO:
            taken[each.video] = taken.get(each.video, 0) + 1
            found.append(each)
        if len(found) == MOST:
            break
    return found


def draw_difference(compared: Compared, path: Path, sources: Sequence[VideoSource] = ()) -> Path:
    """A PNG of the most different frames: both teachers' maps, and the frames themselves of videos that are given.

    Raises VideoError where one of these is another video than the teachers saw.
    """
    one, other = open_store(compared.first), open_store(compared.second)
    level = FINAL if FINAL in compared.levels else next(iter(compared.levels))
    by_id = {source.id: source for source in sources}
    size = one.description.teacher_grid
    rows = []
    for each in compared.most_different_frames:
        panels = {}
        if sources:
            panels["frame"] = _frame(by_id.get(each.video), one, each, size)
        for name, store in (("first", one), ("second", other)):
            panels[f"{name}: {level}"] = colour(store.read(each.video, [each.frame], size, levels=(level,))[level][0])
        rows.append((f"{each.video}, frame {each.frame}; KL {each.kl:.3f} nats, CC {each.cc:.3f}", panels))
    return sheet(rows, path)


def _frame(source: VideoSource | None, store: Store, each: FrameDifference, size: tuple[int, int]) -> NDArray[np.uint8]:
    if source is None:
        return np.zeros((*size, 3), np.uint8)
    if digest(source) != store.video(each.video).digest:
        raise VideoError(f"{source.where}: changed since the teachers saw it; give the file of then, or no --videos")
    picture: NDArray[np.uint8] = read_frames(source, np.array([each.frame]))[0]
    return picture
