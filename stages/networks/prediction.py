"""A network over a whole video: the final maps of the frames that are asked for, in order.

Run as a dump is run (teacher_maps.py): each frame is decoded and scaled once, windows are cut in one thread and
answered side by side in others, and HD2S sees neighbouring windows in runs that share work. What is not as in a dump is
the head of a video, which a network sees here as it was taught: HD2S reversed in time, TinyHD with frame 0 repeated.
Cost: one window for each frame of a one-output network, one for 16 frames of a 16-output one, of those windows alone
that answer for a frame that is asked for.
"""

from collections.abc import Collection, Container, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.networks.fused import fused
from tinyhd_pipe.stages.networks.inference import clips_of, scaled_frames
from tinyhd_pipe.stages.networks.layers.folding import folded
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.overlap import ahead, in_parallel
from tinyhd_pipe.stages.networks.teacher_maps import (
    BATCHES_AHEAD,
    WindowBatch,
    batch_logits,
    threads_for,
    window_batches,
)
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.video.clips import WINDOW, student_window, teacher_window
from tinyhd_pipe.stages.video.decoding import Picture, decode
from tinyhd_pipe.stages.video.index import frame_numbers, read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, numbering_of
from tinyhd_pipe.store.errors import VideoError

Map = NDArray[np.float32]


def fastest(network: Network) -> Network:
    """The same network for many videos, faster: a TinyHD with its norms folded into its convolutions (folding.py), and
    in float32 on a CPU its layers fused (fused.py) and frames scaled in one pass.

    Its maps are the same but for rounding. HD2S is as it was, and so is what runs in the published layout.
    """
    if not isinstance(network.module, TinyHD) or not network.fast_layout:
        return network
    if network.precision != "float32" or network.device.type != "cpu":
        return replace(network, module=folded(network.module))
    module = fused(network.module)
    return replace(network, module=module, scaling=replace(network.scaling, fast=module.aggregator.fused))


def predict(
    network: Network,
    source: VideoSource,
    frames: Container[int] | None = None,
    *,
    decoding: Iterator[Picture | None] | None = None,
) -> Generator[tuple[int, Map]]:
    """(absolute frame, final map (y, x) in [0, 1] at the network's size) of those `frames` that the video has, rising.

    A frame that is there and does not decode has the map of its neighbour's picture in its place.

    Arguments:
        frames: absolute numbers; all by default.
        decoding: the pictures of the video, not begun, for callers who ask afterwards what did not decode.

    Raises VideoError when nothing of the video decodes.
    """
    coming = window_batches(
        network,
        decoding or decode(source),
        numbering=numbering_of(source),
        wanted=frames,
        as_taught=True,
    )
    with closing(_side_by_side(network, coming)) as several:
        for answers in several:
            yield from answers


def predict_live(network: Network, pictures: Iterator[Picture | None]) -> Generator[tuple[int, Map]]:
    """(number, final map) of every picture of a stream, as they come: of a network of one output before the next
    picture is asked for, of 16 outputs before the 17th after it is.

    One window after the other, with all of torch's threads, since windows side by side would have to be waited for.
    """
    for batch in window_batches(replace(network, batch=1), pictures, as_taught=True):
        yield from _answers(network, batch)


def predict_still(network: Network, source: VideoSource, frames: Collection[int]) -> Iterator[tuple[int, Map]]:
    """The same of windows in which nothing moves: one frame, 16 times."""
    for answers in _side_by_side(network, _still_windows(network, source, frozenset(frames))):
        yield from answers


def predict_frame(network: Network, source: VideoSource, frame: int) -> NDArray[np.float32]:
    """The final map of one frame of a video, by its absolute number: float32 (y, x) in [0, 1], from one window.

    Raises VideoError where the video has no such frame, or a frame of its window does not decode.
    """
    numbers = frame_numbers(source)
    place = int(np.searchsorted(numbers, frame))
    if place == len(numbers) or numbers[place] != frame:
        raise VideoError(f"{source.where}: no frame {frame}; it has {len(numbers)} frames up to {numbers[-1]}")
    window = teacher_window(place, len(numbers)) if network.kind == "hd2s" else student_window(place)
    wanted, where = np.unique(window, return_inverse=True)
    maps = network(network.preprocess(read_frames(source, numbers[wanted])[where]))["final"][0]
    return (maps if maps.ndim == 2 else maps[-1]).cpu().numpy()


def _still_windows(network: Network, source: VideoSource, wanted: Collection[int]) -> Iterator[WindowBatch]:
    last = max(wanted, default=-1)
    for frame in scaled_frames(network.scaling, decode(source), numbering_of(source)):
        if frame.number > last:
            return
        if frame.number in wanted:
            yield WindowBatch(clips_of([[frame] * WINDOW]), [1], [0], [frame])


def _side_by_side(network: Network, batches: Iterator[WindowBatch]) -> Generator[list[tuple[int, Map]]]:
    with closing(ahead(batches, BATCHES_AHEAD)) as coming:
        yield from in_parallel(partial(_answers, network), coming, threads_for(network))


def _answers(network: Network, batch: WindowBatch) -> list[tuple[int, Map]]:
    maps = _final(network, batch).cpu().numpy()
    return [(frame.number, saliency) for frame, saliency in zip(batch.frames, maps, strict=True)]


def _final(network: Network, batch: WindowBatch) -> Tensor:
    """(frame, y, x) in [0, 1]."""
    logits: Tensor = batch_logits(network, batch, ("final",))["final"]  # made on the full grid by both networks
    return torch.sigmoid(logits)
