"""The published way: the teacher in the loop, its maps made anew for every sample. It is the oracle of stored ones.

It has the face of `Targets`, so a run cannot tell which of them it learns from. Windows, head and preprocessing are
the dump's own (networks/teacher_maps.py), and a frame that does not decode shows its neighbour, as there; what is not
there is rounding to 8 bits and smaller grids. The maps are made in the threads that load samples, each with one thread
of torch, so they have the same bits in every run. Cost: a teacher's window for each target frame of every sample and
epoch (16 for an M student of HD2S), and each video decoded once at the start where no store knows its length.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from tinyhd_pipe.stages.networks.levels import MIRRORED, STORED
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.overlap import cores, in_parallel
from tinyhd_pipe.stages.networks.teacher_maps import logits_at
from tinyhd_pipe.stages.training.dataset import FrameReader, TrainingVideo
from tinyhd_pipe.stages.training.targets import Density, Maps, Targets, lacking, usable_frames, with_stand_ins
from tinyhd_pipe.stages.video.clips import WINDOW
from tinyhd_pipe.stages.video.index import kept_digest, kept_index
from tinyhd_pipe.stages.video.sources import VideoSource, numbering_of
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.numbering import AS_THEY_COME


@dataclass(frozen=True, eq=False)
class LiveTargets:
    """Teacher maps of videos, made when they are asked for."""

    teacher: Network
    rows: Mapping[str, VideoRow]
    """What is known of each video, by id."""
    sources: Mapping[str, VideoSource]
    every: int = 1
    """Only frames 0, every, 2 * every, ... are asked for."""
    stood_for: tuple[str, ...] = ()
    """Levels whose target is the final map where the teacher does not have them (`with_stand_ins`)."""
    sees_mirrored: bool = True
    """Of a mirrored sample the teacher sees the mirrored clip, as published; else its maps are mirrored."""
    kept: tuple[str, ...] = STORED
    """Levels that are learned, of those that the teacher has."""
    _reader: FrameReader = field(default_factory=FrameReader)

    @staticmethod
    def of(
        teacher: Network,
        sources: Sequence[VideoSource],
        *,
        stood_for: tuple[str, ...] = (),
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> "LiveTargets":
        """Every frame of these videos. Those that do not decode have no frames, and a problem that says why.

        `report` is told (videos decoded, videos in all).
        """
        rows = {}
        for done, row in enumerate(in_parallel(_look_at, iter(sources), cores()), start=1):
            rows[row.id] = row
            report(done, len(sources))
        return LiveTargets(teacher, rows, _by_id(sources), stood_for=stood_for)

    @staticmethod
    def instead_of(stored: Targets, teacher: Network, sources: Sequence[VideoSource]) -> "LiveTargets":
        """The very frames that are learned from stores, so that samples are the same; `teacher` made those maps."""
        held = set(stored.videos)
        rows = {source.id: stored.video(source.id) for source in sources if source.id in held}
        return LiveTargets(
            teacher,
            rows,
            _by_id(sources),
            every=stored.every,
            stood_for=stored.stood_for,
            sees_mirrored=all(store.mirrored for store in stored.stores),
            kept=tuple({level: None for store in stored.stores for level in store.levels}),
        )

    @cached_property
    def levels(self) -> tuple[str, ...]:
        """Levels that there is a target for; the teacher is asked once, for a black window."""
        black = np.zeros((WINDOW, *self.teacher.scaling.size, 3), np.uint8)
        maps = logits_at(self.teacher, np.array([WINDOW - 1]), frames=WINDOW, read=black.__getitem__, levels=self.kept)
        return tuple(with_stand_ins(maps, self.stood_for))

    @property
    def videos(self) -> list[str]:
        return sorted(self.rows)

    @property
    def licences(self) -> list[str]:
        """Terms of the teacher's weights."""
        return [str(self.teacher.facts["licence"])]

    @property
    def urls(self) -> str:
        return f"the {self.teacher.kind} teacher"

    @property
    def problems(self) -> dict[str, str]:
        """Video id -> one line, for those that do not decode, or not all of them."""
        return {video: row.problem for video, row in self.rows.items() if row.problem}

    def video(self, video: str) -> VideoRow:
        return self.rows[video]

    def read(
        self, video: str, frames: Any, *, size: tuple[int, int], mirrored: bool = False, density: Density = None
    ) -> Maps:
        """Maps of some frames, level -> float32 (frame, y, x) at `size`, as a store's reader would give them.

        Costs the windows that answer for these frames. Raises VideoError for a video that has changed.
        """
        row = self.rows[video]
        shown = _shown(row)
        seen = TrainingVideo(
            self.sources[video],
            row.frames,
            digest=row.digest,
            usable=usable_frames(row),
            numbering=row.numbering,
        )
        logits = logits_at(
            self.teacher,
            row.numbering.places(frames),
            frames=row.frames,
            read=lambda places: self._reader.read(seen, shown[places]),
            levels=[MIRRORED[level] for level in self.kept] if mirrored and self.sees_mirrored else self.kept,
        )
        if mirrored:
            turned = {level: logits[MIRRORED[level]] for level in STORED if MIRRORED[level] in logits}
            logits = turned or {level: maps.flip(-1) for level, maps in logits.items()}
        maps = {
            level: F.interpolate(one[:, None].cpu(), size=size, mode="bilinear", align_corners=False)[:, 0].sigmoid()
            for level, one in logits.items()
        }
        return with_stand_ins({level: one.numpy() for level, one in maps.items()}, self.stood_for)

    def facts(self) -> dict[str, Any]:
        """Whose maps these are, as a student's weights file tells it."""
        return {
            "teacher": self.teacher.identity,
            "online": True,
            "every": self.every,
            "sees_mirrored": self.sees_mirrored,
            "stood_for": list(self.stood_for),
        }

    def lacking(self, decoders: Sequence[str]) -> list[str]:
        """The maps of a student with these decoders that the teacher has no target for."""
        return lacking(decoders, self.levels)


def _by_id(sources: Iterable[VideoSource]) -> dict[str, VideoSource]:
    return {source.id: source for source in sources}


def _look_at(source: VideoSource) -> VideoRow:
    """A video's length and the frames that fail, by decoding all of it."""
    failed, problem, numbering = np.zeros(0, bool), "", AS_THEY_COME
    try:
        numbering = numbering_of(source)
        failed = ~kept_index(source).valid
        problem = f"{failed.sum()} of {len(failed)} frames do not decode" if failed.any() else ""
    except VideoError as error:
        problem = str(error)
    return VideoRow(
        id=source.id,
        digest=kept_digest(source),
        frames=len(failed),
        height=0,
        width=0,
        rate="",
        first_frame=0,
        rows=len(failed),
        first_row=0,
        problem=problem,
        failed=tuple(numbering.numbers(np.flatnonzero(failed)).tolist()),
        numbering=numbering,
    )


def _shown(row: VideoRow) -> NDArray[np.int64]:
    """(frame,) the place whose frame each one shows: its own, or where it did not decode the one before it, or after
    it at the start."""
    frames = np.arange(row.frames)
    decoded = np.setdiff1d(frames, row.numbering.places(row.failed))
    return decoded[np.maximum(np.searchsorted(decoded, frames, side="right") - 1, 0)]
