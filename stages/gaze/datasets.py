"""Data sets as people have them: which layout a folder has, and what is found in it."""

from pathlib import Path

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideos
from tinyhd_pipe.stages.gaze.dhf1k import find_dhf1k
from tinyhd_pipe.store.errors import SettingError

LAYOUTS = {"dhf1k": find_dhf1k}
"""Name, as `--layout` takes it, to what finds the videos of such a folder."""


def find_annotated_videos(root: Path, layout: str | None = None) -> AnnotatedVideos:
    """Find the videos below `root` that have density maps, and what was left out there.

    `layout` is a name among LAYOUTS; None: it is recognised. Raises DataError where `root` has no such layout or
    nothing in it matches, SettingError for a layout that there is none of.
    """
    if layout is not None and layout not in LAYOUTS:
        raise SettingError(f"layout {layout!r}: expected one of {', '.join(LAYOUTS)}, or none to recognise it")
    return LAYOUTS[layout or "dhf1k"](root)
