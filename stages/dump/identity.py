"""What a store says of the teacher whose maps it holds: made once, and compared whenever a teacher comes again.

Grids and steps are measured on the first videos when a store begins, and kept from then on. All else is a fact of the
teacher, so a store that exists is compared with what it would say were it made by this teacher now. Cost of a new
store: one window for each sampled frame.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import Tensor

from tinyhd_pipe.stages.dump.fidelity import choose_levels
from tinyhd_pipe.stages.networks.levels import STORED
from tinyhd_pipe.stages.networks.network import PROVENANCE, Network
from tinyhd_pipe.stages.networks.teacher_maps import teacher_maps
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import SettingError, VideoError
from tinyhd_pipe.store.schema import Description, Level, Temporal

SAMPLED_VIDEOS, SAMPLED_FRAMES = 4, 48
"""What grids and steps are chosen from: the first frames of the first videos."""


def describe(teacher: Network, sources: Sequence[VideoSource], options: DumpOptions) -> Description:
    """What a new store of this teacher's maps says of itself; grids and steps are measured on the first videos.

    Raises VideoError when none of the videos decodes, SettingError when 8 bits, or the grid and step that the
    options give a level, cannot keep the budget, or when a level is to be kept that the teacher does not have.
    """
    samples: list[Mapping[str, Tensor]] = []
    sampled = 0
    reasons = []
    for source in sources:
        if sampled == SAMPLED_VIDEOS:
            break
        try:
            for _, logits in teacher_maps(teacher, islice(decode(source), SAMPLED_FRAMES)):
                samples.append({level: maps.cpu() for level, maps in logits.items()})
            sampled += 1
        except VideoError as error:
            reasons.append(str(error))
    if not sampled:
        raise nothing_decodes(reasons)
    return description_of(teacher, samples, options)


def nothing_decodes(reasons: Sequence[str]) -> VideoError:
    """The error that says why no video gave a frame."""
    return VideoError(reasons[0] if len(reasons) == 1 else f"none of {len(reasons)} videos decodes; {reasons[0]}")


def description_of(teacher: Network, samples: Iterable[Mapping[str, Tensor]], options: DumpOptions) -> Description:
    """The same from maps that were made already: level -> logits (frame, y, x), one after another."""
    pieces: dict[str, list[Tensor]] = {level: [] for level in STORED}
    for logits in samples:
        for level, maps in logits.items():
            pieces[level].append(maps)
    size = teacher.scaling.size
    made = {level: torch.cat(maps) for level, maps in pieces.items() if maps}
    if unknown := [level for level in options.keep or () if level not in made]:
        raise SettingError(f"keep {unknown[0]!r}: this teacher has no such maps; its levels are {', '.join(made)}")
    kept = {level: maps for level, maps in made.items() if level in (options.keep or made)}
    choices = choose_levels(kept, size=size, budget=options.fidelity, given=options.levels)
    return Description(
        levels=tuple(choice.level for choice in choices),
        teacher_grid=size,
        teacher=teacher.identity,
        temporal=_temporal(teacher, options.every),
        budget=options.fidelity,
        measured={choice.level.name: {"kl": choice.kl, "bytes_per_map": choice.bytes_per_map} for choice in choices},
        provenance={name: teacher.facts[name] for name in PROVENANCE},
    )


def as_of_now(there: Description, teacher: Network, options: DumpOptions) -> Description:
    """What an existing store would say were it made by this teacher now; other grids and steps are kept.

    A store from before D2's and D3's maps were stored goes on without them, unless the options say what to keep.
    """
    size, given = teacher.scaling.size, options.levels
    has = {level.name: level for level in there.levels}
    return replace(
        there,
        levels=tuple(
            given[name].level(name) if name in given else has.get(name) or Level.at_budget(name, size)
            for name in options.keep or has
        ),
        teacher_grid=size,
        teacher=teacher.identity,
        temporal=_temporal(teacher, options.every),
        budget=options.fidelity,
    )


def refuse_other_teacher(there: Description, teacher: Network, url: str) -> None:
    """Raise StoreError, naming what differs, where the store's maps are not of this teacher."""
    there.refuse_other(as_of_now(there, teacher, DumpOptions(every=there.every, fidelity=there.budget)), url)


def _temporal(teacher: Network, every: int) -> Temporal:
    if teacher.outputs == 1:
        return Temporal(every=every)
    return Temporal(
        map_of="every frame of the window", head="the first window", short_video="first frame repeated", every=every
    )
