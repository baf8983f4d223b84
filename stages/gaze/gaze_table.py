"""Gaze tables: CSV or TSV as eye trackers export them, read a piece at a time, and written.

The decision that is not obvious: a row that says nothing of use keeps its place and gets a reason, so that all rows are
accounted for; nothing is dropped in reading. Separator, encoding (UTF-8, or UTF-16 by its mark) and decimal commas are
recognised. Cost: some 140,000 rows a second, and 50,000 rows in memory whatever the table's size.
"""

import csv
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from tinyhd_pipe.stages.gaze.gaze_columns import SECONDS, Columns, find_columns
from tinyhd_pipe.stages.settings.from_gaze import FromGazeOptions
from tinyhd_pipe.store.errors import DataError

ROWS = 50_000
"""Rows that are read at a time."""
GOOD, NO_POSITION, INVALID, NOT_FIXATING = range(4)
"""What a row is, as far as the table itself tells."""
HEADER = ("video", "frame", "x [share]", "y [share]")
"""Columns of the tables that are written."""
_TRUE, _FALSE = ("valid", "true", "yes"), ("invalid", "false", "no", "")
Floats = NDArray[np.float64]
Texts = Callable[[str], list[list[str]]]
"""Role to the texts of each of its columns."""


@dataclass(frozen=True, eq=False)
class GazeRows:
    """Some rows of a table, in its order."""

    videos: Sequence[str]
    """(row,) as the table names them; empty where it has no such column."""
    observers: Sequence[str]
    """(row,) "" where it has no such column."""
    time: Floats
    """(row,) seconds; NaN where none is said."""
    frame: Floats
    """(row,) the number that the table gives a frame; NaN where none is said."""
    last_frame: Floats
    """(row,) the same of a fixation's last one."""
    duration: Floats
    """(row,) seconds; NaN for a sample."""
    x: Floats
    """(row,) in pixels of the table, or in shares of the picture's width."""
    y: Floats
    state: NDArray[np.uint8]
    """(row,) GOOD, NO_POSITION, INVALID or NOT_FIXATING."""
    share: bool
    """Whether x and y are shares."""
    from_first: bool
    """Whether times count from each observer's first row of a video."""
    read: int
    """Bytes of the file read so far."""


def read_gaze_table(path: Path, options: FromGazeOptions) -> tuple[Columns, Iterator[GazeRows]]:
    """What the columns of a table are, and its rows, some at a time.

    Raises DataError for a file that is no table or lacks columns, SettingError for a column's role that is not known;
    while iterating DataError, with the line, where it is damaged.
    """
    try:
        with _opened(path) as file:
            first = _header(file)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give a table, CSV or TSV") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not text ({error.reason}); export the table as CSV or TSV") from error
    separator = max("\t;,", key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
    columns = find_columns(header, options.columns, str(path))
    return columns, _pieces(path, separator, columns, options)


def _opened(path: Path) -> TextIO:
    return path.open(encoding=_encoding(path), newline="")


def _header(file: TextIO) -> str:
    """The line that names the columns, the first one that is neither empty nor a comment; "" where there is none."""
    return next((line for line in file if line.strip() and not line.startswith("#")), "")


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _pieces(path: Path, separator: str, columns: Columns, options: FromGazeOptions) -> Iterator[GazeRows]:
    size = path.stat().st_size
    with _opened(path) as file:
        _header(file)
        reader = csv.reader(file, delimiter=separator)
        try:
            while rows := list(islice(reader, ROWS)):
                yield _as_arrays(rows, columns, options, read=min(size, _position(file)))
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path}: line {reader.line_num + 1} cannot be read ({error}); export it again") from error


def _position(file: TextIO) -> int:
    """Bytes taken from the file; what Python has read ahead is among them."""
    return os.lseek(file.fileno(), 0, os.SEEK_CUR)


