"""Where a page's facts come from: the run's folder, and what that leads to: an evaluation, stores, clips, the teacher.

The decision that is not obvious: nothing is shown that is not of these very weights. An evaluation counts where a row
of it has the digest of the run's weights, a store where it holds the maps of the teacher that the weights name. What is
not there, or not the same any more, is a `Missing`: a sentence in its place, never an error.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinyhd_pipe.stages.gaze.evaluation_file import FILE as EVALUATION
from tinyhd_pipe.stages.gaze.evaluation_file import KeptEvaluation, read_evaluation
from tinyhd_pipe.stages.networks.network import Network, load_teacher
from tinyhd_pipe.stages.networks.weights import Weights, read_weights
from tinyhd_pipe.stages.training.history import EpochReport, read_lines
from tinyhd_pipe.stages.training.record import RunRecord, read_record
from tinyhd_pipe.store.errors import SettingError, StoreError, WeightsError
from tinyhd_pipe.store.reader import Store, open_store

BEST = "best.safetensors"
TEACHER = "teacher"
"""What the network that the student learned from is called on a page."""


@dataclass(frozen=True)
class Missing:
    """What a page cannot show."""

    why: str
    """One sentence that names it, and says what would bring it."""


@dataclass(frozen=True)
class Asked:
    """What a page is asked to be of; all but the run is found by itself, as long as it lies where it lay."""

    run: Path
    evaluation: Path | None = None
    data: Path | None = None
    stores: tuple[str, ...] = ()
    teacher_weights: Path | None = None


@dataclass(frozen=True, eq=False)
class RunFolder:
    """A run as its folder has it."""

    path: Path
    weights: Weights
    bytes: int
    """Of the weights file."""
    record: RunRecord | None
    history: tuple[EpochReport, ...]
    picture: Path | None
    """`validation.png`, clips left out as they looked at the last validation."""

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.weights.facts

    @property
    def is_student(self) -> bool:
        return bool(self.facts.get("kind") == "tinyhd")

    def given(self, option: str) -> list[str]:
        """The paths that were given of an option, as they can be found from here."""
        if self.record is None:
            return []
        return [found_from(self.record.folder, path) for path in self.record.given.get(option, ())]


def found_from(folder: str, path: str) -> str:
    """A path as it leads somewhere from here: as it was given, else from the folder that it was given in."""
    if "://" in path or Path(path).exists() or not (Path(folder) / path).exists():
        return path
    return str(Path(folder) / path)


def read_run(path: Path) -> RunFolder:
    """The run in a folder.

    Raises SettingError where it is none, WeightsError where its weights cannot be read.
    """
    best = path / BEST
    if path.is_file():
        raise SettingError(f"--run {path}: is a file; give the folder of the run, which holds {BEST}")
    if not best.is_file():
        raise SettingError(
            f"--run {path}: no run there; give a folder that student-train or teacher-train left, with {BEST} in it"
        )
    weights = read_weights(best)
    picture = path / "validation.png"
    return RunFolder(
        path=path,
        weights=weights,
        bytes=best.stat().st_size,
        record=read_record(path),
        history=_history(path / "history.jsonl"),
        picture=picture if picture.is_file() else None,
    )


def _history(path: Path) -> tuple[EpochReport, ...]:
    try:
        return tuple(read_lines(path.read_text()))
    except (OSError, ValueError, TypeError):
        return ()


def find_evaluation(run: RunFolder, asked: Asked) -> KeptEvaluation | Missing:
    """The evaluation of the run's weights: the one that was named, or RUN/evaluation, or the one beside the run.

    Raises SettingError where one was named and there is none.
    """
    if asked.evaluation is not None and read_evaluation(asked.evaluation) is None:
        raise SettingError(f"--evaluation {asked.evaluation}: no {EVALUATION} there; 'tinyhd-pipe evaluate' leaves it")
    resolved = run.path.resolve()
    folders = [asked.evaluation] if asked.evaluation else [resolved / "evaluation", resolved.parent / "evaluation"]
    others = []
    for folder in folders:
        kept = read_evaluation(folder)
        if kept is not None and kept.row_of(run.weights.sha256):
            return kept
        others += [folder] if kept is not None else []
    if others:
        return Missing(f"The evaluation in {others[0]} is of other weights; run it again with --weights {_best(run)}.")
    return Missing(
        f"No evaluation of these weights was found; tinyhd-pipe evaluate --weights {_best(run)} --data DIR "
        f"--out {run.path / 'evaluation'} makes one."
    )


def find_stores(run: RunFolder, asked: Asked) -> list[Store] | Missing:
    """The stores whose maps the student learned."""
    urls = list(asked.stores) or run.given("store")
    teacher = run.facts.get("teacher")
    if not run.is_student:
        return Missing("No store: a teacher is fitted to labels alone.")
    if teacher is None and run.record is not None:
        return Missing("No store: this student learned from labels alone.")
    if not urls:
        return Missing("The run does not say where its store lies; --store names it.")
    stores = []
    for url in urls:
        try:
            store = open_store(url)
        except StoreError as error:
            return Missing(f"The store could not be read: {error}.")
        if store.description.teacher not in _teachers(teacher):
            return Missing(f"The store {url} holds the maps of another teacher than this student learned from.")
        stores.append(store)
    return stores


def _teachers(teacher: Mapping[str, Any] | None) -> Sequence[Any]:
    """What the weights say of each teacher that was learned from."""
    return [] if teacher is None else teacher.get("fused", [teacher])


def find_data(kept: KeptEvaluation, asked: Asked) -> Path | Missing:
    """The folder of the clips that were evaluated."""
    given = kept.setting.given.get("data", [""])[0]
    path = asked.data or Path(found_from(kept.setting.folder, given))
    if not given or not path.is_dir():
        return Missing(f"No gallery: the clips that were evaluated are not at {path} any more; --data names them.")
    return path


def find_teacher(run: RunFolder, kept: KeptEvaluation, asked: Asked, device: str) -> tuple[str, Network] | Missing:
    """A teacher to show beside the student, ready to answer, and its name: the one that the student learned from, else
    another one that was evaluated with it.

    Raises WeightsError for a file that was named and cannot be taken.
    """
    taught = {of.get("weights_sha256"): of for of in _teachers(run.facts.get("teacher")) if "kind" in of}
    if asked.teacher_weights is not None:
        return TEACHER, _load(asked.teacher_weights, next(iter(taught.values()), {"kind": "hd2s"}), device)
    rows = [(name, row) for name, row in kept.setting.rows.items() if row.sha256 not in (None, run.weights.sha256)]
    for name, row in sorted(rows, key=lambda of: of[1].sha256 not in taught):
        path = Path(found_from(kept.setting.folder, row.path))
        if path.is_file():
            try:
                network = _load(path, taught.get(row.sha256, {"kind": row.kind}), device)
            except (WeightsError, SettingError) as error:
                return Missing(f"The teacher's maps are not shown: {error}.")
            if network.facts["weights_sha256"] == row.sha256:
                return (TEACHER if row.sha256 in taught else f"{name}, which did not teach it"), network
    return Missing("The teacher's maps are not shown: --teacher-weights names its weights.")


def own_network(run: RunFolder, device: str) -> Network:
    """The network of the run itself, in float32."""
    return load_teacher(str(run.facts.get("kind", "tinyhd")), weights=_best(run), device=device)


def _load(path: Path, teacher: Mapping[str, Any], device: str) -> Network:
    """The teacher as it taught: at that size and precision."""
    size = teacher.get("preprocessing", {}).get("size")
    return load_teacher(
        teacher["kind"],
        weights=path,
        size=(size[0], size[1]) if size else None,
        precision=teacher.get("precision", "float32"),
        device=device,
    )


def _best(run: RunFolder) -> Path:
    return run.path / BEST


def as_text(value: Any) -> str:
    """A setting on a page."""
    if isinstance(value, list):
        return ", ".join(map(as_text, value))
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value)
