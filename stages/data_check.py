"""What is in a data set: what pairs, what does not, and what is broken, before anything is learned from it.

Two kinds of findings: what is broken is wrong for anyone who uses the set (exit code 1), what is noted is left out or
mended by training and evaluation and is worth knowing. Cost without `decode`: names of all files, one pass over the
packets of each video, and a few maps of each; some 20 ms for a video of 800 frames. With it every frame and every map
is read, side by side on all cores.
"""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.label_files import PICTURES, read_fixation_file, read_grey
from tinyhd_pipe.stages.video.decoding import count_packets, decode, probe
from tinyhd_pipe.stages.video.numbers import spelled
from tinyhd_pipe.stages.video.sources import numbering_of, search_videos
from tinyhd_pipe.store.errors import DataError, VideoError

SAMPLED = 3
"""Maps of each kind of a video that are read without `decode`, evenly spread."""
NOISY = 4
"""A fixation map has noise where it has so many times as many pixels that are not black as bright ones."""


@dataclass(frozen=True)
class CheckedVideo:
    """What was found of one video."""

    video: str
    frames: int
    """Frames that are there: counted by packets, or by decoding; 0 where it is no video."""
    labelled: int
    """Those of them that have a density map."""
    fixations: float
    """Fixated pixels of a frame, on the mean over the fixation maps that were read; NaN without any."""
    broken: tuple[str, ...]
    """A line for each thing that is wrong."""
    noted: tuple[str, ...]
    """A line for each thing that training and evaluation leave out or mend."""


@dataclass(frozen=True)
class DataCheck:
    """What was found of a data set."""

    layout: str
    videos: tuple[CheckedVideo, ...]
    left_out: tuple[str, ...]
    """What belongs to no video with maps: annotations, videos, stray files; a line for each kind."""
    decoded: bool
    """Whether every frame and map was read; else a few maps of each video were."""

    @property
    def broken(self) -> int:
        """Videos of which something is wrong."""
        return sum(bool(video.broken) for video in self.videos)


