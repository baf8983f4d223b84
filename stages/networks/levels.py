"""The names of the hierarchical maps, as teachers and students answer with them.

A TinyHD network may have several decoders of one kind, as in the published ablation with three D1. The first of them
keeps the plain names; the maps of the n-th one have -n behind them (`conspicuity_2-2`, `d2-3`), so names never
collide, and what a map is compared with is the target of its plain name, whichever decoder made it.
"""

from collections import Counter
from collections.abc import Sequence

CONSPICUITY = ("conspicuity_2", "conspicuity_3", "conspicuity_4", "conspicuity_5")
"""Shallow to deep: of HD2S's four decoders; of TinyHD's D1, at H/2, H/4, H/8 and H/16."""
FINAL = "final"
"""The saliency map that they are fused to."""
LEVELS = (*CONSPICUITY, FINAL)
"""All maps that a hierarchical teacher gives of a frame."""
STORED = (*CONSPICUITY, "d2", "d3", FINAL)
"""All maps that a store may hold: a TinyHD network that teaches, as an assistant does, has D2's and D3's, too. Of
several decoders of a kind the first one's are stored: all of a student's answer to the target of the plain name."""

MIRRORED = {level: f"{level}_mirrored" for level in STORED}
"""The names of the same maps of the clip mirrored left to right, as the teacher gives them for that clip."""


def levels_of(decoders: Sequence[str]) -> list[tuple[str, ...]]:
    """The names of each decoder's maps: D1 has four, every other one is called as its decoder."""
    seen: Counter[str] = Counter()
    names = []
    for decoder in decoders:
        seen[decoder] += 1
        suffix = f"-{seen[decoder]}" if seen[decoder] > 1 else ""
        names.append(tuple(level + suffix for level in (CONSPICUITY if decoder == "d1" else (decoder,))))
    return names


def plain_level(level: str) -> str:
    """The level without the number of its decoder: of `conspicuity_2-3` conspicuity_2, of `final` final."""
    return level.partition("-")[0]
