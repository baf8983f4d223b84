"""The command that turns weights files of one format into the other, and what it says of them.

What is heavy is imported inside, so `--help` answers at once.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from tinyhd_pipe.pipeline import console
from tinyhd_pipe.pipeline.options import Json
from tinyhd_pipe.store.errors import SettingError

if TYPE_CHECKING:
    from tinyhd_pipe.stages.convert import Converted


def convert(
    file: Annotated[Path, Argument(help="Weights of TinyHD or HD2S, .pth or .safetensors.", metavar="FILE")],
    out: Annotated[Path, Argument(help="The file to write: .safetensors with facts, or .pth.", metavar="OUT")],
    d1_outputs: Annotated[
        int | None,
        Option(help="Maps of D1 in a 16-output student, 1 or 16: a .pth does not show it.", metavar="N"),
    ] = None,
    fusion_order: Annotated[
        str | None,
        Option(
            help="Order in which the decoders meet the fusion, as in d2,d3,d1: a .pth does not show it.", metavar="D"
        ),
    ] = None,
    licence: Annotated[
        str | None, Option(help="Terms that their owner gives to weights that say none.", metavar="TERMS")
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Write over OUT.")] = False,
    as_json: Json = False,
) -> None:
    """Turn a published .pth into .safetensors that says what it is, or either back into a .pth as published.

    tinyhd-pipe convert d123m_rc4_rc1T.pth d123m_rc4.safetensors
    tinyhd-pipe convert runs/student/best.safetensors student.pth
    """
    from tinyhd_pipe.stages.convert import convert as stage
    from tinyhd_pipe.stages.networks.network import Unshown

    if licence is not None and not licence.strip():
        raise SettingError(f"--licence {licence!r}: expected one line of text; leave it out to say nothing")
    order = tuple(fusion_order.replace(",", " ").split()) if fusion_order is not None else None
    written = stage(file, out, unshown=Unshown(d1_outputs, order), licence=licence, overwrite=overwrite)
    _show(written)
    console.result(written, as_json=as_json)


def _show(written: "Converted") -> None:
    facts = written.facts
    if written.kind == "hd2s":
        network = f"HD2S of width {facts.get('width', 1):g}"
    else:
        maps = "a map" if facts["outputs"] == 1 else f"{facts['outputs']} maps"
        network = f"TinyHD, {' '.join(facts['decoders'])}, reduction {facts['reduction']}, {maps} of a window"
    console.say(f"{written.out}: {network}; {written.tensors} tensors, {console.size(written.bytes)}")
    console.say(f"terms: {facts['licence']}")
    if written.out.suffix.lower() != ".safetensors":
        console.say("a .pth says nothing of itself: hand on these terms beside it" + _unshown(facts))


def _unshown(facts: dict[str, object]) -> str:
    """What whoever loads the `.pth` has to be told, since it is not as published by default."""
    told = []
    if facts.get("d1_outputs", 1) != 1:
        told.append(f"d1_outputs={facts['d1_outputs']}")
    if facts.get("fusion_order", facts.get("decoders")) != facts.get("decoders"):
        told.append(f"fusion_order={facts['fusion_order']}")
    return f", and {' and '.join(told)}" if told else ""
