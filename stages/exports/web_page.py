"""A folder that is a page: a student, the runtime beside it, and a page that draws its maps over any video.

    index.html, style.css    the page; its Content-Security-Policy lets it load nothing from elsewhere
    app.js                   what people do with it
    student.js               frames to maps, for any other page, too
    student.onnx, .json      the network as exported to ONNX, and what it says of itself
    ort/                     ONNX Runtime Web (web_runtime.py)

The decision that is not obvious: the network is the exported one as it is. Written with 2D operators alone (temporal
kernels as sums of 2D ones, or banded over all frames) it gave the same maps, in the same time or a third more: there is
nothing to rewrite for. Cost: 17 MB, nearly all of it the runtime.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.whole_file import write_whole

# A name that Python cannot import, or a wheel's maker would take the folder for a package that was forgotten.
PAGE = Path(__file__).parent / "web-page"
NAME = "student"
"""Of the network's files."""
RUNTIME = "ort"


def check_web(kind: str, *, all_maps: bool, with_preprocessing: bool) -> None:
    """Raises SettingError for what a page cannot show."""
    if kind != "tinyhd":
        raise SettingError(f"--format web: a page runs students, and {kind} takes seconds a frame there; give tinyhd")
    for asked, option in ((all_maps, "--all-maps"), (with_preprocessing, "--with-preprocessing")):
        if asked:
            raise SettingError(f"--format web: the page scales frames itself and shows `final`; leave out {option}")


def write_page(out: Path, facts: Mapping[str, Any], runtime: Mapping[str, Path]) -> tuple[Path, ...]:
    """Put the page around `student.onnx` in `out`.

    Arguments:
        facts: of the exported network (exports/facts.py).
        runtime: name -> file, as from `runtime_files`.

    Returns what was written. Raises OSError where it cannot be.
    """
    (out / RUNTIME).mkdir(parents=True, exist_ok=True)
    contents = {
        **{file.name: file.read_bytes() for file in sorted(PAGE.iterdir()) if file.is_file()},
        **{f"{RUNTIME}/{name}": path.read_bytes() for name, path in runtime.items()},
        f"{NAME}.json": (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode(),
    }
    for name, content in contents.items():
        write_whole(out / name, content)
    return tuple(out / name for name in contents)
