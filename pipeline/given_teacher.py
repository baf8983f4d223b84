"""The teacher that a dump or a check of one is given: a network of ours by its weights, or a file somebody exported."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from tinyhd_pipe.pipeline import console

if TYPE_CHECKING:
    from tinyhd_pipe.pipeline.params import Params, TeacherDump, TeacherEntry
    from tinyhd_pipe.stages.dump.cluster_work import Sent
    from tinyhd_pipe.stages.dump.exported_maps import ExportedMaps
    from tinyhd_pipe.stages.networks.network import Network
    from tinyhd_pipe.stages.video.sources import VideoSource

EXPORTED = ("onnx", "torch")
"""Kinds of teachers that are graphs in a file."""


@dataclass(frozen=True)
class GivenTeacher:
    """A teacher, and how workers get it."""

    maps: "Network | ExportedMaps"
    file: "Sent"


def given_teacher(
    entry: "TeacherEntry", sources: "Sequence[VideoSource]", *, params: "Params", group: "TeacherDump", device: str
) -> GivenTeacher:
    """Load the teacher of a dump; a store that was begun has decided precision and batch already.

    An exported file is held against what was said of it, on the first of the videos. Raises WeightsError for a file of
    something else, SettingError for settings that it does not go with.
    """
    from tinyhd_pipe.stages.dump.cluster_work import TeacherFile
    from tinyhd_pipe.stages.networks.network import load_teacher
    from tinyhd_pipe.store.writer import read_description

    there = read_description(entry.store)
    size, batch = entry.size or group.size, entry.batch or group.batch
    batch = batch or (there.provenance.get("batch") if there else None)
    if entry.teacher in EXPORTED:
        told = entry.exported or params.exported_teacher
        return _exported(replace(entry, size=size, batch=batch, exported=told), sources, device)
    precision = entry.precision or group.precision
    if there and precision == "auto":
        precision = there.teacher.get("precision", precision)
    on = console.device(device)
    network = load_teacher(entry.teacher, weights=entry.weights, size=size, precision=precision, batch=batch, device=on)
    return GivenTeacher(network, TeacherFile.of(network, entry.weights))


def _exported(entry: "TeacherEntry", sources: "Sequence[VideoSource]", device: str) -> GivenTeacher:
    from tinyhd_pipe.stages.dump.exported_check import check_exported
    from tinyhd_pipe.stages.dump.exported_loading import ExportedFile, load_exported_teacher

    assert entry.exported is not None
    kind: Literal["onnx", "torch"] = "onnx" if entry.teacher == "onnx" else "torch"
    on = _device(kind, device)
    maps = load_exported_teacher(kind, entry.weights, entry.exported, size=entry.size, batch=entry.batch, device=on)
    for warning in check_exported(maps, sources):
        console.say(f"{entry.weights}: {warning}")
    return GivenTeacher(maps, ExportedFile.of(maps, entry.exported))


def _device(kind: str, device: str) -> str:
    """`auto` of ONNX Runtime is the CPU, unless it was built for CUDA."""
    if kind != "onnx" or device != "auto":
        return console.device(device)
    from tinyhd_pipe.stages.exports.packages import needed

    providers = needed("onnxruntime", "--teacher onnx").get_available_providers()
    return console.device(device) if "CUDAExecutionProvider" in providers else "cpu"
