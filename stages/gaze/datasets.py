"""Data sets as people have them: which layout a folder has, and what is found in it.

A layout is recognised by its names, from a few folders; docs/data.md shows each as a tree.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

from tinyhd_pipe.stages.gaze.aim import find_aim, is_aim
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideos
from tinyhd_pipe.stages.gaze.dhf1k import find_dhf1k
from tinyhd_pipe.stages.gaze.label_folders import has_labels
from tinyhd_pipe.stages.gaze.named_folders import find_by_name
from tinyhd_pipe.stages.gaze.splits import in_split
from tinyhd_pipe.store.errors import DataError, SettingError

PLAIN = "plain"
LAYOUTS: Mapping[str, Callable[[Path], AnnotatedVideos]] = {
    "dhf1k": find_dhf1k,
    "ucf-sports": partial(find_by_name, layout="ucf-sports"),
    "hollywood2": partial(find_by_name, layout="hollywood2"),
    "aim": find_aim,
    PLAIN: partial(find_by_name, layout=PLAIN),
}
"""Name, as `--layout` takes it, to what finds the videos of such a folder."""
SHOTS = "actionclip"
"""How every folder of Hollywood-2 begins."""


def find_annotated_videos(root: Path, layout: str | None = None, *, split: str | None = None) -> AnnotatedVideos:
    """Find the videos below `root` that have density maps, and what was left out there.

    `layout` is a name among LAYOUTS; None: it is recognised. `split`: as in `splits.in_split`. Raises DataError where
    `root` has no such layout (saying what it looks like) or nothing in it matches, SettingError for a layout or split
    that there is none of.
    """
    if layout is not None and layout not in LAYOUTS:
        raise SettingError(f"--layout {layout}: expected one of {', '.join(LAYOUTS)}, or none to recognise it")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the one that holds videos and their maps")
    looks_like = recognised(root)
    try:
        found = LAYOUTS[layout or looks_like](root)
    except DataError as error:
        if layout in (None, looks_like):
            raise
        raise DataError(f"{error}; it looks like {looks_like}: leave --layout {layout} out") from error
    return in_split(found, split) if split else found


def recognised(root: Path) -> str:
    """The layout that a folder's names look like; PLAIN where they look like none."""
    annotated = [folder.name for folder in _folders(root / "annotation")]
    if any(name.isdecimal() for name in annotated):
        return "dhf1k"
    clips = [*annotated, *(clip.name for half in ("training", "testing") for clip in _folders(root / half))]
    if not clips and is_aim(root):
        return "aim"
    clips = clips or [folder.name for folder in _folders(root) if has_labels(folder / "maps")]
    if any(name.startswith(SHOTS) for name in clips):
        return "hollywood2"
    return "ucf-sports" if any(name[-3:].isdecimal() and "-" in name for name in clips) else PLAIN


def _folders(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_dir())