def _as_arrays(rows: Sequence[Sequence[str]], columns: Columns, options: FromGazeOptions, read: int) -> GazeRows:
    def texts(role: str) -> list[list[str]]:
        places = columns.places.get(role, ())
        return [[row[place].strip() if place < len(row) else "" for row in rows] for place in places]

    def numbers(role: str, unit: float = 1.0) -> Floats:
        """Mean of what is there of the role's columns, NaN where nothing is."""
        each = np.array([[number(text) for text in column] for column in texts(role)]) * unit  # (column, row)
        if not len(each):
            return np.full(len(rows), np.nan)
        there = np.isfinite(each)
        total = np.where(there, each, 0.0).sum(axis=0)
        return np.asarray(np.divide(total, there.sum(axis=0), out=np.full(len(rows), np.nan), where=there.any(axis=0)))

    time_unit = _unit(options.time_unit, columns.unit_of("time"), "s")
    duration_unit = _unit(options.duration_unit, columns.unit_of("duration"), time_unit)
    share = position_unit(options, columns) == "share"
    time = numbers("time", SECONDS[time_unit])
    if "start" in columns.places:
        time = time - numbers("start", SECONDS[time_unit])
    x, y = numbers("x"), numbers("y")
    origin = columns.export.origin if options.time_origin == "auto" else options.time_origin
    return GazeRows(
        videos=next(iter(texts("video")), []),
        observers=next(iter(texts("observer")), [""] * len(rows)),
        time=time,
        frame=numbers("frame"),
        last_frame=numbers("last_frame"),
        duration=numbers("duration", SECONDS[duration_unit]),
        x=x,
        y=1.0 - y if share and columns.export.y_upwards else y,
        state=_states(
            placed=np.isfinite(x) & np.isfinite(y),
            valid=_valid(texts, len(rows), options.confidence, codes=columns.export.codes) & (numbers("pupil") != 0),
            fixating=_fixating(texts, len(rows)) | options.saccades,
        ),
        share=share,
        from_first=origin == "first",
        read=read,
    )


def position_unit(options: FromGazeOptions, columns: Columns) -> str:
    """px or share: what x and y of a table are."""
    return _unit(options.position_unit, columns.unit_of("x"), "px")


def _unit(given: str, of_column: str | None, otherwise: str) -> str:
    return given if given != "auto" else of_column or otherwise


def _states(placed: NDArray[np.bool_], valid: NDArray[np.bool_], fixating: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """(row,) the first thing that is wrong with each; trackers leave positions empty where they see no eye."""
    states = np.where(~placed, NO_POSITION, np.where(~valid, INVALID, np.where(~fixating, NOT_FIXATING, GOOD)))
    return states.astype(np.uint8)


def number(text: str) -> float:
    """A number with a point or a comma; NaN for what is none, as `.` and `NA` in exports."""
    try:
        value = float(text)
    except ValueError:
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            return math.nan
    return value if math.isfinite(value) else math.nan


def _valid(texts: Texts, rows: int, confidence: float, *, codes: bool) -> NDArray[np.bool_]:
    """(row,) whether an eye was seen: by one of two where the table tells them apart, and in no blink."""
    valid = np.ones(rows, bool)
    if eyes := texts("validity"):
        known = [{text: _is_valid(text, confidence, codes=codes) for text in set(eye)} for eye in eyes]
        valid = np.any([[of[text] for text in eye] for of, eye in zip(known, eyes, strict=True)], axis=0)
    for column in texts("invalid"):
        valid &= ~_is_true(column)
    return valid


def _is_true(column: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([text.lower() in _TRUE or number(text) == 1 for text in column], bool)


def _is_valid(text: str, confidence: float, *, codes: bool) -> bool:
    if text.lower() in _TRUE or text.lower() in _FALSE:
        return text.lower() in _TRUE
    return number(text) <= 1 if codes else number(text) >= confidence


def _fixating(texts: Texts, rows: int) -> NDArray[np.bool_]:
    """(row,) True where a movement is called fixation or has a fixation's number, and outside of saccades; everywhere
    where the table has no such column."""
    fixating = np.ones(rows, bool)
    for column in texts("movement"):
        known = {text: text.lower().startswith("fix") or not math.isnan(number(text)) for text in set(column)}
        fixating &= np.array([known[text] for text in column], bool)
    for column in texts("saccade"):
        fixating &= ~_is_true(column)
    return fixating


@contextmanager
def new_table(path: Path) -> Iterator[TextIO]:
    """A table to write points into; it has its name when all of them are written, and is not there otherwise.

    Raises DataError where it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(HEADER)
            yield file
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}); give another place") from error
    finally:
        partial.unlink(missing_ok=True)


def write_points(file: TextIO, video: str, frame: int, points: NDArray[np.int64], size: tuple[int, ...]) -> None:
    """Write pixels (point, 2), each (y, x), of a map of that size as shares of the picture: the middle of each one."""
    shares = (points + 0.5) / size
    csv.writer(file, lineterminator="\n").writerows((video, frame, repr(float(x)), repr(float(y))) for y, x in shares)
