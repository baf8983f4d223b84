"""Settings as people write them: params.yaml and `--set` are read into the frozen values that the stages take.

What a setting is, its range, its meaning and its published default stand in `stages/settings/`, once; here they are
only read, held against their ranges, and printed. Keys of params.yaml are stage names, and `data` for the paths that
dvc.yaml hands to the commands. What the file leaves out has
the published value; the file in this repository holds the small embedded default instead. `--set stage.key=value`
overrides both.
"""

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.settings.exported_teacher import ExportedTeacher
from tinyhd_pipe.stages.settings.from_gaze import FromGazeOptions
from tinyhd_pipe.stages.settings.predict import PredictOptions
from tinyhd_pipe.stages.settings.ranges import Count, Size
from tinyhd_pipe.stages.settings.report import ReportOptions
from tinyhd_pipe.stages.settings.sample_data import SampleOptions
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions, StoredLevel
from tinyhd_pipe.stages.settings.training import StudentRecipe, TeacherRecipe
from tinyhd_pipe.store.errors import SettingError


@dataclass(frozen=True)
class Data:
    """Where things are when DVC runs the stages; commands typed by hand take paths as options instead."""

    labelled: Path = Path("data/sample/train")
    """labelled clips to learn from, in the DHF1K layout"""
    unlabelled: Path = Path("data/sample/unlabelled")
    """clips without labels"""
    heldout: Path = Path("data/sample/heldout")
    """labelled clips that nobody learns from"""
    teacher_weights: Path = Path("runs/teacher/best.safetensors")
    """of HD2S; another file than the one that fitting leaves is taken as it is, and nothing is fitted"""
    store: str = "data/maps.zarr"
    """folder of the zarr store of teacher maps"""
    assistant: tuple[str, ...] = ()
    """teacher assistant: [] for none, or the name of its folder in runs/, as [rc1]"""
    student_store: str = "data/maps.zarr"
    """of whose maps the student learns: the teacher's store, or one of its own for an assistant's maps"""


@dataclass(frozen=True)
class TeacherDump(DumpOptions):
    """Run the teacher once for every frame and keep its maps."""

    size: Size | None = None
    """height and width of the teacher's input; its own by default"""
    precision: Literal["float32", "bfloat16", "auto"] = "auto"
    """of the teacher; auto: bfloat16 for full-width HD2S where the device has units for it"""
    batch: Count | None = None
    """windows in one forward pass; by default what suits the teacher"""


@dataclass(frozen=True)
class Params:
    """All settings: where things are, and one group for each stage."""

    data: Data = field(default_factory=Data)
    sample_data: SampleOptions = field(default_factory=SampleOptions)
    teacher_train: TeacherRecipe = field(default_factory=TeacherRecipe)
    teacher_dump: TeacherDump = field(default_factory=TeacherDump)
    exported_teacher: ExportedTeacher = field(default_factory=ExportedTeacher)
    assistant_train: StudentRecipe = field(default_factory=StudentRecipe)
    assistant_dump: TeacherDump = field(default_factory=TeacherDump)
    student_train: StudentRecipe = field(default_factory=StudentRecipe)
    evaluate: EvaluateOptions = field(default_factory=EvaluateOptions)
    from_gaze: FromGazeOptions = field(default_factory=FromGazeOptions)
    predict: PredictOptions = field(default_factory=PredictOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


@dataclass(frozen=True)
class TeacherEntry:
    """One of several teachers that share a dump's decoding."""

    store: str
    """folder or URL of its store"""
    weights: Path
    """of the network"""
    teacher: str = "hd2s"
    """kind of the network: hd2s or tinyhd; onnx or torch: a network in a file of these"""
    size: Size | None = None
    """height and width of its input; that of the settings by default"""
    precision: Literal["float32", "bfloat16", "auto"] | None = None
    """that of the settings by default"""
    batch: Count | None = None
    """that of the settings by default"""
    exported: ExportedTeacher | None = None
    """what a file of onnx or torch does not say of itself; exported_teacher of the settings by default"""


_STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
_GROUPS = (
    *(Params, Data, SampleOptions, TeacherRecipe, TeacherDump, StudentRecipe, EvaluateOptions, StoredLevel),
    ExportedTeacher,
    FromGazeOptions,
    PredictOptions,
    ReportOptions,
    TeacherEntry,
)
for _group in _GROUPS:
    for _kind in _group.__mro__[:-1]:  # here and not in stages, which know nothing of pydantic
        _kind.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]


