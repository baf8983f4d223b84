"""The label files of one video, by absolute frame.

Names are read by the rule for frames (video/numbers.py), and they count as the names of the video's own pictures do: of
a folder of pictures whose names begin at 0, map 0 is of frame 0. A video file has no names of frames; there maps count
from 1, as DHF1K's do, or from 0 where a map is named 0. Where pictures have no numbers in their names, a map belongs to
the picture whose name it has.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyhd_pipe.stages.gaze.label_files import PICTURES
from tinyhd_pipe.stages.video.numbers import ending_of, number_in, numbered_names, stem_of
from tinyhd_pipe.stages.video.sources import VideoSource, frame_names
from tinyhd_pipe.store.errors import DataError

FIXATIONS = (*PICTURES, ".mat")


@dataclass(frozen=True)
class FrameNames:
    """How the frames of one video are named, as far as its labels must know."""

    base: int | None
    """The number in the name of frame 0; None: as its maps say."""
    places: dict[str, int] | None = None
    """Name without ending -> frame, where names have no numbers."""
    refuses_0: bool = False
    """Whether a label of number 0 is an error, since the data set counts from 1."""

    @staticmethod
    def of(source: VideoSource) -> "FrameNames":
        """Raises VideoError where a folder of frames cannot be listed."""
        if not source.is_frame_folder:
            return FrameNames(None)
        found = frame_names(source.path)
        if found.numbered:
            return FrameNames(found.base)
        return FrameNames(None, {stem_of(name): place for place, name in enumerate(found.names)})


def label_files(
    folder: Path, below: Sequence[str], endings: Sequence[str], frames: FrameNames = FrameNames(None)
) -> dict[int, str]:
    """Absolute frame -> file below `folder`, by rising frame.

    Arguments:
        below: folders to look into; those later in the row are preferred where two have a map of one frame.
        endings: those of labels; earlier ones are preferred.

    Raises DataError where two files of a folder have one number, or names have none.
    """
    files: dict[int, str] = {}
    ranks = {ending: rank for rank, ending in enumerate(endings)}
    for where in below:
        by_stem: dict[str, str] = {}
        for name in sorted(_names(folder / where), key=lambda name: -ranks.get(ending_of(name), -1)):
            if ending_of(name) in ranks:
                by_stem[stem_of(name)] = name  # earlier kinds come last
        # The same few names recur in every video: kept once, all of DHF1K's fit in little memory.
        numbered = _by_frame(folder / where, by_stem, frames)
        files |= {frame: sys.intern(f"{where}/{name}") for frame, name in numbered.items()}
    return dict(sorted(files.items()))


def counts_from_0(folder: Path, below: Sequence[str]) -> bool:
    """Whether a label below these folders has number 0."""
    names = (name for where in below for name in _names(folder / where) if name.lower().endswith(FIXATIONS))
    return any(found is not None and found[1] == 0 for found in map(number_in, names))


def has_labels(folder: Path, endings: tuple[str, ...] = PICTURES) -> bool:
    """Whether a folder holds a file that may be a label."""
    return any(name.lower().endswith(endings) for name in _names(folder))


def _by_frame(folder: Path, by_stem: dict[str, str], frames: FrameNames) -> dict[int, str]:
    if not by_stem:
        return {}
    if frames.places is not None:
        return {frames.places[stem]: name for stem, name in by_stem.items() if stem in frames.places}
    try:
        found = numbered_names(list(by_stem.values()))
    except ValueError as error:
        raise DataError(f"{folder}: {error}") from error
    if not found.numbered:
        raise DataError(f"{folder}: {found.names[0]} has no number of a frame that its neighbours lack; rename them")
    written = found.numbering.numbers(range(len(found.names))) + found.base
    if frames.refuses_0 and written[0] == 0:
        raise DataError(f"{folder / found.names[0]}: frames count from 1 here (0001.png is the first); renumber them")
    base = found.base if frames.base is None else frames.base
    pairs = zip((written - base).tolist(), found.names, strict=True)
    return {frame: name for frame, name in pairs if frame >= 0}


def _names(folder: Path) -> list[str]:
    """Names of the files in a folder, in no order: text, since paths cost three times as much."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if not entry.name.startswith(".")]
