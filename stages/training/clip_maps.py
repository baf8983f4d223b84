"""Clips and their teacher maps, for people with a training loop of their own.

    from tinyhd_pipe.stages import ClipMaps
    data = ClipMaps("maps.zarr", "clips/")
    for clip, maps in torch.utils.data.DataLoader(data, batch_size=4, shuffle=True): ...

An item is what this package's own training sees, without its augmentation: a clip ends at the frame whose map is the
target, frame 0 repeats before the start. The decision that is not obvious: items are all clips that have a map,
`stride` frames apart, in a fixed order, so that whoever shuffles is the DataLoader. Cost: decoding from the key frame
before each clip; a video is decoded once as a whole in each process when it is first asked for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from tinyhd_pipe.stages.networks.network import Scaling
from tinyhd_pipe.stages.training.targets import Targets, usable_frames
from tinyhd_pipe.stages.video.clips import WINDOW, student_window
from tinyhd_pipe.stages.video.index import kept_digest, read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.errors import DataError, SettingError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.reader import open_store

Item = tuple[Tensor, dict[str, Tensor]]


class ClipMaps(Dataset[Item]):
    """(clip, maps) for `torch.utils.data.DataLoader`; can be pickled, so that loader processes open their own files."""

    def __init__(
        self,
        stores: str | Path | Sequence[str | Path],
        videos: str | Path | Sequence[str | Path],
        *,
        frames: int = WINDOW,
        size: tuple[int, int] = (192, 256),
        stride: int = 8,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Clips of those of these videos that all stores hold.

        Arguments:
            stores: one, or several that are fused as distributions, by `weights` where they are given.
            videos: files, folders of videos, folders of frames, as they were given to the dump.
            frames: in a clip; its last one is that of the maps.
            size: (y, x) of clips and maps.
            stride: frames between two clips of a video; rounded up to one that has maps.

        Raises StoreError where there is no store, DataError where none of the videos is in it or one has changed,
        SettingError for numbers below 1.
        """
        if min(frames, stride, *size) < 1:
            raise SettingError(f"frames {frames}, size {size}, stride {stride}: expected 1 and more")
        urls = [stores] if isinstance(stores, str | Path) else stores
        self._targets = Targets.of([open_store(url) for url in urls], weights)
        self._scaling = Scaling(mean=(0.0,) * 3, std=(255.0,) * 3, size=size)
        self._window = frames
        self._videos: list[tuple[VideoSource, VideoRow]] = []
        ends: list[tuple[int, int]] = []
        known = set(self._targets.videos)
        for source in find_videos([videos] if isinstance(videos, str | Path) else videos):
            if source.id in known:
                row = self._targets.video(source.id)
                ends += [(len(self._videos), place) for place in _ends(row, self._targets.every, stride)]
                self._videos.append((source, row))
        if not ends:
            raise DataError(f"{self._targets.urls}: holds no map of the videos given; give those that were dumped")
        self._ends: NDArray[np.int64] = np.array(ends, np.int64)
        """(item, 2) video, and place of the last frame."""

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> Item:
        """Clip float32 (3, frame, y, x) in [0, 1], RGB; level -> map float32 (y, x) of its last frame, in [0, 1], of
        several stores of sum 1. Raises IndexError behind the last one."""
        video, end = self._ends[index].tolist()
        source, row = self._videos[video]
        if kept_digest(source) != row.digest:
            raise DataError(f"{source.where}: changed since the teacher saw it; run teacher-dump again")
        places, where = np.unique(student_window(end, self._window), return_inverse=True)
        clip = self._scaling.prepare(read_frames(source, row.numbering.numbers(places)))[:, where]
        maps = self._targets.read(source.id, row.numbering.numbers([end]), size=self._scaling.size)
        return clip.contiguous(), {level: torch.from_numpy(one[0].copy()) for level, one in maps.items()}

    def frame(self, index: int) -> tuple[str, int]:
        """Id of the video, and absolute number of the last frame of an item."""
        video, end = self._ends[index].tolist()
        source, row = self._videos[video]
        return source.id, int(row.numbering.numbers(end))


def _ends(row: VideoRow, every: int, stride: int) -> list[int]:
    """Places of frames that have maps, about `stride` apart."""
    step = -(-stride // every) * every
    usable = usable_frames(row)
    return [place for place in range(0, row.frames, step) if usable is None or usable[place]]
