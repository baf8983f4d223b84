"""What gaze tables call a video, and which of the videos given that is.

The decision that is not obvious: names are compared from the most exact to the loosest (id, file name, name without its
ending, number), in small letters and without folders, and a name that fits two videos fits none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError


@dataclass(frozen=True)
class VideoNames:
    """The names by which the videos given are known."""

    given: Sequence[str]
    """Their ids."""
    known: Mapping[str, str | None]
    """Name to id; None where it fits several."""
    strangers: list[str] = field(default_factory=list)
    """Names that were asked for and are none of theirs, each once."""

    @staticmethod
    def of(sources: Sequence[VideoSource]) -> "VideoNames":
        known: dict[str, str | None] = {}
        for source in sources:
            for name in _names(source.id):
                known[name] = source.id if known.get(name, source.id) == source.id else None
        return VideoNames([source.id for source in sources], known)

    def id_of(self, name: str) -> str | None:
        """The video that is meant by a name of a table; None where none is, or several."""
        for one in _names(name.replace("\\", "/")):
            if one in self.known:
                return self.known[one]
        if name not in self.strangers:
            self.strangers.append(name)
        return None

    def of_table(self, table: Path) -> str:
        """The video that a table without a column of videos is about.

        Raises DataError where it is named after none of them and several are given.
        """
        if len(self.given) == 1:
            return self.given[0]
        if (found := next((self.known[name] for name in _names(table.name) if self.known.get(name)), None)) is None:
            raise DataError(
                f"{table}: has no column of videos, and {len(self.given)} are given; name the column with "
                "--column video=NAME, give one video, or name the table after its video"
            )
        return found


def _names(name: str) -> list[str]:
    """The ways in which this name may be meant, the most exact first."""
    path = PurePath(name.strip().casefold())
    names = [path.as_posix(), path.name, path.stem]
    return [*dict.fromkeys(names), *([f"#{int(path.stem)}"] if path.stem.isdecimal() else [])]
