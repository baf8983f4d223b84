"""Settings: every number that a stage takes, with its range, its published default and a line that explains it.

Keys of params.yaml are stage names. What the file leaves out has the default below, which is the published recipe;
the file in this repository holds the small embedded default instead. `--set stage.key=value` overrides both.
"""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tinyhd_pipe.store.errors import SettingError

Size = tuple[Annotated[int, Field(ge=32, multiple_of=32)], Annotated[int, Field(ge=32, multiple_of=32)]]
Share = Annotated[float, Field(gt=0, le=0.5)]
Count = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SampleData(_Settings):
    """Synthetic clips: several textured objects, gaze goes to what moves or appears."""

    seed: int = Field(0, ge=0, description="another seed gives other clips")
    train: int = Field(24, ge=2, description="labelled clips to learn from")
    heldout: int = Field(8, ge=1, description="labelled clips that nobody learns from")
    unlabelled: int = Field(8, ge=0, description="clips without labels")
    frames: int = Field(60, ge=32, description="frames of a clip, 30 a second")
    size: Size = Field((64, 96), description="height and width of a frame, pixels")


class Recipe(_Settings):
    """What both training stages share."""

    size: Size = Field((192, 256), description="height and width of the network's input and maps, pixels")
    epochs: Count = Field(200, description="passes over the videos")
    batch: Count = Field(2, description="samples in one forward pass")
    accumulate: Count = Field(1, description="forward passes before the optimiser steps")
    clips_per_video: Count = Field(1, description="random clips of every labelled video in an epoch")
    optimiser: Literal["sgd", "adam", "adamw"] = Field("sgd")
    learning_rate: float = Field(0.01, gt=0)
    weight_decay: float = Field(5e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd")
    schedule: Literal["steps", "cosine"] = Field("steps", description="steps at milestones, or cosine to 0")
    milestones: tuple[int, ...] = Field((100, 150, 180), description="epochs at which the rate falls")
    decay: float = Field(0.1, gt=0, lt=1, description="factor at a milestone")
    validate_every: Count = Field(1, description="epochs between validations")
    validation_share: Share = Field(0.1, description="share of the labelled videos left out of training")
    validation_clips: Count = Field(5, description="clips of each left-out video that are scored")
    mixed_precision: bool = Field(False, description="bfloat16 training; a GPU only")
    seed: int = Field(0, ge=0, description="of first weights, clips and flips")


class TeacherTrain(Recipe):
    """Fit HD2S where no published weights are at hand."""

    weights: Path | None = Field(None, description="published HD2S weights to use instead of fitting")
    width: float = Field(1.0, gt=0, le=1, description="share of the published channels")
    batch: Count = 4
    accumulate: Count = 4
    optimiser: Literal["sgd", "adam", "adamw"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(2e-7, ge=0)


class StoredLevel(_Settings):
    """How one level is stored."""

    grid: tuple[Count, Count] = Field(description="height and width of the stored map")
    step: float = Field(gt=0, le=1, description="logits between neighbouring codes")


class TeacherDump(_Settings):
    """Run the teacher once for every frame and keep its maps."""

    size: Size | None = Field(None, description="height and width of the teacher's input; its own by default")
    every: Count = Field(1, description="frames between two dumped ones")
    fidelity: float = Field(2e-4, gt=0, le=0.1, description="mean KL(live, stored) that a stored map may cost, nats")
    levels: dict[str, StoredLevel] = Field(
        {}, description="grid and step of levels that are not to be chosen: {final: {grid: [96, 128], step: 0.07}}"
    )
    shard_megabytes: float = Field(128, gt=0, le=4096, description="size of a shard: what a kill can cost, and a file")
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        "auto", description="of the teacher; auto takes bfloat16 where the processor is fast at it"
    )
    batch: Count | None = Field(None, description="windows in one forward pass; by default what suits the teacher")


class StudentTrain(Recipe):
    """Train a TinyHD student from the store."""

    decoders: tuple[Literal["d1", "d2", "d3"], ...] = Field(("d1", "d2", "d3"), min_length=1)
    reduction: Literal[1, 2, 4] = Field(1, description="channel reduction: 1, 2 or 4")
    outputs: Literal[1, 16] = Field(1, description="maps for a clip: 1 (S, of its last frame) or 16 (M, of all)")
    d1_outputs: Literal[1, 16] = Field(1, description="maps of decoder d1 in an M network")
    unlabelled_per_labelled: float = Field(1.0, ge=0, description="clips without labels for each one with labels")
    encoder_rate: float = Field(0.5, gt=0, description="the encoder's share of the learning rate")
    target_lag: int = Field(0, ge=0, description="frames by which targets lag; 1 as in the published M training")

    @field_validator("decoders")
    @classmethod
    def _once_each(cls, decoders: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(decoders)) < len(decoders):
            raise ValueError("each decoder at most once")
        return decoders

    @model_validator(mode="after")
    def _d1_fits(self) -> "StudentTrain":
        if self.d1_outputs > self.outputs:
            raise ValueError(f"d1_outputs {self.d1_outputs} needs outputs 16")
        return self


class Evaluate(_Settings):
    """Compare with what people looked at."""

    every: Count = Field(1, description="frames between two that are compared")
    seed: int = Field(0, ge=0, description="of AUC-Judd's tie-breaking noise")
    rows: Count = Field(6, description="videos in the picture")


class Params(_Settings):
    """All settings, one group for each stage."""

    sample_data: SampleData = SampleData()
    teacher_train: TeacherTrain = TeacherTrain()
    teacher_dump: TeacherDump = TeacherDump()
    student_train: StudentTrain = StudentTrain()
    evaluate: Evaluate = Evaluate()


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
        group = settings.setdefault(stage, {})
        group[key] = yaml.safe_load(value)
    try:
        return Params.model_validate(settings)
    except ValidationError as error:
        raise SettingError(_one_line(error, str(file or "--set"))) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SettingError(f"{file}: {error.strerror}; give a params file, or leave --params out") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(settings or {}, dict):
        raise SettingError(f"{file}: expected stages with settings below them, found {type(settings).__name__}")
    return {stage: dict(group) if isinstance(group, dict) else group for stage, group in (settings or {}).items()}


def _one_line(error: ValidationError, where: str) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        known = _known_keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        return f"{where}: {'.'.join(place)} is not a setting; {advice}"
    reason = first["msg"].removeprefix("Value error, ")
    return f"{where}: {'.'.join(place)} = {first['input']!r}: {reason[0].lower()}{reason[1:]}"


def _known_keys(place: Sequence[str]) -> list[str]:
    model: type[BaseModel] = Params
    for part in place:
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def as_yaml(params: Params) -> str:
    """All settings as YAML, each with its explanation as a comment."""
    lines = []
    for stage, field in Params.model_fields.items():
        group = getattr(params, stage)
        lines += [f"{stage}:  # {field.annotation.__doc__ or ''}"]
        for key, setting in type(group).model_fields.items():
            value = json.dumps(group.model_dump(mode="json")[key])
            lines.append(f"  {key}: {value}" + (f"  # {setting.description}" if setting.description else ""))
        lines.append("")
    return "\n".join(lines)
