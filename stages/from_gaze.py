"""Make fixation and density maps, in the DHF1K layout, from tables as eye trackers export them.

Tables are read a piece at a time and their rows sorted by video on disk; then each video's points become maps in one
folder, which is there whole or not at all. The decision that is not obvious: nothing is resumed. A rerun makes the same
bytes again in place of what is there, and an `annotation` folder that was made otherwise is refused, so what others
recorded is never written over. Cost: 140,000 rows a second to read, and 15 ms a frame of 640x360 on one core.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from tinyhd_pipe.stages.gaze.gaze_columns import Columns
from tinyhd_pipe.stages.gaze.gaze_maps import Gaussian, write_maps
from tinyhd_pipe.stages.gaze.gaze_points import points_of, sigma_of
from tinyhd_pipe.stages.gaze.gaze_table import GazeRows, position_unit, read_gaze_table
from tinyhd_pipe.stages.gaze.spilled_rows import SpilledRows
from tinyhd_pipe.stages.gaze.video_names import VideoNames
from tinyhd_pipe.stages.settings.from_gaze import FromGazeOptions
from tinyhd_pipe.stages.video.frame_times import ShownFrames, shown_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError, VideoError
from tinyhd_pipe.store.whole_file import write_whole

FACTS = "from_gaze.json"
"""Beside the annotation folders: that they may be made anew, and what the last run made of what."""
NAMED = 5
"""Names of videos that are listed."""
Report = Callable[[str, int, int], None]
"""Told (what is done, how much of it, of how much)."""


@dataclass(frozen=True)
class FromGaze:
    """What became of gaze tables."""

    annotation: Path
    """The folder that holds a folder for each video."""
    videos: int
    """Videos that have maps now."""
    frames: int
    """Frames of them that somebody looked at."""
    points: int
    """Fixations of those frames, of all observers."""
    observers: int
    rows: int
    """Of all tables."""
    left_out: Mapping[str, int]
    """Reason to rows that gave no point for it."""
    not_given: Sequence[str]
    """The first names of videos in the tables that are none of those given."""
    columns: Mapping[str, Mapping[str, str]]
    """Table to role to the name of the column that was taken, and how it was read: `export`, its kind, and `positions`,
    px or share (of the picture's width and height)."""
    problems: Mapping[str, str]
    """Video id to one line, for those that could not be read."""


def from_gaze(
    tables: Sequence[Path],
    sources: Sequence[VideoSource],
    out: Path,
    options: FromGazeOptions = FromGazeOptions(),
    *,
    report: Report = lambda name, done, total: None,
) -> FromGaze:
    """Write `annotation/NNNN/{maps,fixation}` below `out` for the videos that rows of the tables are about.

    NNNN is the number that the video is named by; a video without one has its own name there. Maps that earlier runs
    made of other videos stay. Tables without a column of videos are about the only one given, or the one that the table
    is named after.

    Raises DataError for a table that cannot be read or lacks columns, for rows of which none is left, and for an
    `annotation` folder that was not made here.
    """
    annotation = out / "annotation"
    _refuse_what_is_not_ours(annotation)
    folders, names = _folders(sources), VideoNames.of(sources)
    with _room_for_rows(annotation) as room:
        spilled = SpilledRows(room)
        columns = _spill(tables, names, spilled, options, report)
        named = set(spilled.videos())
        shown, problems = _shown([source for source in sources if source.id in named], options)
        made = _make_maps(spilled, shown, {id_: annotation / folders[id_] for id_ in shown}, options, report)
        made.problems |= problems
        made.left_out["of videos that cannot be read"] += sum(len(spilled.of(video)[0]) for video in made.problems)
    result = FromGaze(
        annotation=annotation,
        videos=made.videos,
        frames=made.frames,
        points=made.points,
        observers=len(spilled.observers),
        rows=spilled.rows,
        left_out=dict(sorted((reason, rows) for reason, rows in made.left_out.items() if rows)),
        not_given=names.strangers[:NAMED],
        columns={
            str(table): {"export": of.export.name, "positions": position_unit(options, of), **of.names}
            for table, of in columns.items()
        },
        problems=made.problems,
    )
    if not made.points and not made.problems:
        raise DataError(f"{tables[0]}: no row of {result.rows} is left: {_why(result, names)}")
    facts = {"settings": asdict(options), **asdict(result), "annotation": None, "columns": [*result.columns.values()]}
    write_whole(annotation / FACTS, (json.dumps(facts, indent=1, default=dict) + "\n").encode())
    return result


@contextmanager
def _room_for_rows(annotation: Path) -> Iterator[Path]:
    """An empty folder that is gone afterwards, within one that says that it is ours."""
    room = annotation / ".rows.partial"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    if not (annotation / FACTS).exists():
        write_whole(annotation / FACTS, b"{}\n")
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _refuse_what_is_not_ours(annotation: Path) -> None:
    if annotation.exists() and not (annotation / FACTS).is_file():
        raise DataError(
            f"{annotation}: is there and was not made from gaze tables; give another --out, or move it away"
        )


def _folders(sources: Sequence[VideoSource]) -> dict[str, str]:
    """Video id to the name of its annotation folder: its number with four digits, as DHF1K has it, or its name."""
    folders: dict[str, str] = {}
    for source in sources:
        stem = source.path.stem if not source.is_frame_folder else source.path.name
        folder = f"{int(stem):04d}" if stem.isdecimal() else stem
        if folder in folders.values():
            other = next(id_ for id_, of in folders.items() if of == folder)
            raise DataError(f"{source.id} and {other} would both be annotation/{folder}; rename one of them")
        folders[source.id] = folder
    return folders


def _spill(
    tables: Sequence[Path], names: VideoNames, spilled: SpilledRows, options: FromGazeOptions, report: Report
) -> dict[Path, Columns]:
    """Sort the rows of all tables by video; returns what the columns of each are."""
    sizes = [table.stat().st_size if table.is_file() else 0 for table in tables]
    columns = {}
    report("rows", 0, sum(sizes))
    for number, table in enumerate(tables):
        columns[table], pieces = read_gaze_table(table, options)
        of_all = None if "video" in columns[table].places else names.of_table(table)
        for piece in pieces:
            spilled.add(piece, _ids(piece, names, of_all), table.stem)
            report("rows", sum(sizes[:number]) + piece.read, sum(sizes))
    return columns


def _ids(piece: GazeRows, names: VideoNames, of_all: str | None) -> "np.ndarray[tuple[int], np.dtype[np.str_]]":
    """(row,) the id of each row's video, "" where it was not given."""
    if of_all is not None:
        return np.full(len(piece.time), of_all)
    known = {name: names.id_of(name) or "" for name in dict.fromkeys(piece.videos)}
    return np.array([known[name] for name in piece.videos])


def _shown(sources: Sequence[VideoSource], options: FromGazeOptions) -> tuple[dict[str, ShownFrames], dict[str, str]]:
    """By video id: when its frames are shown, or why that cannot be told."""
    shown, problems = {}, {}
    for source in sources:
        try:
            shown[source.id] = shown_frames(source, fps=options.fps)
        except VideoError as error:
            problems[source.id] = str(error)
    return shown, problems


@dataclass
class _Made:
    left_out: Counter[str]
    videos: int = 0
    frames: int = 0
    points: int = 0
    problems: dict[str, str] = field(default_factory=dict)


def _make_maps(
    spilled: SpilledRows,
    shown: Mapping[str, ShownFrames],
    folders: Mapping[str, Path],
    options: FromGazeOptions,
    report: Report,
) -> _Made:
    made = _Made(Counter(spilled.left_out))
    total = sum(of.frames for of in shown.values())
    begun = 0
    report("frames", 0, total)
    for video, of in shown.items():
        try:
            points = points_of(*spilled.of(video), of, options)
        except VideoError as error:
            made.problems[video] = str(error)
            continue
        made.left_out.update(points.left_out)
        if len(points.frame):
            made.frames += write_maps(
                folders[video],
                points,
                Gaussian(of.size, sigma_of(of.size, options)),
                of.labels,
                pool=options.pool,
                files=options.fixations,
                report=lambda frame, begun=begun: report("frames", begun + frame, total),  # type: ignore[misc]
            )
            made.points += len(points.frame)
            made.videos += 1
        begun += of.frames
        report("frames", begun, total)
    return made


def _why(result: FromGaze, names: VideoNames) -> str:
    """Why nothing is left, and what to look at, by the reason that kept most rows out."""
    reasons = ", ".join(f"{rows} {reason}" for reason, rows in result.left_out.items()) or "the tables are empty"
    worst = max(result.left_out, key=lambda reason: result.left_out[reason], default="")
    if worst == "of videos that were not given":
        given = ", ".join(names.given[:NAMED])
        return f"{reasons}; the tables name {', '.join(result.not_given)}, and given are {given}"
    advice = {
        "before or after the video": "is from_gaze.time_unit, time_origin or first_frame another one?",
        "off the picture": "is from_gaze.position_unit another one, or from_gaze.picture to be set?",
        "no fixation": "set from_gaze.saccades=true to take them all the same",
    }
    return f"{reasons}; {advice.get(worst, 'look at the columns that were taken, and name others with --column')}"
