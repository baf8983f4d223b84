"""Whether an exported network is what was said of it: on the first windows, before anything is written.

Numbers can be held against what they should be, and are. Which frame a map belongs to can not be read off any number:
a map that is one frame late passes every test of shapes. So the network is shown a dot that moves, and where its maps
have the dot says which frame of the window they follow. The decision that is not obvious: that is a warning, no
refusal, because a network may follow a dot late and be good all the same, or not follow dots at all. The map of the
same picture without a dot is subtracted, and dots of both directions and in two places are shown, so that neither the
centre nor a side draws the answer. Cost: six windows.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyhd_pipe.stages.dump.exported_maps import ExportedMaps
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import VideoError, WeightsError

SLACK = 1e-3
"""By which values may leave their range, and sums 1."""
NOTHING = 1e-9
"""Share of all attention that a dot must move at least."""
FAR = 1.0
"""Frames by which a map may seem to belong to another one before that is said."""


def check_exported(maps: ExportedMaps, sources: Sequence[VideoSource]) -> list[str]:
    """Warnings, in a line each.

    Raises WeightsError where values are not numbers or not what was said of them; VideoError where no video decodes.
    """
    return [*check_values(maps, _first_pictures(maps, sources)), *check_moving(maps)]


def _first_pictures(maps: ExportedMaps, sources: Sequence[VideoSource]) -> list[NDArray[np.uint8]]:
    reasons = []
    reach = maps.rule.reach(0)[1] + 1
    for source in sources:
        try:
            pictures = [picture for picture in islice(decode(source), reach) if picture is not None]
        except VideoError as error:
            reasons.append(str(error))
            continue
        if pictures:
            return pictures
    raise VideoError(reasons[0] if reasons else "no video decodes")


def check_values(maps: ExportedMaps, pictures: Sequence[NDArray[np.uint8]]) -> list[str]:
    """Warnings of the values that maps of the first window of these RGB pictures have; errors as `check_exported`."""
    said, warnings = maps.told.values, []
    frames = list(maps.frames_of(iter(pictures)))
    seen = [frames[place] for place in maps.rule.window(0, len(frames)).seen]
    for level, values in maps.raw(seen).items():
        if not bool(torch.isfinite(values).all()):
            raise _wrong(maps, level, "values that are not finite", "finite ones; is the input scaled as it wants it?")
        low, high = float(values.min()), float(values.max())
        span = f"values from {low:.3g} to {high:.3g}"
        sums = (values.exp() if said == "log-probabilities" else values).double().sum((-2, -1))
        of_one = bool(((sums - 1).abs() < 0.01).all())
        if said == "probabilities":
            if low < -SLACK or high > 1 + SLACK:
                raise _wrong(maps, level, span, "probabilities, 0 to 1; exported_teacher.values says what they are")
            if of_one:
                raise _wrong(maps, level, "maps that sum to 1", "probabilities of each pixel; say values=shares")
        elif said == "logits":
            if low >= 0 and high <= 1:
                warnings.append(f"{level}: {span}, for logits; are they probabilities?")
        elif not of_one or (said == "shares" and low < -SLACK):
            raise _wrong(maps, level, f"{span} that sum to {float(sums[0]):.3g}", f"{said}, whose shares sum to 1")
        if high - low < 1e-9:
            warnings.append(f"{level}: the first map is {high:.3g} everywhere; is the input scaled as it wants it?")
    return warnings


def _wrong(maps: ExportedMaps, level: str, found: str, expected: str) -> WeightsError:
    return WeightsError(f"{maps.graph.path}: {level}: {found}; expected {expected}")


def check_moving(maps: ExportedMaps) -> list[str]:
    """A warning where maps do not follow a moving dot in the frames that they are said to be of."""
    rule = maps.rule
    if (
        rule.frames == 1 or maps.states or maps.graph.facts
    ):  # maps are of the frame shown last, or were compared already
        return []
    found = followed_frame(maps)
    if found is None:
        return [
            "its maps do not follow a moving dot, so that they belong to the frames said of them rests on your word"
        ]
    declared = float(np.mean(rule.answers))
    if abs(found - declared) <= FAR:
        return []
    places = f"frame {declared:g}" if len(rule.answers) == 1 else f"frames {rule.answers[0]} to {rule.answers[-1]}"
    return [
        f"a moving dot is where it was in frame {found:.1f} of the window, counted from 0, and not in {places}, to "
        "which maps are said to belong (exported_teacher.answers); a network may be late, but try it"
    ]


def followed_frame(maps: ExportedMaps) -> float | None:
    """The place in the window, counted from 0, at which a moving dot was where the final maps have it (of several maps
    the mean); None where maps do not follow it."""
    frames, (_, x) = maps.rule.frames, maps.scaling.size
    nothing = _shares(maps, np.full(frames, -float(x)))
    places, columns = [], []
    for start in (x / 6, x / 2):  # the dot crosses a third of the picture while a window lasts
        path = np.linspace(start, start + x / 3, frames)
        for path_of in (path, path[::-1]):
            change = (_shares(maps, path_of) - nothing).clamp(min=0)
            if not float(change.sum()) > NOTHING:
                return None
            weight = (change * (change > change.max() / 2)).sum(0)
            column = float((weight * (torch.arange(len(weight)) + 0.5)).sum() / weight.sum()) * x / len(weight)
            places.append((column - path_of[0]) / (path_of[-1] - path_of[0]) * (frames - 1))
            columns.append(column)
    moved = np.mean(columns[2:]) - np.mean(columns[:2])
    return float(np.mean(places)) if moved > x / 6 else None


def _shares(maps: ExportedMaps, columns: NDArray[np.float64]) -> Tensor:
    """The final map of a window with a bright dot in these columns, as shares of all attention, (y, x)."""
    y, x = maps.scaling.size
    rows, across = np.mgrid[:y, :x] + 0.5
    radius = max(2.0, min(y, x) / 12)
    dots = (np.exp(-((rows - y / 2) ** 2 + (across - column) ** 2) / (2 * radius**2)) for column in columns)
    pictures = [np.repeat((60 + 180 * dot).astype(np.uint8)[..., None], 3, axis=2) for dot in dots]
    values = maps.raw(list(maps.frames_of(iter(pictures))))[FINAL].double()
    if maps.told.values == "log-probabilities":
        values = values.exp()
    elif maps.told.values == "logits":
        values = values.sigmoid()
    return (values / values.sum((-2, -1), keepdim=True).clamp(min=1e-30)).mean(0)
