"""What a store says of the teacher whose maps it holds: made once, and compared whenever a teacher comes again.

Grids and steps are measured on the first videos when a store begins, and kept from then on; so is the flip error, how
far a teacher is from giving a mirrored clip the mirrored maps. All else is a fact of the teacher, so a store that is
there is compared with what it would say were it made by this teacher now. Cost of a new store: one window for each
sampled frame, two with `flip: both`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from tinyhd_pipe.stages.dump.fidelity import choose_levels, kl_of
from tinyhd_pipe.stages.dump.map_source import MapSource, map_source
from tinyhd_pipe.stages.networks.levels import MIRRORED, STORED
from tinyhd_pipe.stages.networks.network import Network, Size
from tinyhd_pipe.stages.networks.overlap import cores, in_parallel
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import SettingError, VideoError
from tinyhd_pipe.store.schema import Description, Level

SAMPLED_VIDEOS, SAMPLED_FRAMES = 4, 48
"""What grids and steps are chosen from: the first frames of the first videos."""
FLIP_EVERY = 16
"""Of these frames every 16th is looked at mirrored, too: a sixteenth of the windows."""
PLAIN = {mirrored: level for level, mirrored in MIRRORED.items()}


def describe(teacher: Network | MapSource, sources: Sequence[VideoSource], options: DumpOptions) -> Description:
    """What a new store of this teacher's maps says of itself; grids and steps are measured on the first videos.

    Raises VideoError when none of the videos decodes, SettingError when 8 bits, or the grid and step that the
    options give a level, cannot keep the budget, or when a level is to be kept that the teacher does not have.
    """
    maps = map_source(teacher)
    samples: list[Mapping[str, Tensor]] = []
    mirrored: list[Mapping[str, Tensor]] = []
    reasons = []
    for source in sources:
        if len(samples) == SAMPLED_VIDEOS:
            break
        try:
            samples.append(maps.sample(source, SAMPLED_FRAMES, levels_for(options)))
            mirrored.append(maps.sample(source, SAMPLED_FRAMES, MIRRORED.values(), every=FLIP_EVERY))
        except VideoError as error:
            reasons.append(str(error))
    if not samples:
        raise nothing_decodes(reasons)
    description = description_of(maps, samples, options)
    errors = _flip_errors(samples, mirrored, maps.size)
    measured = {
        name: {**figures, "flip_error": errors[name]} if name in errors else figures
        for name, figures in description.measured.items()
    }
    return replace(description, measured=measured)


def levels_for(options: DumpOptions) -> tuple[str, ...]:
    """What the teacher is asked for; it answers with what it has."""
    return (*STORED, *MIRRORED.values()) if options.flip == "both" else STORED


def _flip_errors(
    samples: Sequence[Mapping[str, Tensor]], mirrored: Sequence[Mapping[str, Tensor]], size: Size
) -> dict[str, float]:
    """Mean KL(maps of the mirrored clip, mirrored back ‖ maps of the clip) of each level, nats: what a student that
    mirrors stored maps learns wrong by. Of maps of which there are no mirrored ones it is not known."""
    levels = [level for level in STORED if level in samples[0] and MIRRORED[level] in mirrored[0]]

    def error(level: str) -> float:
        plain = torch.cat([maps[level][::FLIP_EVERY] for maps in samples])
        return kl_of(torch.cat([maps[MIRRORED[level]] for maps in mirrored]).flip(-1), plain, size)

    # One thread each, as for steps: the store has the same bytes on any number of cores.
    return dict(zip(levels, in_parallel(error, iter(levels), cores()), strict=True))


def nothing_decodes(reasons: Sequence[str]) -> VideoError:
    """The error that says why no video gave a frame."""
    return VideoError(reasons[0] if len(reasons) == 1 else f"none of {len(reasons)} videos decodes; {reasons[0]}")


def description_of(maps: MapSource, samples: Iterable[Mapping[str, Tensor]], options: DumpOptions) -> Description:
    """The same from maps that were made already: level -> logits (frame, y, x), one after another."""
    pieces: dict[str, list[Tensor]] = {level: [] for level in levels_for(options)}
    for sample in samples:
        for level, logits in sample.items():
            pieces[level].append(logits)
    made = {level: torch.cat(logits) for level, logits in pieces.items() if logits}
    if unknown := [level for level in options.keep or () if level not in made]:
        has = ", ".join(level for level in made if level in STORED)
        raise SettingError(f"keep {unknown[0]!r}: this teacher has no such maps; its levels are {has}")
    kept = {level: logits for level, logits in made.items() if PLAIN.get(level, level) in (options.keep or made)}
    given = options.levels
    if options.flip == "both":
        given = {**given, **{MIRRORED[level]: given[level] for level in given if level in MIRRORED}}
    choices = choose_levels(kept, size=maps.size, budget=options.fidelity, given=given, top=maps.top)
    return Description(
        levels=tuple(replace(choice.level, mirror_of=PLAIN.get(choice.level.name)) for choice in choices),
        teacher_grid=maps.size,
        teacher=maps.identity,
        temporal=maps.temporal(options.every),
        budget=options.fidelity,
        measured={choice.level.name: {"kl": choice.kl, "bytes_per_map": choice.bytes_per_map} for choice in choices},
        provenance=maps.provenance,
    )


def as_of_now(there: Description, teacher: Network | MapSource, options: DumpOptions) -> Description:
    """What an existing store would say were it made by this teacher now; other grids and steps are kept.

    A store from before D2's and D3's maps were stored goes on without them, unless the options say what to keep.
    """
    maps = map_source(teacher)
    plain = options.keep or [level.name for level in there.levels if level.mirror_of is None]
    names = [*plain, *(MIRRORED[level] for level in plain if options.flip == "both")]
    return replace(
        there,
        levels=tuple(_level_of_now(name, there, options, maps) for name in names),
        teacher_grid=maps.size,
        teacher=maps.identity,
        temporal=maps.temporal(options.every),
        budget=options.fidelity,
    )


def _level_of_now(name: str, there: Description, options: DumpOptions, maps: MapSource) -> Level:
    """A level as the options give it, else as the store has it, else as one that the store does not have."""
    kind = PLAIN.get(name, name)
    if kind in options.levels:
        level = options.levels[kind].level(name, maps.top)
    else:
        level = next((level for level in there.levels if level.name == name), Level.at_budget(name, maps.size))
    return replace(level, mirror_of=PLAIN.get(name))


def refuse_other_teacher(there: Description, teacher: Network | MapSource, url: str) -> None:
    """Raise StoreError, naming what differs, where the store's maps are not of this teacher."""
    options = DumpOptions(every=there.every, fidelity=there.budget, flip=there.flip)
    there.refuse_other(as_of_now(there, teacher, options), url)
