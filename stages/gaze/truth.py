"""What people looked at in the frames that are compared: what can be scored of it, and what is left out and why.

The decision that is not obvious: every annotation file of a video is read once before anything is predicted. That costs
2 ms a frame, a twentieth of scoring it, and one broken map among good ones costs its frame, is counted, and never the
hours that a network has spent on the video.

Shuffled AUC asks where people looked in other frames. Those are drawn by (seed, video, frame), from frames of other
videos where there are any, and kept as coordinates: some 300 bytes a frame, 20 MB for 60,000.
"""

import os
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density
from tinyhd_pipe.stages.gaze.label_files import read_fixation_file
from tinyhd_pipe.stages.gaze.metrics import Mask
from tinyhd_pipe.store.errors import DataError

Size = tuple[int, int]
"""(y, x)."""
OTHER_FRAMES = 10
"""Frames whose fixations are the negatives of shuffled AUC."""
KEPT_FRAMES = 65_536
"""Frames whose fixations are kept as coordinates."""


@dataclass(frozen=True)
class LeftOut:
    """Frames of a video that are annotated and not compared, or not as they are."""

    video: str
    count: int
    of: int
    """Frames that were to be compared."""
    reason: str
    is_out: bool = True
    """False where the frames are compared, and something was done to them."""

    def __str__(self) -> str:
        return f"{self.video}: {self.count} of {self.of} annotated frames {self.reason}"


@dataclass(frozen=True)
class Comparable:
    """The frames of one video that can be compared."""

    video: AnnotatedVideo
    frames: tuple[int, ...]
    """Absolute numbers, rising."""
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class _Points:
    """Fixations of one frame."""

    size: Size
    """Of the map that they were found in."""
    places: NDArray[np.int32]
    """(n,) places in the flattened map."""

    @classmethod
    def of(cls, mask: Mask) -> "_Points":
        return cls((mask.shape[0], mask.shape[1]), np.flatnonzero(mask).astype(np.int32))

    def on(self, size: Size) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """(y, x) of each on a map of `size`."""
        y, x = np.divmod(self.places.astype(np.intp), self.size[1])
        if size == self.size:
            return y, x
        return (2 * y + 1) * size[0] // (2 * self.size[0]), (2 * x + 1) * size[1] // (2 * self.size[1])


def _drawn(several: Sequence[_Points], size: Size) -> Mask:
    mask = np.zeros(size, dtype=bool)
    for points in several:
        mask[points.on(size)] = True
    return mask


@dataclass(frozen=True)
class Gaze:
    """Where people looked in all videos of a set."""

    videos: Mapping[str, AnnotatedVideo]
    frames: tuple[tuple[str, int], ...]
    """(video, frame) of all fixation maps, in the order of the set."""
    seed: int
    kept: dict[tuple[str, int], _Points | None] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, videos: Sequence[AnnotatedVideo], seed: int) -> "Gaze":
        frames = tuple((video.source.id, frame) for video in videos for frame in sorted(video.fixations))
        return cls({video.source.id: video for video in videos}, frames, seed)

    def fixations(self, video: str, frame: int, size: Size) -> Mask | None:
        """Where people looked at a frame, bool (y, x) of `size`, or None where it was not recorded.

        Fixations of another size are points, and are moved as points: the pixel whose share of height and width is
        theirs. Points that meet are one. Raises DataError for a file that cannot be read.
        """
        points = self.points(video, frame)
        return None if points is None else _drawn([points], size)

    def elsewhere(self, video: str, frame: int, size: Size) -> Mask:
        """Where people looked in 10 other frames, bool (y, x) of `size`; nowhere where there is no other.

        The frames are drawn from other videos, and from the same one only where it is alone. One that cannot be read
        is passed over. A function of the set, the seed, the video and the frame.
        """
        found: list[_Points] = []
        alone = not self.frames or self.frames[0][0] == self.frames[-1][0]
        drawn = generator_of(self.seed, video, frame, "other frames")
        for index in drawn.integers(len(self.frames), size=8 * OTHER_FRAMES).tolist() if self.frames else ():
            other, number = self.frames[index]
            if (other, number) == (video, frame) or (other == video and not alone):
                continue
            with suppress(DataError):
                if points := self.points(other, number):
                    found.append(points)
            if len(found) == OTHER_FRAMES:
                break
        return _drawn(found, size)

    def points(self, video: str, frame: int) -> _Points | None:
        """The fixations of a frame, kept for the next one who asks. Raises DataError for a file that cannot be read."""
        with suppress(KeyError):
            return self.kept[video, frame]
        annotated = self.videos[video]
        file = annotated.fixations.get(frame)
        points = _Points.of(read_fixation_file(annotated.folder / file)) if file else None
        if len(self.kept) >= KEPT_FRAMES:
            self.kept.clear()  # other threads may be reading: nothing is looked up twice
        self.kept[video, frame] = points
        return points

    def comparable(
        self, video: AnnotatedVideo, numbers: NDArray[np.int64], *, first: int = 0, every: int = 1
    ) -> Comparable:
        """Look at the annotation of a video's frames in the places first, first + every, ...

        `numbers` (frame,) are those of all frames that the video has. Maps of other frames are left out whatever
        `every` is.
        """
        there = set(numbers.tolist())
        chosen = set(numbers[first::every].tolist())
        asked = [frame for frame in sorted(video.density_maps) if frame in chosen or frame not in there]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            looks = threads.map(lambda frame: self._state(video, frame, there), asked)
            states = dict(zip(asked, looks, strict=True))
        counts = Counter(state.kind for state in states.values() if state.kind)
        first_of = {state.kind: state.said for state in reversed(states.values())}
        return Comparable(
            video,
            tuple(frame for frame, state in states.items() if state.counts),
            tuple(
                LeftOut(video.source.id, count, len(asked), first_of[kind], is_out=kind != "moved")
                for kind, count in counts.items()
            ),
        )

    def _state(self, video: AnnotatedVideo, frame: int, there: Collection[int]) -> "_State":
        if frame not in there:
            return _State(
                False, "no frame", f"are left out: the video has {len(there)} frames, and none of that number"
            )
        try:
            density = read_density(video, frame)
            points = self.points(video.source.id, frame)
        except DataError as error:
            return _State(False, "unreadable", f"are left out: {error}")
        if density is None:
            return _State(False, "empty", "are left out: their density map is zero everywhere")
        if points is not None and points.size != density.shape:
            were, are = ("x".join(map(str, size)) for size in (points.size, density.shape))
            return _State(True, "moved", f"have fixations of {were}, moved to the {are} of their density map")
        return _State(True, "", "")


@dataclass(frozen=True)
class _State:
    """Whether a frame counts, and what there is to say of it."""

    counts: bool
    kind: str
    said: str


def generator_of(seed: int, video: str, frame: int, purpose: str) -> np.random.Generator:
    """What is left to chance of one frame: a function of these four."""
    return np.random.default_rng((seed, zlib.crc32(video.encode()), frame, zlib.crc32(purpose.encode())))
