"""A look into a store: frames of one video beside what was stored of them, as one picture.

Maps are drawn each by its own maximum (the caption says what that is), because saliency maps peak far below 1 and a
common scale would show nothing. Cost: one read of the frames' maps, and decoding the video where it is given.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.pictures.sheets import colour, sheet
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store.errors import StoreError, VideoError
from tinyhd_pipe.store.reader import FrameStatus, Store

Panel = NDArray[np.uint8]


@dataclass(frozen=True)
class ContactSheet:
    """What was drawn."""

    path: Path
    video: str
    frames: tuple[int, ...]
    """Absolute frames, one a row."""
    failed: tuple[int, ...]
    """Those of them that have no valid map; their panels are empty."""
    pictures: bool
    """Whether the frames themselves are beside the maps."""


def contact_sheet(
    store: Store, video: str, path: Path, *, frames: range, rows: int = 12, source: VideoSource | None = None
) -> ContactSheet:
    """Draw the levels of a video's frames, at most `rows` of them evenly spread over `frames`, into a PNG.

    `source` adds the frames themselves. Raises StoreError where the store has nothing of the video between those
    frames, VideoError where `source` is not the video that the teacher saw.
    """
    dumped = store.frames(video)
    there = [frame for frame in dumped.tolist() if frame in frames]
    if not there:
        raise StoreError(
            f"{video}: no map between frames {frames.start} and {frames.stop - 1} in {store.url}: "
            f"{len(dumped)} are there, from frame {dumped[0]} to {dumped[-1]}"
        )
    chosen = [there[place] for place in np.unique(np.linspace(0, len(there) - 1, rows).round().astype(int))]
    status = store.status(video, chosen)
    failed = [frame for frame, kind in zip(chosen, status, strict=True) if kind == FrameStatus.FAILED]
    drawn = [_row(store, video, frame, source, is_failed=frame in failed) for frame in chosen]
    sheet(drawn, path)
    return ContactSheet(path, video, tuple(chosen), tuple(failed), source is not None)


def frames_of(store: Store, video: str) -> int:
    """The number behind a video's last frame: of most, how many frames decoded.

    Raises StoreError, with what may have been meant, where there is no such video.
    """
    if video not in store.videos:
        near = difflib.get_close_matches(video, store.videos, n=1, cutoff=0) or ["nothing"]
        raise StoreError(f"{video}: not in {store.url}: it holds {len(store.videos)} videos, {near[0]} among them")
    facts = store.video(video)
    if not facts.frames:
        raise StoreError(f"{video}: gave no frame when it was dumped: {facts.problem}")
    return int(facts.numbering.numbers(facts.frames - 1)) + 1


def the_same_video(store: Store, video: str, sources: Sequence[VideoSource]) -> VideoSource:
    """The one of these videos that the store's maps are of, by content. Raises VideoError where none is."""
    wanted = store.video(video).digest
    for source in sorted(sources, key=lambda source: source.id != video):
        if digest(source) == wanted:
            return source
        if source.id == video:
            raise VideoError(f"{source.where}: changed since the teacher saw it; give the file of then, or no --videos")
    raise VideoError(f"{video}: not among the {len(sources)} videos given; give the video that was dumped")


def _row(
    store: Store, video: str, frame: int, source: VideoSource | None, *, is_failed: bool
) -> tuple[str, dict[str, Panel]]:
    """Caption and panels of one frame."""
    size = store.description.teacher_grid
    panels: dict[str, Panel] = {}
    peaks = []
    maps = {} if is_failed else store.read(video, [frame], size=size)
    if source is not None:
        panels["frame"] = np.zeros((*size, 3), np.uint8) if is_failed else read_frames(source, np.array([frame]))[0]
    for level in store.levels:
        panels[level] = colour(maps[level][0]) if maps else np.zeros((*size, 3), np.uint8)
        peaks += [f"{level} {maps[level].max():.2f}"] if maps else []
    said = f"brightest: {', '.join(peaks)}" if maps else "no valid map: it did not decode"
    return f"{video}, frame {frame}; {said}", panels
