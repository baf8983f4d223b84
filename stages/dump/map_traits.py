"""What was done to maps before they were saved, as far as they show it: 8 bits, division by the maximum, a blur.

Published scripts truncate maps to 8 bits, blur them and divide each by its maximum; whoever learns from them should
know. The decision that is not obvious is the blur. A map that was blurred by a Gaussian of deviation s, whatever it was
before (it is nowhere negative), has log-curvature of -1/s² and more everywhere: exp(|r|²/2s²) times it is a sum of
exponentials, whose logarithm is convex. So the sharpest fall of log m that is seen bounds s from above, with no
threshold to choose. It tells what a blur cannot have been; a network's own smoothness looks the same. Cost: some
10 ms a map, of at most 48 maps of four videos.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DISTANCES = (1, 2, 4, 8)
"""Pixels over which curvature is taken: near ones see a sharp map, far ones see through the steps of 8 bits."""
LEAST, NEIGHBOUR = 0.5, 0.1
"""Shares of its maximum that a map has where curvature is taken, and beside it: below, steps of 8 bits are too high."""
SHARP = 1.5
"""Deviation in pixels below which no blur is spoken of."""


@dataclass(frozen=True)
class Traits:
    """What a sample of maps shows."""

    maps: int
    bits: int | None
    """8 or 16 where every value is one of so many levels; None for finer ones."""
    bits_how: str
    divided_by_maximum: bool
    divided_by_maximum_how: str
    blur: float | None
    """Largest deviation, pixels of the file, of a Gaussian blur that the maps may have had; None where that is none."""
    blur_how: str
    sizes: str
    """Height x width of the maps as they lie in their files, each once."""

    def facts(self) -> dict[str, Any]:
        """As plain data for a store."""
        return asdict(self)


def traits_of(maps: Iterable[NDArray[np.float32]]) -> Traits:
    """Of maps (y, x) on the scale of their files, each with a positive maximum."""
    seen = list(maps)
    bits, top = _bits(seen)
    at_top = sum(abs(float(one.max()) - top) <= 1e-6 * top for one in seen)
    blur = min(_widest_blur(one) for one in seen)
    levels = f"whole numbers of {2**bits} levels" if bits else "between the levels of 16 bits"
    return Traits(
        maps=len(seen),
        bits=bits,
        bits_how=f"the values of {len(seen)} sampled maps are {levels}",
        divided_by_maximum=at_top == len(seen),
        divided_by_maximum_how=f"the maximum of {at_top} of {len(seen)} sampled maps is {top:g}",
        blur=round(blur, 2) if blur >= SHARP else None,
        blur_how=f"log m of {len(seen)} sampled maps nowhere curves down by more than 1 / {blur:.2f}² a pixel²",
        sizes=", ".join(dict.fromkeys(f"{one.shape[0]}x{one.shape[1]}" for one in seen)),
    )


def _bits(maps: Sequence[NDArray[np.float32]]) -> tuple[int | None, float]:
    """How many bits the values have, and the value of the last level."""
    largest = max(float(one.max()) for one in maps)
    for bits, top in ((8, 255.0), (16, 65535.0)):
        for scale in (1.0, 1 / top):  # as whole numbers, or in [0, 1]
            levels = [one / np.float32(scale) for one in maps]
            fits = largest <= top * scale * (1 + 1e-6) and largest > scale
            if fits and all(np.abs(one - np.rint(one)).max() < 1e-3 * bits for one in levels):
                return bits, top * scale
    return None, largest


def _widest_blur(values: NDArray[np.float32]) -> float:
    """The largest deviation of a Gaussian blur that this map may have had, pixels; at most its smaller side."""
    log = np.log(np.maximum(values.astype(np.float64) / values.max(), 1e-9))
    steps = 0.5 / 255 * (2 / LEAST + 2 / NEIGHBOUR)  # what rounding to 8 bits may add to a second difference
    sharpest = 1 / min(values.shape) ** 2
    for distance in DISTANCES:
        for turned in (log, log.T):
            before, middle, behind = turned[: -2 * distance], turned[distance:-distance], turned[2 * distance :]
            counts = (middle >= np.log(LEAST)) & (np.minimum(before, behind) >= np.log(NEIGHBOUR))
            if counts.any():
                sharpest = max(sharpest, float(((2 * middle - before - behind)[counts].max() - steps) / distance**2))
    return float(1 / np.sqrt(sharpest))
