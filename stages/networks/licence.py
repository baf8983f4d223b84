"""Under which terms weights may be handed on, and with them maps and students that are made of them.

The decision that is not obvious: terms follow the weights file, never the kind of network. Our own files carry them as
a fact. A published checkpoint has no facts, so it is known by what it lacks: a file without any facts that holds HD2S
at its published width, or TinyHD, is taken for the published one, whose keys and shapes it has. Somebody's own fit in
that format is taken for it, too, which errs on the strict side; `teacher-train --weights FILE --licence TERMS` writes
its owner's terms into a file of ours. A reduced HD2S was never published. Costs nothing.

Terms that forbid commercial use are asked about once, where a store begins: the store remembers, and what is made from
it inherits the terms without a further question.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from tinyhd_pipe.stages.networks.imagenet import MOBILENET_V2
from tinyhd_pipe.stages.networks.weights import Weights
from tinyhd_pipe.store.errors import SettingError

NONE_STATED = "none stated"
PUBLISHED: Mapping[str, str] = {
    "hd2s": "CC BY-NC 4.0 (published HD2S code and weights)",
    "tinyhd": "none stated (published TinyHD code and weights)",
}
"""Terms of the published checkpoints, by kind of network."""
TORCHVISION = "BSD-3-Clause (torchvision's MobileNetV2; ImageNet has terms of its own)"
AND = " + "
"""Between the terms of several sources, all of which hold."""
ACCEPTED: Mapping[str, str] = {"noncommercial": "accepted"}
"""The fact of a store whose terms forbid commercial use, which was known when it was made."""
_FORBIDS = re.compile(
    r"\bNC\b|non[- ]?commercial|\b(no|not for|without) commercial|research (use |purposes )?only", re.IGNORECASE
)


@dataclass(frozen=True)
class Start:
    """Somebody's weights that a network starts from."""

    sha256: str
    """Hexadecimal digest of the file."""
    licence: str


def licence_of(kind: str, weights: Weights | None, *, width: float = 1.0) -> str:
    """Terms of a network that was read from this file; `width` is that of HD2S."""
    if weights is None:
        return NONE_STATED
    if "licence" in weights.facts:
        return str(weights.facts["licence"])
    if weights.facts and "taken_from_sha256" not in weights.facts:  # ours, from before files carried terms
        return NONE_STATED
    return PUBLISHED[kind] if width == 1.0 else NONE_STATED


def licence_of_start(weights: Weights, *, otherwise: str = f"{NONE_STATED} (encoder's first weights)") -> str:
    """Terms of image or action weights that an encoder starts from: what the file says, torchvision's of its file, or
    `otherwise`."""
    if "licence" in weights.facts:
        return str(weights.facts["licence"])
    published = PurePath(MOBILENET_V2).stem.rpartition("-")[2]
    return TORCHVISION if weights.sha256.startswith(published) else otherwise


def forbids_commerce(terms: str) -> bool:
    """Whether terms say that commercial use is not allowed: CC's NC, or words. What they do not say is not guessed."""
    return _FORBIDS.search(terms) is not None


def refuse_unasked(terms: str, whose: str, *, allowed: bool) -> None:
    """Raise SettingError where terms forbid commercial use and nobody has said that this is known."""
    if forbids_commerce(terms) and not allowed:
        raise SettingError(
            f"{whose}: its terms, {terms}, forbid commercial use, of its maps and of students that learn from them, "
            "too; --allow-noncommercial says that you know"
        )


def combined(licences: Iterable[str]) -> str:
    """The terms of all sources, each once, in their order; combining what was combined before changes nothing."""
    each = dict.fromkeys(one for licence in licences for one in licence.split(AND))
    return AND.join(each) or NONE_STATED
