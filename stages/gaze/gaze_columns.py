"""Which column of a gaze table is what: the names that eye trackers' exports give them, and those that a user gives.

The decision that is not obvious: an export is known by a column that only it has, and then read by its own rules
(units, where time begins, which way y points), because one name means different things: Tobii repeats the duration of
a fixation in each of its samples, EyeLink reports it once. A table of no export that is known is read by plain names.
Units in a name (`[ms]`, `(MCSnorm)`, `_px`) are believed before anything else.

Sources: Tobii Pro Lab's and Tobii Studio's data exports, SR Research Data Viewer's fixation and sample reports, Pupil
Player's exports (Core), Neon Player's and Pupil Cloud's (Neon); docs/gaze-tables.md says which names could be checked.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tinyhd_pipe.store.errors import DataError, SettingError

ROLES = (
    *("video", "observer", "time", "start", "frame", "last_frame", "x", "y"),
    *("duration", "validity", "invalid", "movement", "saccade", "pupil"),
)
"""What a column can be. `start` is subtracted from times, `invalid` is true in blinks and the like, `movement` names
what the eye does, `saccade` is true while it jumps."""
SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
"""By unit of time."""
_UNITS = {
    **dict.fromkeys(("s", "sec", "seconds"), "s"),
    **dict.fromkeys(("ms", "msec"), "ms"),
    **dict.fromkeys(("us", "µs", "μs"), "us"),
    "ns": "ns",
    **dict.fromkeys(("norm", "normalized", "mcsnorm", "mcs norm", "share"), "share"),
    **dict.fromkeys(("px", "mcspx", "mcs px", "adcspx", "dacspx", "dacs px", "pixels"), "px"),
}
_BRACKETS = re.compile(r"(.*?)\s*[\[(]([^\])]*)[\])]\s*")


@dataclass(frozen=True)
class Export:
    """How one program writes gaze tables; names without unit, in small letters, with blanks for underscores."""

    name: str
    known_by: tuple[str, ...]
    """One of them is there; of none, any table will do."""
    roles: Mapping[str, tuple[tuple[str, ...], ...]]
    """Role to its columns: of alternatives the first that is there; of its names (one an eye) those that are."""
    time_unit: str | None = None
    duration_unit: str | None = None
    position_unit: str | None = None
    origin: Literal["video", "first"] = "video"
    y_upwards: bool = False
    """Shares of the height count from the lower edge."""
    codes: bool = False
    """Validity is Tobii Studio's: 0 and 1 are good, 2 to 4 are not."""


def _each(*names: str) -> tuple[tuple[str, ...], ...]:
    return tuple((name,) for name in names)


_CORE_POINTS = {"x": _each("norm pos x", "x"), "y": _each("norm pos y", "y")}
_EYES = ("average", "left", "right")
EXPORTS = (
    Export(
        "EyeLink fixation report",
        ("current fix x",),
        {
            "video": _each("video name", "video", "videofile", "video file", "movie", "stimulus"),
            "observer": _each("recording session label"),
            "time": _each("current fix start"),
            "x": _each("current fix x"),
            "y": _each("current fix y"),
            "duration": _each("current fix duration"),
            "pupil": _each("current fix pupil"),
        },
        time_unit="ms",
    ),
    Export(
        "EyeLink sample report",
        tuple(f"{eye} gaze x" for eye in _EYES),
        {
            "video": _each("video name", "video", "videofile", "video file", "movie", "stimulus"),
            "observer": _each("recording session label"),
            "time": _each("timestamp"),
            "start": _each("trial start time"),
            "x": (("average gaze x",), ("left gaze x", "right gaze x")),
            "y": (("average gaze y",), ("left gaze y", "right gaze y")),
            "pupil": (("average pupil size",), ("left pupil size", "right pupil size")),
            "invalid": (tuple(f"{eye} in blink" for eye in _EYES),),
            "saccade": (tuple(f"{eye} in saccade" for eye in _EYES),),
        },
        time_unit="ms",
    ),
    Export(
        "Tobii Studio",
        ("gazepointx",),
        {
            "video": _each("medianame"),
            "observer": _each("participantname", "recordingname"),
            "time": _each("recordingtimestamp"),
            "x": _each("gazepointx"),
            "y": _each("gazepointy"),
            "validity": (("validityleft", "validityright"),),
            "movement": _each("gazeeventtype"),
        },
        time_unit="ms",
        origin="first",
        codes=True,
    ),
    Export(
        "Tobii Pro Lab",
        ("recording timestamp",),
        {
            "video": _each("presented stimulus name", "presented media name"),
            "observer": _each("participant name", "recording name"),
            "time": _each("recording timestamp"),
            "x": _each("gaze point x"),
            "y": _each("gaze point y"),
            "validity": (("validity left", "validity right"),),
            "movement": _each("eye movement type"),
        },
        time_unit="us",
        origin="first",
    ),
    Export(
        "Pupil Core fixations",
        ("start frame index",),
        {
            "observer": _each("recording id"),
            "frame": _each("start frame index"),
            "last_frame": _each("end frame index"),
            "validity": _each("confidence"),
            **_CORE_POINTS,
        },
        position_unit="share",
        y_upwards=True,
    ),
    Export(
        "Pupil Core gaze",
        ("world index",),
        {
            "observer": _each("recording id"),
            "frame": _each("world index"),
            "validity": _each("confidence"),
            **_CORE_POINTS,
        },
        position_unit="share",
        y_upwards=True,
    ),
    Export(
        "Neon fixations",
        ("start timestamp",),
        {
            "video": _each("video"),
            "observer": _each("recording id", "observer"),
            "time": _each("start timestamp"),
            "x": _each("fixation x"),
            "y": _each("fixation y"),
            "duration": _each("duration"),
            "validity": _each("fixation detected on surface"),
        },
        time_unit="ns",
        duration_unit="ms",
        origin="first",
    ),
    Export(
        "Neon gaze",
        ("gaze position on surface x", "worn"),
        {
            "observer": _each("recording id"),
            "time": _each("timestamp"),
            "x": _each("gaze position on surface x", "gaze x"),
            "y": _each("gaze position on surface y", "gaze y"),
            "validity": _each("gaze detected on surface", "worn"),
            "movement": _each("fixation id"),
        },
        time_unit="ns",
        origin="first",
    ),
    Export(
        "plain names",
        (),
        {
            "video": _each("video", "video name", "video id", "clip", "movie", "stimulus", "stimulus name", "media"),
            "observer": _each("observer", "subject", "participant", "viewer", "user", "recording"),
            "time": _each("time", "timestamp", "t", "onset", "start", "start time"),
            "frame": _each("frame", "frame index", "frame number"),
            "last_frame": _each("last frame", "end frame"),
            "x": _each("x", "gaze x", "fixation x", "x position"),
            "y": _each("y", "gaze y", "fixation y", "y position"),
            "duration": _each("duration", "dur", "fixation duration"),
            "validity": _each("valid", "validity", "confidence"),
            "movement": _each("movement", "event", "event type"),
            "pupil": _each("pupil", "pupil size", "pupil diameter"),
        },
    ),
)


