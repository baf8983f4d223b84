"""What a command is given: the videos below its paths, with a line on what was passed over there; and the paths."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinyhd_pipe.pipeline import console

if TYPE_CHECKING:
    from tinyhd_pipe.stages.video.sources import VideoSource


def given_videos(paths: Sequence[str | Path]) -> "list[VideoSource]":
    """The videos at `paths`; says of each folder how many files in it were not taken, and of which endings.

    Raises VideoError where there is none.
    """
    from tinyhd_pipe.stages.video.sources import search_videos

    found = search_videos(paths)
    for left_out in found.left_out:
        console.say(str(left_out))
    return list(found.videos)


def given_paths(**given: object) -> dict[str, list[str]]:
    """Option -> the paths and URLs that were given of it, as text; options that were left out are not in it.

    URLs are without their passwords: this is written down.
    """
    from tinyhd_pipe.stages.video.remote import public

    rows = {option: paths if isinstance(paths, list) else [paths] for option, paths in given.items()}
    return {
        option: [public(str(path)) for path in paths] for option, paths in rows.items() if paths not in ([None], [])
    }
