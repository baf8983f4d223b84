"""Which videos of a data set are for what: its official splits, or a list in a file.

DHF1K: videos 1 to 600 train, 601 to 700 val, 701 to 1000 test, whose labels its authors keep (Wang et al., PAMI 2019).
UCF Sports: 103 clips train, 47 test, in the folders `training` and `testing` (Lan et al., ICCV 2011, as Mathe and
Sminchisescu use it). Hollywood-2: by film, 823 clips train and 884 test, in the same two folders (Marszalek et al.,
CVPR 2009; a clip is several shots, and folders are shots). AIM and NTIRE: as `TrainTestSplit.json` in the data set
names them.
"""

from dataclasses import replace
from pathlib import Path, PurePath

from tinyhd_pipe.stages.gaze.aim import names_of_splits
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, AnnotatedVideos, named
from tinyhd_pipe.store.errors import DataError, SettingError

DHF1K = {"train": range(1, 601), "val": range(601, 701), "test": range(701, 1001)}
FOLDERS = {"train": "training", "test": "testing"}


def in_split(found: AnnotatedVideos, split: str) -> AnnotatedVideos:
    """Those of the videos that are in a split: a name of the layout's own, or a file with the name of a video a line.

    Raises SettingError for a name that the layout does not have, DataError for a file that names videos that are not
    there, and where none is left.
    """
    if Path(split).is_file():
        return replace(found, videos=_listed(found, Path(split)))
    if found.layout == "dhf1k":
        names, taken = list(DHF1K), [video for video in found.videos if _number(video) in DHF1K.get(split, ())]
    elif found.layout == "aim" and (splits := names_of_splits(found.videos[0].folder)):
        names, taken = list(splits), [v for v in found.videos if PurePath(v.source.id).stem in splits.get(split, ())]
    elif any(_half(video) for video in found.videos):
        names, taken = list(FOLDERS), [video for video in found.videos if _half(video) == FOLDERS.get(split)]
    else:
        raise SettingError(f"--split {split}: this data set has no splits of its own; give a file, a video a line")
    if split not in names:
        raise SettingError(f"--split {split}: expected {', '.join(names)}, or a file with a video a line")
    if not taken:
        raise DataError(f"--split {split}: none of the {len(found.videos)} videos with density maps is in it")
    return replace(found, videos=tuple(taken))


def _number(video: AnnotatedVideo) -> int:
    return int(PurePath(PurePath(video.source.id).parts[0]).stem)


def _half(video: AnnotatedVideo) -> str | None:
    return next((part for part in video.source.path.parts[::-1] if part in FOLDERS.values()), None)


def _listed(found: AnnotatedVideos, file: Path) -> tuple[AnnotatedVideo, ...]:
    by_name = {name: video for video in found.videos for name in _names_of(video)}
    wanted = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    missing = [name for name in wanted if name not in by_name]
    if missing or not wanted:
        what = f"{len(missing)} of its {len(wanted)} videos are missing: {named(missing)}" if missing else "names none"
        raise DataError(f"{file}: {what}; a line is a video's id, as {found.videos[0].source.id}")
    chosen = {by_name[name].source.id for name in wanted}
    return tuple(video for video in found.videos if video.source.id in chosen)


def _names_of(video: AnnotatedVideo) -> set[str]:
    """A video's id, with and without its ending, and without a folder that says only that it holds frames."""
    path = PurePath(video.source.id)
    shot = path.parent if path.name in ("images", "frames") else path
    return {str(path), str(path.with_suffix("")) if path.suffix else str(path), str(shot), shot.name, shot.stem}