@dataclass(frozen=True)
class Columns:
    """Where in a row of one table things are, and in which units."""

    export: Export
    places: Mapping[str, tuple[int, ...]]
    """Role to the places of its columns; of x, y, validity and pupil there may be one for each eye."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The same as the table names them, for people."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Role to the unit that the column's name gives."""

    def unit_of(self, role: str) -> str | None:
        """Unit of time, duration or x by the column's name, else by the kind of export; None: nothing says it."""
        of_export = {"time": "time_unit", "duration": "duration_unit", "x": "position_unit"}[role]
        return self.units.get(role) or getattr(self.export, of_export)


def find_columns(header: Sequence[str], given: Mapping[str, str], table: str) -> Columns:
    """Tell the columns of a table by their names.

    Arguments:
        given: role to the name of its column, where the user says so.
        table: its name, for messages.

    Raises SettingError for a role that there is none of, DataError where columns are missing, naming those found.
    """
    if strangers := [role for role in given if role not in ROLES]:
        raise SettingError(f"--column {strangers[0]}: expected one of {', '.join(ROLES)}")
    there = [_base_and_unit(name) for name in header]
    bases = [base for base, _ in there]
    export = next(one for one in EXPORTS if not one.known_by or set(one.known_by) & set(bases))
    places = {role: _places(there, alternatives) for role, alternatives in export.roles.items()}
    places |= {role: (_place_of(header, name, role, table),) for role, name in given.items()}
    places = {role: found for role, found in places.items() if found}
    missing = [role for role in ("x", "y") if role not in places]
    missing += ["time or frame"] if not {"time", "frame"} & places.keys() else []
    if missing:
        raise DataError(
            f"{table}: no column for {', '.join(missing)} (found: {', '.join(header)}); "
            f"name it with --column {missing[0].split()[0]}=NAME"
        )
    names = {role: ", ".join(header[place] for place in found) for role, found in places.items()}
    units = {role: unit for role, found in places.items() if (unit := there[found[0]][1])}
    return Columns(export, places, names, units)


def _base_and_unit(name: str) -> tuple[str, str | None]:
    """`Gaze point X [MCS norm]` as ("gaze point x", "share"), `duration_ms` as ("duration", "ms")."""
    plain = " ".join(name.replace("\N{NO-BREAK SPACE}", " ").replace("_", " ").lower().split())
    if bracketed := _BRACKETS.fullmatch(plain):
        return bracketed[1], _UNITS.get(bracketed[2])
    base, _, last = plain.rpartition(" ")
    return (base, _UNITS[last]) if base and last in _UNITS else (plain, None)


def _places(there: Sequence[tuple[str, str | None]], alternatives: Sequence[Sequence[str]]) -> tuple[int, ...]:
    """Places of the first alternative that is there; of columns that differ by unit, the one in shares of the picture,
    since it needs no screen."""
    for names in alternatives:
        found = []
        for name in names:
            same = [place for place, (base, _) in enumerate(there) if base == name]
            found += sorted(same, key=lambda place: there[place][1] != "share")[:1]
        if found:
            return tuple(found)
    return ()


def _place_of(header: Sequence[str], name: str, role: str, table: str) -> int:
    if name not in header:
        raise DataError(f"{table}: --column {role}={name}: no such column (found: {', '.join(header)})")
    return header.index(name)
