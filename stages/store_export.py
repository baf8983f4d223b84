"""A store's maps as files for tools that do not read zarr, a video or a group of videos at a time.

The decision that is not obvious: what is finished is written down after it has got its name, with a digest of what it
was made from. So a rerun, killed whenever, makes what is missing or has changed in the store and nothing else, and a
folder is never of two stores. Beside the maps lies `about.json`: teacher, terms, levels, size. Cost: reading and
writing the maps, as predictions/exported.py has it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tinyhd_pipe.stages.networks.licence import NONE_STATED
from tinyhd_pipe.stages.pictures.contact_sheet import the_same_video
from tinyhd_pipe.stages.predictions.exported import (
    frames_file,
    key_in_tars,
    maps_of,
    pyarrow,
    write_array,
    write_pictures,
    write_table,
    write_tar,
)
from tinyhd_pipe.stages.settings.predict import Brightness
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.reader import Store, open_store
from tinyhd_pipe.store.whole_file import write_whole

ABOUT, DONE = "about.json", "done.jsonl"
StoreFormat = Literal["png", "npy", "webdataset", "parquet"]
ENDINGS = {"webdataset": "tar", "parquet": "parquet"}
"""Of formats that hold several videos in a file."""


@dataclass(frozen=True)
class ExportWanted:
    """What is made of a store."""

    format: StoreFormat = "png"
    levels: tuple[str, ...] = ("final",)
    size: tuple[int, int] | None = None
    """(y, x) of the maps; None: the teacher's."""
    brightness: Brightness = "peak"
    """Of 8 bits: peak, a map's own maximum is 255; absolute, 1 is."""
    frames_a_file: int = 2048
    """Of formats that hold several videos in a file: frames after which the next one begins."""
    videos: tuple[VideoSource, ...] = ()
    """Of webdataset: the videos that were dumped, whose frames go beside their maps."""


@dataclass(frozen=True)
class Exported:
    """What an export left."""

    out: Path
    videos: int
    """Videos of the store that have maps."""
    frames: int
    """Maps of each level that this run wrote."""
    written: int
    """Files, or folders of pictures, that this run made."""
    already_there: int
    without_maps: tuple[str, ...]
    """Ids of the others."""


@dataclass(frozen=True)
class _Unit:
    """One file, or one folder of pictures."""

    name: str
    """Below the folder."""
    rows: tuple[VideoRow, ...]
    write: Callable[[Path], int]
    """Writes to a path and returns how many frames it holds."""

    @property
    def made_from(self) -> str:
        """Digest of what the maps of these videos follow from, the store's own facts aside."""
        facts = [(row.id, row.digest, row.maps, row.frames, row.rows, row.failed) for row in self.rows]
        return hashlib.sha256(repr(facts).encode()).hexdigest()