def data_check(
    root: Path,
    layout: str | None = None,
    *,
    split: str | None = None,
    decode_all: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> DataCheck:
    """Look at a data set: names, numbers and a few maps of each video; with `decode_all` at every frame and map.

    `report` is told (videos done, videos in all). Raises as `find_annotated_videos` where nothing pairs at all.
    """
    found = find_annotated_videos(root, layout, split=split)
    checked = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for video in pool.map(partial(_checked, decode_all=decode_all), found.videos):
            checked.append(video)
            report(len(checked), len(found.videos))
    strays = () if split else tuple(map(str, search_videos([root]).left_out))
    return DataCheck(found.layout, tuple(checked), (*found.left_out, *strays), decoded=decode_all)


@dataclass(frozen=True)
class _Frames:
    """What is there of a video's frames."""

    numbers: NDArray[np.int64]
    size: tuple[int, ...] | None
    """Height and width; None where it is no video."""
    broken: list[str]
    noted: list[str]


def _checked(video: AnnotatedVideo, *, decode_all: bool) -> CheckedVideo:
    frames = _frames(video, decode_all=decode_all)
    maps = _maps(video, _some(video.density_maps, decode_all=decode_all), frames.size)
    fixations, points = _fixations(video, _some(video.fixations, decode_all=decode_all))
    there = frames.size is not None
    return CheckedVideo(
        video.source.id,
        frames=len(frames.numbers),
        labelled=len(set(frames.numbers.tolist()) & set(video.density_maps)),
        fixations=float(np.mean(points)) if points else float("nan"),
        broken=(
            *frames.broken,
            *(_without_frame(video, frames.numbers) if there else ()),
            *maps.broken,
            *fixations.broken,
        ),
        noted=(*frames.noted, *(_missing(video, frames.numbers) if there else ()), *maps.noted, *fixations.noted),
    )


def _frames(video: AnnotatedVideo, *, decode_all: bool) -> _Frames:
    """The frames that are there, what is wrong with them, and which are missing among them."""
    broken = []
    try:
        facts = probe(video.source)
        if decode_all:
            decoding = decode(video.source)
            count = sum(1 for _ in decoding)
            broken += [decoding.problem] if decoding.problem else []
        else:
            count = count_packets(video.source)
        numbers = numbering_of(video.source).numbers(np.arange(count))
    except VideoError as error:
        return _Frames(np.zeros(0, np.int64), None, [str(error)], [])
    return _Frames(numbers, (facts.height, facts.width), broken, _gaps(numbers))


def _gaps(numbers: NDArray[np.int64]) -> list[str]:
    """How the numbers of frames are not simply 0, 1, 2, ..."""
    steps = np.diff(numbers)
    step = int(steps.min()) if len(steps) else 1
    noted = [] if step == 1 else [f"of every {step} frames one is there"]
    lost = [n for gap in np.flatnonzero(steps > step) for n in range(numbers[gap] + step, numbers[gap + 1], step)]
    if lost:
        noted.append(f"{len(lost)} numbers missing among the frames: {spelled(lost)}")
    if len(numbers) and numbers[0]:
        noted.append(f"frames begin at {numbers[0]}")
    return noted


def _without_frame(video: AnnotatedVideo, numbers: NDArray[np.int64]) -> list[str]:
    """Labels of frames that are not there."""
    there = set(numbers.tolist())
    lines = []
    for kind, labels in (("density maps", video.density_maps), ("fixation maps", video.fixations)):
        if lost := [frame for frame in labels if frame not in there]:
            lines.append(f"{len(lost)} of {len(labels)} {kind} are of frames that are not there: {spelled(lost)}")
    return lines


def _missing(video: AnnotatedVideo, numbers: NDArray[np.int64]) -> list[str]:
    """Frames that have no label."""
    lines = []
    for kind, labels in (("density map", video.density_maps), ("fixation map", video.fixations)):
        lost = [frame for frame in numbers.tolist() if frame not in labels] if labels else []
        if lost:
            lines.append(f"{len(lost)} of {len(numbers)} frames have no {kind}: {spelled(lost)}")
    return [*lines, *([] if video.fixations else ["no fixation maps: no NSS, no AUC"])]


@dataclass(frozen=True)
class _Findings:
    broken: list[str]
    noted: list[str]


def _some(labels: Mapping[int, str], *, decode_all: bool) -> list[int]:
    frames = list(labels)
    if decode_all or len(frames) <= SAMPLED:
        return frames
    return [frames[place] for place in np.linspace(0, len(frames) - 1, SAMPLED).astype(int)]


def _maps(video: AnnotatedVideo, frames: Sequence[int], size: tuple[int, ...] | None) -> _Findings:
    """What is wrong with density maps of a video of this size, and what is noted of them."""
    unreadable, zero, sizes = [], [], Counter[tuple[int, ...]]()
    for frame in frames:
        try:
            density = read_grey(video.folder / video.density_maps[frame])
        except DataError as error:
            unreadable.append(str(error))
            continue
        zero += [] if density.any() else [frame]
        sizes[density.shape] += 1
    broken = _unreadable(unreadable, len(frames), "density maps")
    if len(sizes) > 1:
        broken.append(f"density maps of several sizes: {_sizes(sizes)}")
    noted = [f"{len(zero)} of {len(frames)} density maps read are black: {spelled(zero)}"] if zero else []
    if size is not None and sizes and size not in sizes:
        noted.append(f"density maps are {_sizes(sizes)}, frames {size[0]}x{size[1]}")
    return _Findings(broken, noted)


def _fixations(video: AnnotatedVideo, frames: Sequence[int]) -> tuple[_Findings, list[int]]:
    """The same of fixation maps, and how many points each has."""
    unreadable, noisy, points, sizes = [], [], [], Counter[tuple[int, ...]]()
    for frame in frames:
        path = video.folder / video.fixations[frame]
        try:
            fixations = read_fixation_file(path)
            noisy += [frame] if path.suffix.lower() in PICTURES and _is_noisy(read_grey(path)) else []
        except DataError as error:
            unreadable.append(str(error))
            continue
        points.append(int(fixations.sum()))
        sizes[fixations.shape] += 1
    broken = _unreadable(unreadable, len(frames), "fixation maps")
    if noisy:
        broken.append(
            f"{len(noisy)} of {len(frames)} fixation maps read have grey around their points, of JPEG or of a blur: "
            f"{spelled(noisy)}"
        )
    return _Findings(broken, _sizes_beside_maps(video, frames, sizes)), points


def _is_noisy(grey: NDArray[np.float32]) -> bool:
    return int((grey > 0).sum()) > NOISY * max(1, int((grey > grey.max() / 2).sum()))


def _sizes_beside_maps(video: AnnotatedVideo, frames: Sequence[int], sizes: Counter[tuple[int, ...]]) -> list[str]:
    for frame in frames:
        if frame in video.density_maps and sizes:
            try:
                density = read_grey(video.folder / video.density_maps[frame]).shape
            except DataError:
                continue
            if density not in sizes:
                return [f"fixation maps are {_sizes(sizes)}, density maps {density[0]}x{density[1]}: points are moved"]
            return []
    return []


def _unreadable(reasons: Sequence[str], count: int, kind: str) -> list[str]:
    return [f"{len(reasons)} of {count} {kind} read cannot be: {reasons[0]}"] if reasons else []


def _sizes(sizes: Counter[tuple[int, ...]]) -> str:
    return ", ".join(f"{count} of {'x'.join(map(str, size))}" for size, count in sizes.most_common())
