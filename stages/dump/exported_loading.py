"""Exported files made ready to teach: what a file says of itself, what the settings say for it, and whether both agree.

    maps = load_exported_teacher("torch", Path("net.pt2"), ExportedTeacher(frames=32))

A file that `export` made says all of itself; of any other the settings say it. The decision that is not obvious is how
the head of a video is made. A file of ours says how it was taught, which `predict` goes by; a dump makes heads as every
dump does (settings `head`), so that the exported student gives the store that the student itself gives. Cost: one pass,
in which the size of the maps shows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from tinyhd_pipe.stages.dump.exported_maps import NEXT, STATE, ExportedMaps, Kind
from tinyhd_pipe.stages.dump.map_source import MapSource
from tinyhd_pipe.stages.exports.graph_files import GraphFile, OnnxGraph, Port, TorchGraph
from tinyhd_pipe.stages.networks.inference import ScaledFrame
from tinyhd_pipe.stages.networks.levels import FINAL
from tinyhd_pipe.stages.networks.network import Scaling, Size
from tinyhd_pipe.stages.settings.exported_teacher import ExportedTeacher
from tinyhd_pipe.stages.settings.teacher_dump import LevelName
from tinyhd_pipe.store.errors import SettingError, WeightsError


@dataclass(frozen=True)
class ExportedFile:
    """Everything that a worker must know to load the client's teacher."""

    kind: Kind
    path: str
    told: ExportedTeacher
    size: Size
    batch: int
    device: str

    @staticmethod
    def of(maps: ExportedMaps, told: ExportedTeacher) -> "ExportedFile":
        """The file of these maps; `told` as it was given when they were loaded."""
        path = str(maps.graph.path.absolute())
        return ExportedFile(maps.kind, path, told, maps.scaling.size, maps.batch, maps.device)

    @property
    def files(self) -> tuple[str, ...]:
        return (self.path,)

    def source(self, device: str | None = None) -> MapSource:
        return load_exported_teacher(
            self.kind, Path(self.path), self.told, size=self.size, batch=self.batch, device=device or self.device
        )


def told_by_store(teacher: Mapping[str, Any]) -> ExportedTeacher:
    """What was said of the network whose maps a store holds, from what the store says of its teacher."""
    scaling, window = teacher["preprocessing"], teacher["window"]
    return ExportedTeacher(
        layout=scaling["layout"],
        colours=scaling["colours"],
        mean=tuple(scaling["mean"]),
        std=tuple(scaling["std"]),
        frames=window["frames"],
        spacing=window["spacing"],
        answers=tuple(window["answers"]),
        head=window["head"],
        levels=tuple(teacher["levels"]),
        values=teacher["values"],
    )


def load_exported_teacher(
    kind: Kind,
    path: Path,
    told: ExportedTeacher = ExportedTeacher(),
    *,
    size: Size | None = None,
    batch: int | None = None,
    device: str = "cpu",
) -> ExportedMaps:
    """An .onnx or .pt2 file as a source of maps.

    Arguments:
        told: what the file does not say. A file of ours says everything but `head`, `levels` and `licence`, and what is
            told beside these is refused.
        size: (y, x) of its input, where it leaves that free; 192x256 by default.
        batch: windows in one pass, where the file leaves that free; by default 1, and 8 on a GPU.

    Raises WeightsError for a file that is unsafe, of another kind, or gives no maps; SettingError for settings that do
    not go together.
    """
    own = {".onnx": "onnx", ".pt2": "torch"}.get(path.suffix, kind)
    if own != kind:
        raise SettingError(f"--teacher {kind}: {path} is a file of {own} by its name; use --teacher {own}")
    graph: GraphFile = (OnnxGraph if kind == "onnx" else TorchGraph)(path, device)
    told = _with_facts(graph, told) if graph.facts else told
    clip, told = _with_shape(graph, told)
    shape = clip.shape
    if size and None not in shape[-2:] and size != shape[-2:]:
        raise SettingError(f"size {size[0]}x{size[1]}: {path} takes {shape[-2]}x{shape[-1]} and no other; leave it out")
    y, x = (fixed or free for fixed, free in zip(shape[-2:], size or (192, 256), strict=True))
    outputs = [name for name in graph.outputs if not name.startswith(NEXT)]
    told = replace(told, levels=_levels(path, outputs, told))
    made = ExportedMaps(
        kind=kind,
        graph=graph,
        told=told,
        scaling=Scaling(told.mean, told.std, (y, x)),
        outputs=outputs,
        size=(y, x),
        batch=shape[0] or batch or (1 if device == "cpu" else 8),
        batch_is_fixed=shape[0] is not None,
        device=device,
    )
    _refuse_odd_states(made)
    tried = made.raw([ScaledFrame(0, 0, torch.zeros(3, y, x), decoded=True)] * made.rule.frames)[FINAL]
    return replace(made, size=(tried.shape[-2], tried.shape[-1]))


