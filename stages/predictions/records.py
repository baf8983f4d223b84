"""What is known about the maps of one video that lie in a folder: what made them, and whether they are all there.

    DIR/001.AVI.json         beside DIR/001.AVI/, DIR/001.AVI.npz, DIR/001.AVI.overlay.mp4 ...

The decision that is not obvious: the record is begun with the first map, so that pictures without a record are known to
be somebody else's and are never written over, and those with one that is not finished can be gone on with.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.whole_file import write_whole

VERSION = 1


@dataclass(frozen=True)
class Made:
    """One product of a video: its pictures, its npz, its overlay."""

    by: Mapping[str, Any]
    """What its bytes follow from: video, network, brightness, colours; plain data."""
    frames: int | None = None
    """How many it has; None while it is being made."""
    problem: str | None = None
    """What of the video did not decode."""


@dataclass(frozen=True)
class Record:
    """All products of one video."""

    path: Path
    products: dict[str, Made] = field(default_factory=dict)
    """By their names."""

    @property
    def problem(self) -> str | None:
        """What of the video did not decode, as the latest product knows it."""
        return next((made.problem for made in reversed(self.products.values()) if made.problem), None)

    def having(self, name: str, made: Made) -> "Record":
        """The same with one product, as it is now written on the disk."""
        record = replace(self, products={**self.products, name: made})
        plain = {"version": VERSION, "products": {name: asdict(made) for name, made in record.products.items()}}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps(plain, indent=1).encode())
        return record


def read_record(path: Path) -> Record:
    """What `Record.having` wrote, or a record of nothing. Raises SettingError for a file that is something else."""
    try:
        plain = json.loads(path.read_bytes())
        if plain["version"] != VERSION:
            raise SettingError(f"{path}: of version {plain['version']}, not {VERSION}; give another --out")
        return Record(path, {name: Made(**made) for name, made in plain["products"].items()})
    except FileNotFoundError:
        return Record(path)
    except (ValueError, KeyError, TypeError) as error:
        raise SettingError(f"{path}: not what predict leaves beside its maps; give another --out") from error


def differing(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The facts in which two things that were made differ."""
    return [name for name in {**there, **wanted} if there.get(name) != wanted.get(name)]


def first_name_in(folder: Path) -> int | None:
    """The number in the name of frame 0's map, where `predict` has made this folder of pictures; else None."""
    try:
        made = read_record(folder.with_name(f"{folder.name}.json")).products.get("png")
    except SettingError:  # a file of somebody else's
        return None
    return None if made is None else int(made.by["first_name"])
