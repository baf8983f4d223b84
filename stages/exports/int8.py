"""A student in 8 bits: calibrated on some clips, judged on others, refused where it costs too much.

NNCF quantises the OpenVINO graph after training: it runs the calibration windows and gives every convolution and the
activations that it reads a range of 8 bits. The decision that is not obvious: what it costs is measured on videos that
were not calibrated on, and stands in the file. No layer has to stay in float32: the published students lose .004 nats
with all of them quantised. Cost: half a minute for 24 windows. On a processor without units for 8 bits in 3D depthwise
layers it is hardly faster than OpenVINO's float32, and our fused kernels are faster than both (docs/export.md).
"""

import contextlib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tinyhd_pipe.stages.exports.check import Runs, windows_of
from tinyhd_pipe.stages.exports.packages import needed
from tinyhd_pipe.stages.gaze.metrics import cc, nss
from tinyhd_pipe.stages.networks.divergence import kl_divergence
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import SettingError, TinyHDError

CALIBRATED, JUDGED = 24, 12
"""Windows, from all videos."""
HELD_OUT = 4
"""One video of so many is judged on where none is given for that."""
PEAKS = 0.99
"""Quantile of a float32 map from which its pixels stand for fixations."""
SMALLEST = 1e-12


@dataclass(frozen=True)
class Int8:
    """How a student is brought to 8 bits."""

    calibrate: Sequence[VideoSource]
    """Videos whose windows tell the ranges of activations."""
    judge: Sequence[VideoSource] = ()
    """Videos that it is judged on; by default every fourth of those, which then tell no range."""
    max_loss: float = 0.02
    """Largest mean KL(float32 ‖ int8), nats."""


@dataclass(frozen=True)
class Loss:
    """What 8 bits cost, on windows of videos that were not calibrated on: the final maps against those in float32."""

    kl: float
    """Mean KL(float32 ‖ int8), nats."""
    worst_kl: float
    """The largest of one window."""
    cc: float
    """Mean correlation."""
    nss: float
    """Mean NSS in 8 bits, where the highest 1 % of the float32 map's pixels stand for fixations."""
    nss_float32: float
    """The float32 map's own, at the same pixels: what is lost is the difference."""
    windows: int
    calibrated_on: tuple[str, ...]
    judged_on: tuple[str, ...]
    max_loss: float

    def facts(self) -> dict[str, Any]:
        """As they stand in the file."""
        return asdict(self)


def split(wanted: Int8) -> tuple[list[VideoSource], list[VideoSource]]:
    """The videos that are calibrated on, and those that are judged on; none is both.

    Raises SettingError where that leaves one of the two empty.
    """
    if wanted.judge:
        judged = {source.path.resolve() for source in wanted.judge}
        calibrated = [source for source in wanted.calibrate if source.path.resolve() not in judged]
        held_out = list(wanted.judge)
    else:
        held_out = list(wanted.calibrate[HELD_OUT - 1 :: HELD_OUT]) or list(wanted.calibrate[-1:])
        calibrated = [source for source in wanted.calibrate if source not in held_out]
    if not calibrated:
        raise SettingError(
            "--calibrate: no video is left that is not judged on; give two or more, or others with --videos"
        )
    return calibrated, held_out


def quantised(model: Any, network: Network, sources: Sequence[VideoSource], *, takes_frames: bool) -> Any:
    """An `openvino.Model` in 8 bits, calibrated on windows of these videos.

    Raises SettingError where the package is missing, VideoError for a video of which nothing decodes.
    """
    os.environ.setdefault("NNCF_CI", "1")  # else it tells its maker of every use
    nncf = needed("nncf", "--int8")
    nncf.set_log_level(logging.ERROR)
    seen = [
        _input(network, window, takes_frames=takes_frames)
        for _, some in windows_of(sources, CALIBRATED)
        for window in some
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        return nncf.quantize(model, nncf.Dataset(seen), preset=nncf.QuantizationPreset.MIXED, subset_size=len(seen))


def judged(network: Network, run: Runs, wanted: Int8, *, takes_frames: bool) -> Loss:
    """What the file costs. Raises TinyHDError where that is more than allowed."""
    calibrated, held_out = split(wanted)
    found: list[tuple[float, float, float, float]] = []
    for _, some in windows_of(held_out, JUDGED):
        for window in some:
            expected = network(network.preprocess(window))[FINAL]
            maps = torch.from_numpy(run(_input(network, window, takes_frames=takes_frames))[FINAL])
            found.append(_compared(expected.flatten(0, -3), maps.flatten(0, -3)))
    kl, correlation, here, float32 = np.mean(found, axis=0).tolist()
    loss = Loss(
        kl=kl,
        worst_kl=max(each[0] for each in found),
        cc=correlation,
        nss=here,
        nss_float32=float32,
        windows=len(found),
        calibrated_on=tuple(source.id for source in calibrated),
        judged_on=tuple(source.id for source in held_out),
        max_loss=wanted.max_loss,
    )
    if not loss.kl <= wanted.max_loss:
        raise TinyHDError(
            f"--int8: costs {loss.kl:.4f} nats on {', '.join(loss.judged_on)}, expected {wanted.max_loss:g} at most; "
            "nothing is kept: calibrate on more clips of the kind, or allow more with --max-loss"
        )
    return loss


def _compared(expected: torch.Tensor, maps: torch.Tensor) -> tuple[float, float, float, float]:
    """KL, CC, NSS in 8 bits and in float32 of maps (map, y, x), means."""
    logits = maps.double().logit(SMALLEST)
    kl = float(kl_divergence(expected.double(), logits))
    pairs = list(zip(expected.double().numpy(), maps.double().numpy(), strict=True))
    peaks = [right >= np.quantile(right, PEAKS) for right, _ in pairs]
    return (
        kl,
        float(np.mean([cc(made, right) for right, made in pairs])),
        float(np.mean([nss(made, peak) for (_, made), peak in zip(pairs, peaks, strict=True)])),
        float(np.mean([nss(right, peak) for (right, _), peak in zip(pairs, peaks, strict=True)])),
    )


def _input(network: Network, window: NDArray[np.uint8], *, takes_frames: bool) -> NDArray[Any]:
    return window[None] if takes_frames else network.preprocess(window).numpy()
