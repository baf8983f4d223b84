"""Contenders: whatever has a map for some frames of a video, by one face, so that all of them are scored alike.

The decision that is not obvious: a contender is a name, an identity and one function. Networks differ from stores and
from folders of pictures in where maps come from, and in nothing that scoring asks for.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.prediction import fastest, predict, predict_still
from tinyhd_pipe.stages.settings.evaluate import Baselines
from tinyhd_pipe.store.errors import SettingError

CENTRE = "centre prior"
STILL = "{}, still frames"
Predictions = Iterator[tuple[int, NDArray[np.float32] | None]]
"""(absolute frame, map (y, x) in [0, 1]) by rising frame; None stands for the centred Gaussian."""


@dataclass(frozen=True)
class Contender:
    """Something whose maps are scored."""

    name: str
    identity: Mapping[str, Any]
    """What its maps are made by, as plain data: where this is equal, so are the maps of a video."""
    maps: Callable[[AnnotatedVideo, Collection[int]], Predictions]
    """The maps of those frames of a video that it has, of the ones that are asked for. Raises VideoError or DataError
    for a video that it has nothing of."""


def of_network(name: str, network: Network) -> Contender:
    """A teacher or student."""
    fast = fastest(network)
    return Contender(name, network.identity, lambda video, frames: predict(fast, video.source, frozenset(frames)))


def of_still_frames(name: str, network: Network) -> Contender:
    """The same network, shown every frame standing still: what motion is worth to it."""
    identity, fast = {**network.identity, "frames": "still"}, fastest(network)
    return Contender(STILL.format(name), identity, lambda video, frames: predict_still(fast, video.source, frames))


def centre_prior() -> Contender:
    """A centred Gaussian, because gaze is biased to the centre."""
    return Contender(CENTRE, {"kind": "centre"}, _centred)


def with_baselines(
    networks: Mapping[str, Network], others: Sequence[Contender], baselines: Baselines
) -> list[Contender]:
    """Everything that is scored, in the order of the table: networks, other contenders, baselines.

    Raises SettingError where two of them have one name.
    """
    contenders = [*(of_network(name, network) for name, network in networks.items()), *others]
    if baselines == "still" and networks:
        contenders.append(of_still_frames(*next(iter(networks.items()))))
    if baselines != "none":
        contenders.append(centre_prior())
    for name, count in Counter(contender.name for contender in contenders).items():
        if count > 1:
            raise SettingError(f"{name}: {count} rows would have this name; rename a file or folder")
    return contenders


def is_baseline(name: str) -> bool:
    """Whether the row of this name is one that a network must be seen to beat."""
    return name == CENTRE or name.endswith(STILL.format(""))


def _centred(video: AnnotatedVideo, frames: Collection[int]) -> Predictions:
    yield from ((frame, None) for frame in sorted(frames))
