"""Numbers in names: which absolute frame a picture of a folder is, or which frame a map belongs to.

The rule, for frames and labels alike: a file's number is the last run of digits in its name (`0010.png`,
`frame_10.jpg`, `Diving-Side_001_010.png` are all 10), where the folder's names differ in it alone. Names count from 1,
so that 10 is frame 9 and `0001.png` frame 0; but where a folder holds a 0 its names count from 0, and 10 is frame 10.
Nothing is shifted to begin at 0: a folder that begins at `0010.png` begins at frame 9, one that lacks `0004.png` has no
frame 3, and of every 5th frame frames 0, 5, 10 are there.

A few pictures that are named otherwise (a cover) are no frames. Where no number tells most names apart, or the numbers
are longer than nine digits (times, not frames), frames are numbered as they come, in natural order.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering

LONGEST = 9
"""Digits of a number of frames; what is longer is a time or a date."""
STRETCHES = 5
"""Stretches of numbers that a line names."""
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)", re.DOTALL)


@dataclass(frozen=True)
class NumberedNames:
    """The names of a folder's frames in their order, and what numbers those are."""

    names: tuple[str, ...]
    """Without those that are no frames."""
    numbering: Numbering
    base: int
    """The number in the name of frame 0: 1, or 0 where names count from 0."""
    numbered: bool
    """Whether numbers come from names; else frames are numbered as they come."""


def numbered_names(names: Sequence[str]) -> NumberedNames:
    """The frames among these names of pictures, by the rule above. Raises ValueError where two have one number."""
    parts = {name: found for name in names if (found := number_in(name)) is not None}
    around = Counter((before, behind) for before, _, behind in parts.values())
    usual, count = around.most_common(1)[0] if around else (("", ""), 0)
    if count * 10 < len(parts) * 9 or count * 2 <= len(names):
        return NumberedNames(tuple(sorted(names, key=natural)), AS_THEY_COME, 0, numbered=False)
    numbers = {name: number for name, (before, number, behind) in parts.items() if (before, behind) == usual}
    taken = sorted(numbers, key=lambda name: numbers[name])
    base = 0 if numbers[taken[0]] == 0 else 1
    for one, other in pairwise(taken):
        if numbers[one] == numbers[other]:
            raise ValueError(f"{one} and {other} are both number {numbers[one]}; keep one of them")
    return NumberedNames(tuple(taken), Numbering.of([numbers[name] - base for name in taken]), base, numbered=True)


def number_in(name: str) -> tuple[str, int, str] | None:
    """What stands before the last number of a file's name, the number, and what stands behind it but the ending.

    None for a name without a number, or with one that is too long to be a frame's.
    """
    stem = stem_of(name)
    if stem.isdecimal() and len(stem) <= LONGEST:  # as most names are
        return "", int(stem), ""
    found = _LAST_NUMBER.fullmatch(stem)
    if found is None or len(found[2]) > LONGEST:
        return None
    return found[1], int(found[2]), found[3]


def stem_of(name: str) -> str:
    """A file's name without its ending: text, since a path of each of a million names takes seconds."""
    return name.rpartition(".")[0] or name


def ending_of(name: str) -> str:
    """A file's ending in small letters, with its dot."""
    return name[len(stem_of(name)) :].lower()


def spelled(numbers: Sequence[int]) -> str:
    """Numbers that rise, in words: `3 to 7, 12`; the first few stretches of many."""
    stretches: list[list[int]] = []
    for number in numbers:
        if stretches and number == stretches[-1][1] + 1:
            stretches[-1][1] = number
        else:
            stretches.append([number, number])
    words = [f"{first} to {last}" if last > first else str(first) for first, last in stretches[:STRETCHES]]
    return ", ".join(words) + (", ..." if len(stretches) > STRETCHES else "")


def natural(name: str) -> tuple[list[str | int], str]:
    """What names are sorted by where `frame_2.png` comes before `frame_10.png`."""
    # Splitting at runs of digits puts text at even and numbers at odd places, so that like meets like.
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"(\d+)", name))], name