def export_store(
    url: str,
    out: Path,
    wanted: ExportWanted,
    *,
    report: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Exported:
    """Write the maps of a store below a folder; what is there and has not changed stays.

    `report` is told (frames done, frames in all, file at hand). Raises StoreError where there is no store, SettingError
    for levels that it does not have, for a folder that holds something else, or for two videos of one name in tars,
    VideoError where videos are given, and one of the store's is not among them or has changed.
    """
    store = open_store(url)
    if wanted.format == "parquet":
        pyarrow()  # says that it is missing before anything is written
    if wanted.format == "webdataset":
        _refuse_one_name_for_two(store.videos)
    if unknown := [level for level in wanted.levels if level not in store.levels]:
        raise SettingError(f"--levels {unknown[0]}: {url} has {', '.join(store.levels)}")
    wanted = replace(wanted, size=wanted.size or store.description.teacher_grid)
    rows = [store.video(video) for video in store.videos]
    having = [row for row in rows if row.rows > len(row.failed)]
    if wanted.videos:
        wanted = replace(wanted, videos=tuple(the_same_video(store, row.id, wanted.videos) for row in having))
    units = list(_units(store, having, wanted))
    done = _begin(store, out, wanted)
    todo = [unit for unit in units if done.get(unit.name) != unit.made_from or not (out / unit.name).exists()]
    _remove(out, [name for name in done if name not in {unit.name for unit in units}])
    written, total = 0, sum(_frames(unit) for unit in todo)
    told = 0
    for unit in todo:
        report(told, total, unit.name)
        written += _write(out, unit)
        told += _frames(unit)
    report(total, total, "")
    without = tuple(row.id for row in rows if row.rows <= len(row.failed))
    frames = written // len(wanted.levels) if wanted.format in ("png", "npy") else written
    return Exported(out, len(having), frames, len(todo), len(units) - len(todo), without)


def _refuse_one_name_for_two(videos: Sequence[str]) -> None:
    """Raise SettingError where readers of tars would take the samples of two videos for those of one."""
    taken: dict[str, str] = {}
    for video in videos:
        other = taken.setdefault(key_in_tars(video), video)
        if other != video:
            raise SettingError(
                f"--format webdataset: {other} and {video} are both {key_in_tars(video)} in tars, where names have no "
                "dot; use another format, or dump one of them under another name"
            )


def _frames(unit: _Unit) -> int:
    return sum(row.rows for row in unit.rows)


def _units(store: Store, rows: Sequence[VideoRow], wanted: ExportWanted) -> Iterator[_Unit]:
    if wanted.format in ENDINGS:
        sources = {row.id: source for row, source in zip(rows, wanted.videos, strict=False)}
        write = partial(write_tar, sources=sources) if wanted.format == "webdataset" else write_table
        for number, group in enumerate(_groups(rows, wanted.frames_a_file)):

            def write_group(path: Path, group: tuple[VideoRow, ...] = group) -> int:
                return write(path, [(row.id, maps_of(store, row.id, wanted.levels, wanted.size)) for row in group])

            yield _Unit(f"maps-{number:05d}.{ENDINGS[wanted.format]}", group, write_group)
        return
    for level in wanted.levels:
        folder = f"{level}/" if len(wanted.levels) > 1 else ""
        for row in rows:
            ending = "" if wanted.format == "png" else ".npy"
            yield _Unit(f"{folder}{row.id}{ending}", (row,), partial(_write_video, store, row, level, wanted))


def _groups(rows: Sequence[VideoRow], frames: int) -> Iterator[tuple[VideoRow, ...]]:
    group: list[VideoRow] = []
    for row in rows:
        if group and sum(other.rows for other in group) + row.rows > frames:
            yield tuple(group)
            group = []
        group.append(row)
    if group:
        yield tuple(group)


def _write_video(store: Store, row: VideoRow, level: str, wanted: ExportWanted, path: Path) -> int:
    assert wanted.size is not None
    maps = maps_of(store, row.id, (level,), wanted.size)
    if wanted.format == "png":
        return write_pictures(path, maps, level, wanted.brightness)
    return write_array(path, maps, level, (row.rows, *wanted.size))


def _write(out: Path, unit: _Unit) -> int:
    """Write one unit beside, give it its name, and note it."""
    place = out / unit.name
    partial_ = place.with_name(f".{place.name}.partial")
    _remove(out, [unit.name, partial_.relative_to(out).as_posix()])
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        frames = unit.write(partial_)
        if frames_file(partial_).exists():
            frames_file(partial_).replace(frames_file(place))
        partial_.replace(place)
    finally:
        _remove(out, [partial_.relative_to(out).as_posix()])
    with (out / DONE).open("a") as file:
        file.write(json.dumps({"unit": unit.name, "made_from": unit.made_from}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    return frames


def _remove(out: Path, names: Sequence[str]) -> None:
    for place in (out / name for name in names):
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        frames_file(place).unlink(missing_ok=True)


def _begin(store: Store, out: Path, wanted: ExportWanted) -> dict[str, str]:
    """Unit to what it was made from, of those that the folder has; writes `about.json` where it is new.

    Raises SettingError where something else lies there, or an export of another store or of another kind.
    """
    about = _about(store, wanted)
    if not (out / ABOUT).exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise SettingError(f"{out}: is there and was not made by store export; give another --out")
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / ABOUT, json.dumps(about, indent=1).encode())
        return {}
    try:
        there = json.loads((out / ABOUT).read_bytes())
    except ValueError as error:
        raise SettingError(f"{out / ABOUT}: not what store export leaves; give another --out") from error
    for fact, value in json.loads(json.dumps(about)).items():
        if there.get(fact) != value:
            said = f"made with {fact} = {_short(there.get(fact))}, not {_short(value)}"
            raise SettingError(f"{out}: {said}; give another --out")
    return dict(_noted(out / DONE))


def _noted(path: Path) -> Iterator[tuple[str, str]]:
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            plain = json.loads(line)
            yield plain["unit"], plain["made_from"]
        except (ValueError, KeyError):  # the last one, where the disk was full
            continue


def _about(store: Store, wanted: ExportWanted) -> dict[str, Any]:
    description = store.description
    return {
        "format": wanted.format,
        "levels": list(wanted.levels),
        "size": list(wanted.size or ()),
        "values": "of 8 bits, by brightness" if wanted.format == "png" else "float, in [0, 1]",
        "brightness": wanted.brightness,
        "frames_a_file": wanted.frames_a_file,
        "frames_beside": bool(wanted.videos),
        "teacher": dict(description.teacher),
        "temporal": vars(description.temporal),
        "licence": description.provenance.get("licence", NONE_STATED),
        "fidelity": description.budget,
    }


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:40] + "…"
