"""Training samples: frames of a video beside the stored maps of the same absolute frames.

Clips are drawn by place, of frames that are there; their maps and labels are found by number (store/numbering.py).

A sample is a function of (seed, epoch, index) and of nothing else, so a run that was killed goes on with the very
samples it would have drawn, and any number of loader processes give the same ones. Frames are decoded when a sample
is drawn, from the nearest key frame; the videos of a small set are kept in memory instead, once decoded, because many
short Python calls in a loader thread would hold up the thread that trains.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density
from tinyhd_pipe.stages.networks.network import Scaling
from tinyhd_pipe.stages.training.targets import TeacherMaps
from tinyhd_pipe.stages.video.clips import Clip, training_clip
from tinyhd_pipe.stages.video.index import kept_digest, read_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering


@dataclass(frozen=True)
class TrainingVideo:
    """A video that can be learned from: its frames, and what is known about where people look in it."""

    source: VideoSource
    frames: int
    """How many frames decode."""
    annotation: AnnotatedVideo | None = None
    """Density maps of this video, where people were recorded."""
    stored_as: str | None = None
    """The id of this video in the store of teacher maps; None where only density maps are learned."""
    digest: str | None = None
    """Of its content when the teacher saw it."""
    usable: NDArray[np.bool_] | None = None
    """(frame,) False where a frame or one of its maps is missing; None where none is."""
    numbering: Numbering = AS_THEY_COME
    """The absolute numbers of the frames."""


@dataclass(frozen=True)
class Batch:
    """What one training step sees."""

    clip: Tensor
    """float32 (batch, 3, frame, y, x), as the network's preprocessing gives it; channels last in memory."""
    maps: Mapping[str, Tensor]
    """Teacher maps, level -> float32 (batch, frame, y, x), one frame for each target frame; empty without a store."""
    density: Tensor
    """float32 (batch, frame, y, x); zero where not labelled."""
    labelled: Tensor
    """bool (batch,): every target frame of the sample has a density map."""
    outputs: Tensor
    """int64 (frame,): which output of a many-output network meets which target frame."""

    def room(self, samples: int, *, is_pinned: bool = False) -> "Batch":
        """Memory for so many samples like this one, with no values yet; pinned, a GPU reads it while others work."""

        def of(one: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
            shape = (samples, *one.shape[1:])
            return torch.empty(shape, dtype=one.dtype, memory_format=layout, pin_memory=is_pinned)

        return Batch(
            clip=of(self.clip, torch.channels_last_3d),
            maps={level: of(maps) for level, maps in self.maps.items()},
            density=of(self.density),
            labelled=of(self.labelled),
            outputs=self.outputs,
        )

    def put(self, place: int, sample: "Batch") -> None:
        """Write a batch of one into a place of this one.

        Raises DataError when one of them has teacher maps and the other has not: their mean would not be one loss.
        """
        if sample.maps.keys() != self.maps.keys():
            raise DataError("a batch mixes videos with and without teacher maps; dump all of them first")
        self.clip[place] = sample.clip[0]
        self.density[place] = sample.density[0]
        self.labelled[place] = sample.labelled[0]
        for level, maps in sample.maps.items():
            self.maps[level][place] = maps[0]

    def to(self, device: torch.device) -> "Batch":
        """The same on a device; a pinned batch is on its way there when this returns."""
        return Batch(
            clip=self.clip.to(device, non_blocking=True),
            maps={level: maps.to(device, non_blocking=True) for level, maps in self.maps.items()},
            density=self.density.to(device, non_blocking=True),
            labelled=self.labelled.to(device, non_blocking=True),
            outputs=self.outputs,
        )


Key = tuple[int, int]
"""A sample: epoch, and index in it."""
Terms = Callable[[Mapping[str, Tensor], Batch], dict[str, Tensor]]
"""(logits, batch) -> named terms of the loss, each a mean over the batch, nats."""


@dataclass(frozen=True)
class Sampling:
    """How clips are drawn."""

    outputs: int
    """Maps that the network gives for a clip: 1 (of its last frame) or 16 (of every frame)."""
    seed: int
    target_lag: int = 0
    """Frames by which targets run behind the clip; 1 reproduces the published 16-output training."""
    flip: bool = True
    """Mirror half of the samples: frames, density maps, and maps unless the store has the teacher's own of them."""
    unlabelled_per_labelled: float = 1.0
    """Clips of unlabelled videos in an epoch for each clip of a labelled one."""


KEPT_BYTES = 1 << 30
"""Decoded frames that are kept in memory; videos beyond it are decoded anew for every sample."""


class FrameReader:
    """Frames of videos at random: from memory for as many whole videos as `kept_bytes` hold, else from their files."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._left = kept_bytes
        self._kept: dict[str, NDArray[np.uint8]] = {}
        self.unreadable: dict[str, None] = {}
        """Density maps that were met and cannot be read: a line each, in the order in which they were met."""
        self._lock = Lock()

    def read(self, video: TrainingVideo, places: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The frames in these places, uint8 (frame, y, x, 3), as decoded.

        Raises VideoError for a frame that does not decode, DataError for a video that is not the one whose maps are
        known: its content is looked at when it is first read, so that a run over many videos begins at once.
        """
        key = video.source.where
        if key not in self._kept:
            if video.digest is not None and kept_digest(video.source) != video.digest:
                raise DataError(f"{video.source.where}: changed since the teacher saw it; run teacher-dump again")
            pictures = read_frames(video.source, video.numbering.numbers(places))
            self._keep(key, video, pictures[0].nbytes)
            return pictures
        return self._kept[key][places]

    def _keep(self, key: str, video: TrainingVideo, bytes_a_frame: int) -> None:
        if video.usable is not None and not video.usable.all():  # frames may be missing: ask for them one by one
            return
        with self._lock:
            if key in self._kept or bytes_a_frame * video.frames > self._left:
                return
            self._left -= bytes_a_frame * video.frames
        self._kept[key] = read_frames(video.source, video.numbering.numbers(np.arange(video.frames)))


class ClipDataset:
    """Random clips; items are asked for by (epoch, index), and index modulo the number of videos is the video."""

    def __init__(
        self,
        videos: Sequence[TrainingVideo],
        *,
        scaling: Scaling,
        sampling: Sampling,
        targets: TeacherMaps | None = None,
        frames: FrameReader | None = None,
    ) -> None:
        self.videos = videos
        self.scaling = scaling
        self.sampling = sampling
        self.targets = targets
        self.frames = frames or FrameReader()

    def epoch_keys(self, epoch: int, clips_per_video: int) -> list[tuple[int, int]]:
        """The items of one epoch in the order in which they are visited.

        `clips_per_video` clips of every labelled video and `unlabelled_per_labelled` times as many of unlabelled
        ones, taken in turn from a new order each epoch; of every video where none is labelled.
        """
        rng = np.random.default_rng((self.sampling.seed, epoch, 0))
        labelled = [position for position, video in enumerate(self.videos) if video.annotation is not None]
        others = [position for position, video in enumerate(self.videos) if video.annotation is None]
        wanted = len(labelled) * clips_per_video
        unlabelled = len(others) * clips_per_video
        if labelled:
            unlabelled = round(wanted * self.sampling.unlabelled_per_labelled) if others else 0
        positions = [*_taken_in_turn(labelled, wanted, rng), *_taken_in_turn(others, unlabelled, rng)]
        indices = [turn * len(self.videos) + position for turn, position in positions]
        return [(epoch, indices[place]) for place in rng.permutation(len(indices))]

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        video, clip, flip = self._drawn(key)
        return load_sample(video, clip, self.frames, scaling=self.scaling, targets=self.targets, flip=flip)

    def describe(self, key: tuple[int, int]) -> str:
        """Which video and which of its frames, counted from 0, a sample is made of."""
        video, clip, flip = self._drawn(key)
        first, last = video.numbering.numbers(clip.frames[[0, -1]])
        return f"{video.source.id} frames {first} to {last}{', mirrored' if flip else ''}"

    def _drawn(self, key: tuple[int, int]) -> tuple[TrainingVideo, Clip, bool]:
        """Video, clip, and whether it is mirrored: a function of (seed, epoch, index) alone."""
        epoch, index = key
        rng = np.random.default_rng((self.sampling.seed, epoch, 1 + index))
        video = self.videos[index % len(self.videos)]
        clip = training_clip(
            video.frames,
            outputs=self.sampling.outputs,
            rng=rng,
            every=self.targets.every if self.targets else 1,
            target_lag=self.sampling.target_lag,
            usable=video.usable,
        )
        return video, clip, self.sampling.flip and bool(rng.random() < 0.5)


def _taken_in_turn(positions: Sequence[int], wanted: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """`wanted` pairs (turn, position): every position once in a random order, then all again in another."""
    taken: list[tuple[int, int]] = []
    while positions and len(taken) < wanted:
        turn = len(taken) // len(positions)
        taken += [(turn, positions[place]) for place in rng.permutation(len(positions))]
    return taken[:wanted]


def load_sample(
    video: TrainingVideo,
    clip: Clip,
    reader: FrameReader,
    *,
    scaling: Scaling,
    targets: TeacherMaps | None,
    flip: bool = False,
) -> Batch:
    """Read the frames and the maps of one clip, as a batch of one; with `flip` all mirrored left to right.

    A sample whose density map cannot be read is not labelled, which `reader.unreadable` tells: hours of training must
    not end for one file.
    """
    places, where = np.unique(clip.frames, return_inverse=True)
    pixels = scaling.prepare(reader.read(video, places))[:, where]  # (3, T, H, W)
    frames = video.numbering.numbers(clip.targets)
    truth = _density(video, frames, scaling.size, reader.unreadable)
    labelled = truth is not None
    density = torch.zeros(len(frames), *scaling.size) if truth is None else truth

    def mirror(values: Tensor) -> Tensor:
        return values.flip(-1) if flip else values

    maps: dict[str, Tensor] = {}
    if targets is not None and video.stored_as is not None:
        held_against = mirror(density).numpy() if labelled else None
        read = targets.read(video.stored_as, frames, size=scaling.size, mirrored=flip, density=held_against)
        maps = {level: torch.from_numpy(read[level]) for level in read}  # (T, H, W)
    return Batch(
        clip=mirror(pixels)[None],
        maps={level: levels[None] for level, levels in maps.items()},
        density=mirror(density)[None],
        labelled=torch.tensor([labelled]),
        outputs=torch.from_numpy(clip.outputs),
    )


def _density(
    video: TrainingVideo, targets: NDArray[np.int64], size: tuple[int, int], unreadable: dict[str, None]
) -> Tensor | None:
    """Density maps of the target frames at the network's size, (T, H, W), or None if any of them is missing."""
    if video.annotation is None:
        return None
    try:
        read = [read_density(video.annotation, int(frame)) for frame in targets]
    except DataError as error:
        unreadable[str(error)] = None
        return None
    if any(density is None for density in read):
        return None
    stacked = torch.from_numpy(np.stack(cast(list[NDArray[np.float32]], read)))[:, None]  # (T, 1, H, W)
    return F.interpolate(stacked, size=size, mode="bilinear", align_corners=False, antialias=True)[:, 0]


def collate(samples: Sequence[Batch]) -> Batch:
    """Put samples together into one batch; raises DataError as `Batch.put` does."""
    batch = samples[0].room(len(samples))
    for place, sample in enumerate(samples):
        batch.put(place, sample)
    return batch
