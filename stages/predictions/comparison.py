"""Frame, truth and every network's map side by side, of a few videos: one instant as a sheet, some seconds as a loop.

A map's brightest pixel is brightest, since saliency maps peak far below 1; in a loop that is the brightest of all its
instants, so that maps do not flicker. The loop is an animated WebP, which browsers and pages of code show as a picture.
Cost: the windows of the frames that are shown, and decoding the videos up to there.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density
from tinyhd_pipe.stages.gaze.metrics import resize_prediction
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.prediction import fastest, predict, predict_frame
from tinyhd_pipe.stages.pictures.sheets import colour_loop, moving_sheet, sheet
from tinyhd_pipe.stages.video.index import frame_numbers, read_frames

FRAMES, EVERY = 24, 2
"""Of a loop: how many, and from each to the next."""
LOOP_PANEL = 160
"""Width of a loop's panels, pixels: a few hundred kilobytes for three videos."""
MILLISECONDS = 80
"""A loop's frames are shown for so long."""

Pictures = NDArray[np.uint8]
"""(frame, y, x, 3)."""


def comparison_sheet(
    videos: Sequence[AnnotatedVideo], networks: Mapping[str, Network], path: Path, *, rows: int = 6
) -> Path:
    """Write a PNG that shows the middle labelled frame of some videos, spread over the list."""
    drawn = []
    for video in _spread(videos, rows):
        (frame,) = _middle(video, 1)
        maps = {name: predict_frame(network, video.source, frame)[None] for name, network in networks.items()}
        columns = _columns(video, [frame], maps)
        drawn.append((f"{video.source.id}, frame {frame}", {name: of[0] for name, of in columns.items()}))
    return sheet(drawn, path)


def comparison_loop(
    videos: Sequence[AnnotatedVideo], networks: Mapping[str, Network], path: Path, *, rows: int = 3
) -> Path:
    """Write an animated WebP that shows every second labelled frame around the middle of some videos."""
    ready = {name: fastest(network) for name, network in networks.items()}
    drawn = []
    for video in _spread(videos, rows):
        frames = _middle(video, FRAMES)
        maps = {
            name: np.stack([saliency for _, saliency in predict(network, video.source, frozenset(frames))])
            for name, network in ready.items()
        }
        drawn.append((video.source.id, frames, _columns(video, frames, maps)))
    instants = [
        [
            (
                f"{id_}, frame {frames[min(place, len(frames) - 1)]}",
                {name: of[min(place, len(of) - 1)] for name, of in columns.items()},
            )
            for id_, frames, columns in drawn
        ]
        for place in range(max(len(frames) for _, frames, _ in drawn))
    ]
    return moving_sheet(instants, path, milliseconds=MILLISECONDS, panel_width=LOOP_PANEL)


def _spread(videos: Sequence[AnnotatedVideo], count: int) -> list[AnnotatedVideo]:
    return [videos[place] for place in np.linspace(0, len(videos) - 1, min(count, len(videos))).astype(int)]


def _middle(video: AnnotatedVideo, count: int) -> list[int]:
    """Up to `count` labelled frames around the middle one, every second if there are several; that one if it is one."""
    labelled = sorted(set(video.density_maps) & set(frame_numbers(video.source).tolist()))
    middle = len(labelled) // 2
    return labelled[max(middle % EVERY, middle - count // 2 * EVERY) :: EVERY][:count]


def _columns(
    video: AnnotatedVideo, frames: Sequence[int], maps: Mapping[str, NDArray[np.float32]]
) -> dict[str, Pictures]:
    """Title of a column -> its pictures, of the frames' size."""
    pictures = read_frames(video.source, np.array(frames))
    size = pictures.shape[1:3]
    truths = [read_density(video, frame) for frame in frames]
    truth = np.stack([np.zeros(size, np.float32) if one is None else resize_prediction(one, size) for one in truths])
    resized = {name: np.stack([resize_prediction(one, size) for one in of]) for name, of in maps.items()}
    return {"frame": pictures, **{name: colour_loop(of) for name, of in {"truth": truth, **resized}.items()}}
