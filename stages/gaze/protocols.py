"""The conventions by which published figures were made, by name: what is the same metric in name only differs in them.

The decision that is not obvious: a protocol is a frozen value and no code. Metrics take its conventions as arguments,
so what two protocols differ in can be read here, side by side, and nowhere else (docs/metrics.md says what it changes).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tinyhd_pipe.stages.gaze.auc import Curve
from tinyhd_pipe.stages.settings.evaluate import Postprocessing, ProtocolName


@dataclass(frozen=True)
class Protocol:
    """How figures are made of maps, fixations and density maps."""

    mean: Literal["frames", "videos"]
    """frames: over all frames; videos: over each video's frames first, so that short ones weigh as much as long ones"""
    nss_ddof: Literal[0, 1]
    """the deviation of NSS divides by N - this"""
    sim_min_max: bool
    """whether SIM scales both maps by minimum and maximum before their sums become 1"""
    auc: Curve
    noise: bool
    """whether AUC-Judd's ties are broken by noise"""
    shuffled: Literal["splits", "ranks"]
    """shuffled AUC over random splits in steps of .1, or exact over all pixels that were looked at elsewhere"""
    postprocessing: Postprocessing
    """what is done to predictions where nothing else is asked for"""
    source: str


PROTOCOLS: Mapping[ProtocolName, Protocol] = {
    "dhf1k": Protocol(
        mean="frames",
        nss_ddof=1,
        sim_min_max=True,
        auc="judd",
        noise=True,
        shuffled="splits",
        postprocessing="none",
        source="DHF1K's official MATLAB code (Wang et al., PAMI 2019), which is that of the MIT benchmark of 2014",
    ),
    "mit": Protocol(
        mean="frames",
        nss_ddof=0,
        sim_min_max=False,
        auc="ranks",
        noise=False,
        shuffled="ranks",
        postprocessing="none",
        source="MIT/Tübingen benchmark as of today, by pysaliency (Kümmerer, Wallis and Bethge, ECCV 2018)",
    ),
    "tinyhd": Protocol(
        mean="videos",
        nss_ddof=0,
        sim_min_max=True,
        auc="judd",
        noise=True,
        shuffled="splits",
        postprocessing="tinyhd",
        source="TinyHD's public code (Hu et al., WACV 2023), NumPy versions of the MATLAB metrics",
    ),
    "hollywood2": Protocol(
        mean="videos",
        nss_ddof=1,
        sim_min_max=False,
        auc="distinct",
        noise=False,
        shuffled="splits",
        postprocessing="none",
        source="UNISAL's public code for Hollywood-2 and UCF Sports (Droste, Jiao and Noble, ECCV 2020)",
    ),
}
