"""Options that several commands share, and how many values one of them takes.

The decision that is not obvious: an option that may be repeated takes every value up to the next option, because that
is what a shell makes of `--videos clips/*.mp4`. Where a command's own argument stands behind such a row, as in
`store verify --videos a b maps.zarr`, the row gives back as many of its last values as the command lacks arguments.
"""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from tinyhd_pipe.store.errors import SettingError


class Command(TyperCommand):
    """A command whose repeatable options take several values at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, repeated(args, self.get_params(ctx)))

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types_of_flags(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands, its help written as theirs."""

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types_of_flags(super().get_params(ctx))


def without_types_of_flags(parameters: list[Any]) -> list[Any]:
    """The same parameters; help says `--json`, and not `--json <bool>`, of those that take no value."""
    for parameter in parameters:
        if isinstance(parameter, TyperOption) and parameter.is_flag:
            parameter.metavar = ""
    return parameters


def repeated(arguments: Sequence[str], parameters: Sequence[Any]) -> list[str]:
    """The same arguments with an option before each of its values: `-v a b` becomes `-v a -v b`."""
    options = [parameter for parameter in parameters if isinstance(parameter, TyperOption)]
    many = {name for option in options if option.multiple for name in option.opts}
    single = {name for option in options if not option.is_flag for name in option.opts} - many
    lacking = sum(isinstance(parameter, TyperArgument) and parameter.required for parameter in parameters)
    spelled: list[str] = []
    rows: list[int] = []  # places in `spelled` of options that were put before a further value of a row
    waiting, row = list(arguments), ""
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            lacking -= len(waiting)
            spelled += [word, *waiting]
            break
        if word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            row = name if name in many else ""
            spelled.append(word)
            if name in many | single and not value and waiting:
                spelled.append(waiting.pop(0))
        elif row:
            rows.append(len(spelled))
            spelled += [row, word]
        else:
            lacking -= 1
            spelled.append(word)
    for place in reversed(rows[-lacking:] if lacking > 0 else []):
        del spelled[place]
    return spelled


def expanded(paths: list[str] | None) -> list[str] | None:
    """Patterns that no shell has expanded (quoted, or on Windows), as the files that they match; URLs as they are."""
    if paths is None:
        return None
    found = []
    for path in paths:
        if "://" in path or Path(path).exists() or not glob.has_magic(path):
            found.append(path)
        elif matches := sorted(glob.glob(path, recursive=True)):  # noqa: PTH207
            found += matches
        else:
            raise SettingError(f"{path}: no file matches this pattern; give videos, or folders of videos or frames")
    return found


VIDEOS: Any = {"metavar": "PATH…", "callback": expanded}
Videos = Annotated[
    list[str], Option(help="Video files, folders of videos, folders of frames; tars; s3://… and other URLs.", **VIDEOS)
]
DumpedVideos = Annotated[list[str], Option(help="The videos that were dumped, given as they were then.", **VIDEOS)]
SomeVideos = Annotated[list[str] | None, Option(help="The videos that were dumped, given as they were then.", **VIDEOS)]
Layout = Annotated[
    str | None,
    Option(
        "--layout",
        help="Of the data set: dhf1k, ucf-sports, hollywood2, plain …; recognised by default.",
        metavar="NAME",
    ),
]
Split = Annotated[
    str | None,
    Option("--split", help="Official split, train, val or test; or a file, a video a line.", metavar="NAME"),
]
Store = Annotated[str, Option(help="Folder or fsspec URL of the zarr store.", metavar="URL")]
SomeStores = Annotated[
    list[str] | None,
    Option(
        "--store",
        help="Stores that teacher-dump made; several are fused. With --online: one that is compared, or none.",
        metavar="URL…",
    ),
]
OneStore = Annotated[str | None, Option("--store", help="Folder or fsspec URL of the zarr store.", metavar="URL")]
StoreArgument = Annotated[str, Argument(help="Folder or fsspec URL of the store.", metavar="STORE")]
Weights = Annotated[Path, Option(help="The network's weights, .pth or .safetensors.", metavar="FILE")]
SomeWeights = Annotated[Path | None, Option(help="The teacher's weights, .pth or .safetensors.", metavar="FILE")]
MapsFolder = Annotated[
    Path, Option("--maps", help="Maps by video: DIR/001/0001.png, DIR/001.npz, DIR/001.mkv ….", metavar="DIR")
]
SomeMaps = Annotated[
    Path | None, Option("--maps", help="The maps that were imported, instead of --weights.", metavar="DIR")
]
TeacherKind = Annotated[str, Option(help="Kind of the teacher: hd2s or tinyhd.", metavar="KIND")]
DumpTeacher = Annotated[
    str,
    Option(help="Kind of the teacher: hd2s or tinyhd; onnx or torch: a network in a file of these.", metavar="KIND"),
]
AllowNoncommercial = Annotated[
    bool,
    Option(
        "--allow-noncommercial",
        help="The terms forbid commercial use, of students, too, and you know; asked once, where a store begins.",
    ),
]
RetryProblems = Annotated[
    bool, Option("--retry-problems", help="Make videos again that the store lists with a problem.")
]
Prune = Annotated[bool, Option("--prune", help="Drop the maps of videos that are not given; they are kept otherwise.")]
Workers = Annotated[
    int | None, Option(min=1, help="Share the work among that many processes of this machine (Dask).", metavar="N")
]
Scheduler = Annotated[
    str | None, Option(help="Dask scheduler whose workers do the work: tcp://10.0.0.1:8786.", metavar="ADDRESS")
]
Plan = Annotated[bool, Option("--plan", help="Say what there is to do and what it takes; write nothing.")]
Params = Annotated[
    Path | None,
    Option("--params", help="YAML file with settings; what it leaves out has the published value.", metavar="FILE"),
]
Overrides = Annotated[
    list[str] | None, Option("--set", help="Settings, as in student_train.epochs=10.", metavar="STAGE.KEY=VALUE…")
]
Settings = Annotated[
    str, Option(help="Which group of settings to take; those of a teacher assistant are assistant_…", metavar="STAGE")
]
Json = Annotated[bool, Option("--json", help="Print the result as JSON on stdout.")]
Device = Annotated[
    str, Option(help="Where networks run: auto, cpu, cuda, cuda:1, mps. Auto says what it chose.", metavar="DEVICE")
]
Resume = Annotated[bool, Option("--resume", help="Go on with the run that --out holds.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Begin again; with --resume only if going on is impossible.")]
CheckpointMinutes = Annotated[
    float,
    Option(
        "--checkpoint-minutes",
        min=0,
        help="Between two checkpoints within an epoch, which is all that a kill can cost.",
        metavar="N",
    ),
]
Download = Annotated[
    bool, Option("--download", help="Fetch MobileNetV2's ImageNet weights (14 MB, once) for the encoder to start from.")
]
TensorBoard = Annotated[
    bool, Option("--tensorboard", help="Log for TensorBoard, too: tensorboard --logdir of the run's folder.")
]
RunFolder = Annotated[Path, Option(help="Folder for weights and history.", metavar="DIR")]


def refuse_both(workers: int | None, scheduler: str | None) -> None:
    """Raise SettingError where the work is to be shared in two ways at once."""
    if workers is not None and scheduler is not None:
        raise SettingError(f"--workers {workers} and --scheduler {scheduler}: give one of them")
