"""A mistake in one line: what Typer and the system say of it, in words that name the value and what to do.

Our own errors say so themselves; these are the two kinds that come from elsewhere. Neither knows what a user was about
to do, so a wrong option leads to the help of its own command, and a path to what stands in its way.
"""

import errno
import re
from pathlib import Path
from typing import Any

PARTIAL = ".partial"
"""What a file is called while it is written."""


def of_usage(error: Any) -> str:
    """A wrong command, option or value, and where to look; empty where the help was shown instead.

    `error` is Typer's, with the context of the command that it belongs to.
    """
    said = str(getattr(error, "format_message", error.__str__)()).replace("Value error, ", "")
    if not said:
        return ""
    said = re.sub(r"^Invalid value for '([^']+)': (.)", lambda found: f"{found[1]}: {found[2].lower()}", said)
    names: list[str] = []
    context = getattr(error, "ctx", None)
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    return f"{said}{'' if said[-1] in '.?' else '.'} See {' '.join(['tinyhd-pipe', *names, '--help'])}."


def of_system(error: OSError) -> str:
    """A file or folder that cannot be had."""
    path = Path(str(error.filename or "output").removesuffix(PARTIAL))
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        # The nearest one that is there and no folder stands in the way.
        in_the_way = next((place for place in (path, *path.parents) if place.is_file()), path)
        where = f"{path}: " if in_the_way != path else ""
        return f"{where}{in_the_way}: is a file, and a folder is wanted there; give another place"
    advice = {
        errno.EISDIR: "is a folder; name a file in it",
        errno.ENOSPC: "no space left on the device; make room, then run the same command again",
        errno.EACCES: "permission denied; change its rights, or give another place",
        errno.EROFS: "read-only file system; give another place",
    }
    return f"{path}: {advice.get(error.errno or 0, error.strerror)}"
