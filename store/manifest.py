"""The manifest of one shard: which videos lie in it, where, and the checksums of its files.

It is written last, so its presence is what makes a shard exist. Columns rather than one record for each
video: a store of 240,000 videos opens by reading a few hundred of these, and that has to take a second.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from tinyhd_pipe.store.documents import opened_json, sealed_json
from tinyhd_pipe.store.numbering import AS_THEY_COME, Numbering
from tinyhd_pipe.store.plan import Member

SHARDS = "shards"
SHARDS_GROUP = f"{SHARDS}/zarr.json"
GROUP = b'{"zarr_format":3,"node_type":"group","attributes":{}}'
"""What lies at `SHARDS_GROUP`: a plain zarr group, so that zarr finds its way from the root to the shards."""


def shard_folder(number: int) -> str:
    """Where a shard lies in the store."""
    return f"{SHARDS}/{number:05d}"


def manifest_path(number: int) -> str:
    """The manifest of a shard: the zarr.json of its group."""
    return f"{shard_folder(number)}/zarr.json"


def metadata_path(number: int, level: str) -> str:
    """The zarr.json of one level of a shard."""
    return f"{shard_folder(number)}/{level}/zarr.json"


def data_path(number: int, level: str) -> str:
    """The one data file of one level of a shard."""
    return f"{shard_folder(number)}/{level}/c/0/0/0"


@dataclass(frozen=True)
class VideoRow:
    """One run of maps of one video."""

    id: str
    digest: str
    """Of the video's content; another digest is another video."""
    frames: int
    """Frames that decoded in the whole video."""
    height: int
    width: int
    rate: str
    """Frames a second as a fraction such as "30000/1001"; empty where unknown."""
    first_frame: int
    """Place of the first row's frame in the video: its absolute number, but where `numbering` says otherwise."""
    rows: int
    """Maps of this run, without padding; 0 where the video failed altogether."""
    first_row: int
    """Row of the shard's arrays that holds the first map; a multiple of the chunk length."""
    problem: str = ""
    """One line of what was wrong with the video; empty where nothing was."""
    failed: tuple[int, ...] = ()
    """Absolute frames that have a row but no valid map."""
    numbering: Numbering = AS_THEY_COME
    """The absolute numbers of the whole video's frames."""
    maps: str = ""
    """Digest of the files that its maps were taken from; empty where a network made them."""


_BESIDE_THE_COLUMNS = ("problem", "failed", "numbering", "maps")
_COLUMNS = tuple(column.name for column in fields(VideoRow) if column.name not in _BESIDE_THE_COLUMNS)


@dataclass(frozen=True)
class LevelFile:
    """What is known of one level's data file."""

    bytes: int
    sha256: str
    """Not a CRC-32C: chunks end with their own, and a CRC over data and its CRC does not depend on the data."""


@dataclass(frozen=True)
class Manifest:
    """All that a reader must know of a shard before it opens its data files."""

    number: int
    columns: Mapping[str, Sequence[Any]]
    """One list for each of id, digest, frames, height, width, rate, first_frame, rows, first_row."""
    problems: Mapping[int, str]
    """Position in the columns -> what was wrong."""
    failed: Mapping[int, Sequence[int]]
    """Position in the columns -> absolute frames without a valid map."""
    rows: int
    """Rows of every array, padding included; 0: the shard has no arrays."""
    levels: Mapping[str, LevelFile]
    replaces: tuple[int, ...] = field(default=())
    """Shards that this one takes the place of; they are ignored and swept."""
    numberings: Mapping[int, Numbering] = field(default_factory=dict)
    """Position in the columns -> numbers of the video's frames, where they are not their places."""
    maps: Mapping[int, str] = field(default_factory=dict)
    """Position in the columns -> digest of the files that a video's maps were taken from, where there are some."""

    def __len__(self) -> int:
        return len(self.columns["id"])

    @property
    def members(self) -> tuple[Member, ...]:
        """The videos as a plan has them."""
        pairs = zip(self.columns["id"], self.columns["digest"], strict=True)
        return tuple(Member(*pair, self.maps.get(position, "")) for position, pair in enumerate(pairs))

    def row(self, position: int) -> VideoRow:
        """One run as a record."""
        values = {name: self.columns[name][position] for name in _COLUMNS}
        return VideoRow(
            **values,
            problem=self.problems.get(position, ""),
            failed=tuple(self.failed.get(position, ())),
            numbering=self.numberings.get(position, AS_THEY_COME),
            maps=self.maps.get(position, ""),
        )

    def to_json(self) -> bytes:
        """The shard's zarr.json."""
        numbers = {str(position): numbering.runs for position, numbering in self.numberings.items()}
        return sealed_json(
            {
                "shard": self.number,
                "replaces": list(self.replaces),
                "rows": self.rows,
                "levels": {name: {"bytes": file.bytes, "sha256": file.sha256} for name, file in self.levels.items()},
                "videos": {name: list(self.columns[name]) for name in _COLUMNS},
                "problems": {str(position): text for position, text in self.problems.items()},
                "failed_frames": {str(position): list(frames) for position, frames in self.failed.items()},
                **({"frame_numbers": numbers} if numbers else {}),
                **({"maps": {str(position): made for position, made in self.maps.items()}} if self.maps else {}),
            }
        )

    @staticmethod
    def from_json(text: bytes) -> "Manifest":
        """Raises `ValueError` where it is damaged."""
        plain = opened_json(text)
        try:
            return Manifest(
                number=plain["shard"],
                columns={name: plain["videos"][name] for name in _COLUMNS},
                problems={int(position): problem for position, problem in plain["problems"].items()},
                failed={int(position): frames for position, frames in plain["failed_frames"].items()},
                rows=plain["rows"],
                levels={name: LevelFile(file["bytes"], file["sha256"]) for name, file in plain["levels"].items()},
                replaces=tuple(plain["replaces"]),
                numberings={
                    int(position): Numbering(tuple((first, step, count) for first, step, count in runs))
                    for position, runs in plain.get("frame_numbers", {}).items()
                },
                maps={int(position): made for position, made in plain.get("maps", {}).items()},
            )
        except KeyError as error:
            raise ValueError(f"has no {error}") from error

    @staticmethod
    def of_rows(
        number: int,
        rows: Sequence[VideoRow],
        total: int,
        levels: Mapping[str, LevelFile],
        replaces: tuple[int, ...],
    ) -> "Manifest":
        """A manifest of these runs in this order."""
        return Manifest(
            number=number,
            columns={name: [getattr(row, name) for row in rows] for name in _COLUMNS},
            problems={position: row.problem for position, row in enumerate(rows) if row.problem},
            failed={position: row.failed for position, row in enumerate(rows) if row.failed},
            rows=total,
            levels=levels,
            replaces=replaces,
            numberings={position: row.numbering for position, row in enumerate(rows) if row.numbering.runs},
            maps={position: row.maps for position, row in enumerate(rows) if row.maps},
        )
