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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyhd_pipe.store.errors import SettingError
from tinyhd_pipe.store.whole_file import write_whole

# A name that Python cannot import, or a wheel's maker would take the folder for a package that was forgotten.
PAGE = Path(__file__).parent / "web-page"
NAME = "student"
"""Of the network's files."""
RUNTIME = "ort"


def check_web(kind: str, inapt: Sequence[str]) -> None:
    """Raises SettingError for a network, and for options of other formats (`inapt`), that a page has no use for."""
    if kind != "tinyhd":
        raise SettingError(f"--format web: a page runs students, and {kind} takes seconds a frame there; give tinyhd")
    if inapt:
        raise SettingError(
            f"--format web: the page scales frames itself and shows `final`, in float32; leave out {inapt[0]}"
        )


def write_page(out: Path, runtime: Mapping[str, Path], *, overwrite: bool) -> tuple[Path, ...]:
    """Put everything but the network into `out`; before that is made, so that what fails here costs nothing.

    Arguments:
        runtime: name -> file, as from `runtime_files`.
        overwrite: replace files of these names that hold something else; refused otherwise.

    Returns what is there now. Raises SettingError for a file that is in the way, OSError where none can be written.
    """
    if out.exists() and not out.is_dir():
        raise SettingError(f"{out}: is a file; give a folder")
    contents = {
        **{f"{RUNTIME}/{name}": path.read_bytes() for name, path in runtime.items()},
        **{file.name: file.read_bytes() for file in sorted(PAGE.iterdir()) if file.is_file()},
    }
    places = {out / name: content for name, content in contents.items()}
    new = {path: content for path, content in places.items() if not path.is_file() or path.read_bytes() != content}
    if (other := next((path for path in new if path.exists()), None)) and not overwrite:
        raise SettingError(f"{other}: is there, and is not of this page; give another --out, or --overwrite")
    (out / RUNTIME).mkdir(parents=True, exist_ok=True)
    for path, content in new.items():
        write_whole(path, content)
    return tuple(places)


def write_facts(out: Path, facts: Mapping[str, Any]) -> Path:
    """Leave what the exported network says of itself beside it, where a page can read it. Raises OSError."""
    path = out / f"{NAME}.json"
    write_whole(path, (json.dumps(facts, indent=2, sort_keys=True) + "\n").encode())
    return path
