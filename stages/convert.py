"""Weights files from one format into the other: published `.pth` to `.safetensors` with facts, and back.

As safetensors a file carries what it is as facts, with the digest of the file that it was taken from and its terms.
Back, it becomes what published code loads: keys in their published order, below `student_model` where the published
file has them there. A round trip keeps every bit of every tensor.

The decision that is not obvious: nothing is converted by its name; what facts there are to be said of a file, and
whether it is one of ours at all, is found by loading its network (exports/published.py). Cost: tensors and file are in
memory at once, twice over.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyhd_pipe.stages.exports.published import facts_of_file, kind_of, published_order, write_published
from tinyhd_pipe.stages.networks.licence import NONE_STATED
from tinyhd_pipe.stages.networks.network import Kind, Unshown
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.store.errors import SettingError

FACTS, PUBLISHED = (".safetensors",), (".pth", ".pt")
"""Endings of the two formats."""


@dataclass(frozen=True)
class Converted:
    """What was written."""

    out: Path
    kind: Kind
    facts: dict[str, Any]
    """What the new file says of itself; in a `.pth`, what the old one said and the new one cannot."""
    tensors: int
    bytes: int


def convert(
    file: Path,
    out: Path,
    *,
    unshown: Unshown | None = None,
    licence: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write the weights in `file`, of either format, to `out`, whose ending says in which one.

    Arguments:
        file: TinyHD or HD2S, published or ours; read without running code.
        unshown: what a published TinyHD file does not show, where it is not as published by default.
        licence: terms that the owner gives to weights which say none.
        overwrite: write over what `out` is now.

    Raises WeightsError for a file that is missing, unsafe, damaged or of another network, SettingError for an ending
    that is not known, an `out` that is there, and options that contradict what the file says.
    """
    _check_out(file, out, overwrite=overwrite)
    read = read_weights(file)
    kind = kind_of(file, read)
    facts, module = facts_of_file(file, read, kind, unshown or Unshown())
    if licence is not None and read.facts.get("licence", NONE_STATED) not in (NONE_STATED, licence):
        raise SettingError(f"licence {licence!r}: the file itself says {read.facts['licence']!r}; leave it out")
    facts["licence"] = licence or facts["licence"]
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() in FACTS:
        write_weights(out, read.state, facts)
    else:
        write_published(out, kind, {name: read.state[name] for name in published_order(kind, module)})
    return Converted(out, kind, facts, len(read.state), out.stat().st_size)


def _check_out(file: Path, out: Path, *, overwrite: bool) -> None:
    if out.is_dir():
        raise SettingError(f"{out}: is a folder; name the file to write in it")
    if out.suffix.lower() not in FACTS + PUBLISHED:
        raise SettingError(f"{out}: its ending says no format; expected {', '.join(FACTS + PUBLISHED)}")
    if out.parent.exists() and not out.parent.is_dir():
        raise SettingError(f"{out.parent}: is a file, not a folder to write {out.name} in; give another place")
    if out.exists() and file.exists() and out.samefile(file):
        raise SettingError(f"{out}: is the file that is read; give another name")
    if out.exists() and not overwrite:
        raise SettingError(f"{out}: is there already; give another name, or add --overwrite")