def load_params(file: Path | None, overrides: Sequence[str] | None) -> Params:
    """Read settings from a YAML file and from `stage.key=value` strings, which win.

    Raises SettingError, in one line, for a file that cannot be read, an unknown key (with the nearest known one), or
    a value out of range.
    """
    settings = _read(file) if file else {}
    for override in overrides or ():
        name, equals, value = override.partition("=")
        stage, dot, key = name.partition(".")
        if not equals or not dot:
            raise SettingError(f"--set {override!r}: expected stage.key=value, as in student_train.epochs=10")
        if not isinstance(group := settings.get(stage) or {}, dict):
            raise SettingError(f"{file}: {stage} = {group!r}: expected settings below it")
        settings[stage] = {**group, key: _yaml(value, f"--set {name}")}
    try:
        return TypeAdapter(Params).validate_python(settings)
    except ValidationError as error:
        raise SettingError(_one_line(error, str(file or "--set"))) from error


def load_teachers(file: Path) -> list[TeacherEntry]:
    """Read a list of teachers from a YAML file. Raises SettingError, in one line, where it is something else."""
    example = "expected a list of teachers, as in '- {store: hd2s.zarr, teacher: hd2s, weights: hd2s.pt}'"
    plain = _yaml(_text(file, "a list of teachers"), str(file))
    if not isinstance(plain, list) or not plain:
        raise SettingError(f"{file}: {example}")
    try:
        entries = TypeAdapter(list[TeacherEntry]).validate_python(plain)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        raise SettingError(f"{file}: teacher {int(first['loc'][0]) + 1}: {place}: {first['msg']}; {example}") from error
    if len({entry.store for entry in entries}) < len(entries):
        raise SettingError(f"{file}: two teachers have one store; give each a store of its own")
    return entries


Group = TypeVar("Group")


def group_of(params: Params, name: str, kind: type[Group]) -> Group:
    """The settings of one stage by its name. Raises SettingError where they are not of this kind."""
    groups = {stage: group for stage, group in vars(params).items() if isinstance(group, kind)}
    if name not in groups:
        raise SettingError(f"--settings {name}: expected {' or '.join(groups)}, a group of settings in params.yaml")
    return groups[name]


def _read(file: Path) -> dict[str, Any]:
    settings = _yaml(_text(file, "a params file, or leave --params out"), str(file))
    if not isinstance(settings or {}, dict):
        raise SettingError(f"{file}: expected stages with settings below them, found {type(settings).__name__}")
    return {stage: dict(group) if isinstance(group, dict) else group for stage, group in (settings or {}).items()}


def _text(file: Path, instead: str) -> str:
    try:
        return file.read_text()
    except OSError as error:
        raise SettingError(f"{file}: {error.strerror}; give {instead}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{file}: not YAML ({error})") from error


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except Exception as error:  # besides its own errors PyYAML lets through what a scalar of a wrong form raises
        raise SettingError(f"{where}: not YAML ({' '.join(str(error).split())})") from error


def _one_line(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "unexpected_keyword_argument":
        known = _known_keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"{where}: {'.'.join(place)} is not a setting; {advice}"
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # of a whole group: the reason names the value
        return f"{where}: {'.'.join(place)}: {reason}"
    return f"{where}: {'.'.join(place)} = {first['input']!r}: {reason[0].lower()}{reason[1:]}"


def _known_keys(place: Sequence[str]) -> list[str]:
    group: Any = Params
    for part in place:
        group = next((f.type for f in fields(group) if f.name == part), None) if is_dataclass(group) else None
    return [f.name for f in fields(group)] if is_dataclass(group) else []


def as_yaml(params: Params) -> str:
    """All settings as YAML, each with its explanation as a comment."""
    lines = []
    plain = TypeAdapter(Params).dump_python(params, mode="json")
    for stage, group in plain.items():
        kind = type(getattr(params, stage))
        meanings = _meanings(kind)
        lines += [f"{stage}:  # {kind.__doc__}"]
        for key, value in group.items():
            lines.append(f"  {key}: {json.dumps(value)}" + (f"  # {meanings[key]}" if key in meanings else ""))
        lines.append("")
    return "\n".join(lines)


def _meanings(group: type) -> dict[str, str]:
    """The line under each setting, those of the classes that it extends included."""
    schemas = [TypeAdapter(kind).json_schema() for kind in reversed(group.__mro__) if is_dataclass(kind)]
    return {
        name: setting["description"]
        for schema in schemas
        for name, setting in schema["properties"].items()
        if "description" in setting
    }
