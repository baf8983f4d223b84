"""A network over a whole video: one final map for every frame that is asked for, in order.

Each frame is decoded once and scaled once. A teacher or a single-output student sees one window for each map, a
16-output student one window for 16 maps (the published strides). Windows reach back from their last frame; the head
of a video is padded as the network was taught: HD2S sees it reversed in time, TinyHD sees frame 0 repeated.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.clips import WINDOW, sliding_windows, student_window, teacher_window
from tinyhd_pipe.stages.networks import Network
from tinyhd_pipe.stages.video import VideoSource, decode, read_frames


@dataclass(frozen=True)
class Prediction:
    """The map of one frame."""

    frame: int
    """Absolute frame number, counted from 0."""
    map: NDArray[np.float32]
    """(y, x) in [0, 1], at the network's size."""
    picture: NDArray[np.uint8]
    """(y, x, 3), the frame as decoded."""


@dataclass(frozen=True)
class _Frame:
    number: int
    picture: NDArray[np.uint8]
    pixels: Tensor  # (3, H, W), scaled


def predict(network: Network, source: VideoSource, *, every: int = 1) -> Iterator[Prediction]:
    """Final maps of a video's frames 0, every, 2 * every, ..., by rising frame.

    Raises VideoError when nothing of the video decodes.
    """
    frames = _scaled(network, source)
    if network.kind == "hd2s":
        windows = ((window, window[-1:]) for _, window in sliding_windows(frames, every=every))
    else:
        windows = _student_windows(frames, every=every, outputs=network.outputs)
    for window, answered in windows:
        clip = torch.stack([frame.pixels for frame in window], dim=1)[None]  # (1, 3, T, H, W)
        maps = network(clip)["final"][0].cpu().numpy()
        maps = maps[None] if maps.ndim == 2 else maps[-len(answered) :]
        for frame, saliency in zip(answered, maps, strict=True):
            if frame.number % every == 0:
                yield Prediction(frame.number, saliency, frame.picture)


def predict_frame(network: Network, source: VideoSource, frame: int, *, frames: int) -> NDArray[np.float32]:
    """The final map of one frame of a video of `frames` frames, float32 (y, x) in [0, 1], from one window."""
    window = teacher_window(frame, frames) if network.kind == "hd2s" else student_window(frame)
    wanted, where = np.unique(window, return_inverse=True)
    maps = network(network.preprocess(read_frames(source, wanted)[where]))["final"][0]
    return (maps if maps.ndim == 2 else maps[-1]).cpu().numpy()


def _scaled(network: Network, source: VideoSource) -> Iterator[_Frame]:
    for number, picture in enumerate(decode(source)):
        yield _Frame(number, picture, network.scaling.prepare(picture[None])[:, 0])


def _student_windows(
    frames: Iterator[_Frame], *, every: int, outputs: int
) -> Iterator[tuple[list[_Frame], Sequence[_Frame]]]:
    """Windows of a TinyHD network and the frames that each of them answers for.

        one output:  0 0 ... 0 0 | 0 0 ... 0 1 | 0 0 ... 1 2 |     the last frame of each
        16 outputs:  0 1 ... 15  | 16 ... 31   | n-16 ... n-1      all; of the last one those not answered yet
    """
    held: deque[_Frame] = deque(maxlen=WINDOW)
    waiting: list[_Frame] = []
    for frame in frames:
        held.extend([frame] * (1 if held else WINDOW))
        waiting.append(frame)
        if len(waiting) == outputs:
            if outputs > 1 or frame.number % every == 0:
                yield list(held), waiting
            waiting = []
    if waiting:
        yield list(held), waiting