def _with_facts(graph: GraphFile, told: ExportedTeacher) -> ExportedTeacher:
    """What a file of ours says."""
    facts = graph.facts or {}
    taken, window = facts["input"], facts["window"]
    if taken["dtype"] != "float32":
        raise WeightsError(
            f"{graph.path}: takes frames as decoded, {taken['dtype']}; export it without --with-preprocessing"
        )
    said = ExportedTeacher(
        layout=taken["axes"],
        colours=taken["colours"],
        mean=tuple(taken["mean"]),
        std=tuple(taken["std"]),
        frames=window["frames"],
        answers=tuple(window["answers"]),
        head=told.head,
        levels=told.levels,
        values=facts["values"],
        licence=told.licence or facts["licence"],
    )
    left_out = ExportedTeacher()
    for name, value in vars(told).items():
        if value not in (getattr(left_out, name), getattr(said, name)):
            raise SettingError(f"exported_teacher.{name}: {graph.path} says it of itself; leave the setting out")
    return said


def _with_shape(graph: GraphFile, told: ExportedTeacher) -> tuple[Port, ExportedTeacher]:
    """The input of pictures, and what follows from it. Raises WeightsError or SettingError where both do not agree."""
    clips = [port for port in graph.inputs if not port.name.startswith(STATE)]
    if len(clips) != 1:
        names = ", ".join(port.name for port in graph.inputs) or "none"
        raise WeightsError(f"{graph.path}: its inputs are {names}; expected one, beside those called {STATE}…")
    (clip,) = clips
    shape, axes = clip.shape, told.layout.split()
    said = "x".join("?" if size is None else str(size) for size in shape)
    colours = shape[axes.index("C")] if len(shape) == len(axes) else 0
    if colours not in (3, None):
        raise SettingError(
            f"exported_teacher.layout {told.layout}: {graph.path} takes {clip.name} of {said}; its {len(axes)} axes "
            "must be these, 3 of C"
        )
    if clip.dtype != "float32":
        raise WeightsError(f"{graph.path}: takes {clip.name} as {clip.dtype}; export it for float32")
    fixed = shape[axes.index("T")] if "T" in axes else 1
    if told.frames and fixed and told.frames != fixed:
        raise SettingError(f"exported_teacher.frames {told.frames}: {graph.path} takes {fixed}; leave the setting out")
    frames = fixed or told.frames or 16
    answers = told.answers or (frames - 1,)
    if answers != tuple(range(answers[0], answers[0] + len(answers))) or answers[-1] >= frames:
        raise SettingError(
            f"exported_teacher.answers {list(answers)}: expected places that follow one another, of 0 to {frames - 1}"
        )
    head = told.head or ("reverse" if answers == (frames - 1,) and frames > 1 else "repeat")
    if head == "reverse" and len(answers) > 1:
        raise SettingError("exported_teacher.head reverse: is for windows that answer for one frame; use repeat")
    return clip, replace(told, frames=frames, answers=answers, head=head)


def _levels(path: Path, outputs: Sequence[str], told: ExportedTeacher) -> tuple[LevelName | Literal["-"], ...]:
    """What each output is, - for those that are left out."""
    levels = told.levels
    if levels is None:
        levels = ("final",) if len(outputs) == 1 else tuple(_as_level(name) for name in outputs)
    elif len(levels) != len(outputs):
        raise SettingError(
            f"exported_teacher.levels {list(levels)}: {path} has {len(outputs)} outputs, {', '.join(outputs)}; "
            "name each, - for those that are left out"
        )
    if FINAL not in levels or len(set(levels) - {"-"}) != len(levels) - levels.count("-"):
        raise SettingError(
            f"{path}: one of its outputs, {', '.join(outputs)}, must be the final map; say what they are, in their "
            "order: --set exported_teacher.levels='[final, -]'"
        )
    return levels


def _as_level(name: str) -> LevelName | Literal["-"]:
    return next((level for level in get_args(LevelName) if level == name), "-")


def _refuse_odd_states(maps: ExportedMaps) -> None:
    lacking = [port.name for port in maps.states if f"next_{port.name}" not in maps.graph.outputs]
    if lacking:
        raise WeightsError(
            f"{maps.graph.path}: its state {lacking[0]} has no output next_{lacking[0]}; export it with one"
        )
    if maps.states and maps.told.spacing > 1:
        raise SettingError(
            f"exported_teacher.spacing {maps.told.spacing}: a network with a state sees every frame; use 1"
        )
    for port in maps.states:
        if any(size is None for size in port.shape[1:]):
            raise WeightsError(f"{maps.graph.path}: its state {port.name} has a free shape; export it with a fixed one")
