"""dvc.yaml names the code that a stage runs, all of it and nothing else: held against the imports themselves."""

import ast
import inspect
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from textwrap import dedent, fill

import grimp
import pytest
import yaml
from dvc.repo import Repo

from tinyhd_pipe.pipeline.app import app
from tinyhd_pipe.pipeline.params import Params

PROJECT = Path(__file__).resolve().parents[2]
CODE = ("store", "stages", "pipeline")
STAGES = (
    "sample_data",
    "teacher_train",
    "teacher_dump",
    "assistant_train",
    "assistant_dump",
    "student_train",
    "evaluate",
    "report",
)
VERBS = {stage: stage for stage in STAGES} | {"assistant_train": "student_train", "assistant_dump": "teacher_dump"}
Files = frozenset[str]
CodeOf = Callable[[str], Files]


@pytest.fixture(scope="module")
def code_of() -> CodeOf:
    """Stage -> the files that its verb, and its command's own lines, import directly or not; those packages' too."""
    graph = grimp.build_graph(
        *(f"tinyhd_pipe.{name}" for name in CODE), cache_dir=None, exclude_type_checking_imports=True
    )

    def files(stage: str) -> Files:
        verb = VERBS[stage]
        roots = {f"tinyhd_pipe.stages.{verb}", *_imported_by_command(verb, graph.modules)}
        modules = roots.union(*(graph.find_upstream_modules(root) for root in roots))
        paths = {_file_of(module) for module in modules if not module.startswith("tinyhd_pipe.pipeline.")}
        packages = {folder / "__init__.py" for path in paths for folder in path.parents}
        return frozenset(path.as_posix() for path in paths | {path for path in packages if (PROJECT / path).exists()})

    return files


def _imported_by_command(verb: str, modules: set[str]) -> set[str]:
    """What the command that dvc.yaml calls imports inside its function."""
    (command,) = (found for found in app.registered_commands if found.name == verb.replace("_", "-"))
    assert command.callback is not None
    body = ast.walk(ast.parse(dedent(inspect.getsource(command.callback))))
    names = {f"{node.module}.{name.name}" for node in body if isinstance(node, ast.ImportFrom) for name in node.names}
    imported = {name if name in modules else name.rpartition(".")[0] for name in names} & modules
    return {name for name in imported if not name.startswith("tinyhd_pipe.pipeline")}  # settings are `params` to DVC


def _file_of(module: str) -> Path:
    path = Path(*module.split(".")[1:])
    return path / "__init__.py" if (PROJECT / path).is_dir() else path.with_suffix(".py")


def _declared(stage: str) -> Files:
    """The Python files that the stage depends on by dvc.yaml, itself or through a folder."""
    listed = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    paths = [PROJECT / name for name in listed if name.startswith(CODE)]
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))]
    return frozenset(file.relative_to(PROJECT).as_posix() for file in files)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_code_that_it_imports_and_on_no_other(stage: str, code_of: CodeOf) -> None:
    assert _declared(stage) == code_of(stage), f"deps of {stage} in dvc.yaml should be\n{_as_deps(code_of(stage))}"


def _as_deps(files: Files) -> str:
    """The files as a list for dvc.yaml, a folder instead of its files where all of them are in it."""

    def brief(folder: Path) -> Iterator[str]:
        if {path.relative_to(PROJECT).as_posix() for path in folder.rglob("*.py")} <= files:
            yield folder.relative_to(PROJECT).as_posix()
            return
        for path in sorted(folder.iterdir()):
            if path.is_dir() and any(path.rglob("*.py")):
                yield from brief(path)
            elif (name := path.relative_to(PROJECT).as_posix()) in files:
                yield name

    return fill(", ".join([*brief(PROJECT / "stages"), *brief(PROJECT / "store")]), 112, break_on_hyphens=False)


@pytest.fixture
def committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy, with an assistant, in which DVC takes every stage for done: empty outputs, their hashes written down."""
    for name in (*CODE, ".dvc/plots"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(PROJECT / name, tmp_path / name)
    settings = yaml.safe_load((PROJECT / "params.yaml").read_text())
    settings["data"] |= {"assistant": ["rc1"], "student_store": "data/rc1.zarr"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    outputs = (
        "data/sample/train/video/001",
        "data/sample/unlabelled/002",
        "data/sample/heldout/003",
        "data/maps.zarr/x",
        "data/rc1.zarr/x",
    )
    results = ("comparison.png", "comparison.webp", "evaluation.json", "videos/teacher.csv", "metrics/teacher.json")
    runs = (
        "teacher/best.safetensors",
        "rc1/best.safetensors",
        "student/best.safetensors",
        *(f"evaluation/{name}" for name in results),
        "report.html",
    )
    for name in (*outputs, *(f"runs/{name}" for name in runs)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / ".dvc" / "site"))
    monkeypatch.chdir(tmp_path)
    Repo(os.fspath(tmp_path)).commit(force=True)
    return tmp_path


def _changed(folder: Path) -> set[str]:
    """The stages that `dvc status` calls changed, without the name of the assistant behind them."""
    with Repo(os.fspath(folder)) as repo:
        return {stage.partition("@")[0] for stage in repo.status()}


@pytest.mark.slow
def test_one_line_of_any_file_changes_the_stages_that_run_it(committed: Path, code_of: CodeOf) -> None:
    assert _changed(committed) == set(), "nothing has changed"
    changes = {room: {stage for stage in STAGES if room in code_of(stage)} for room in _one_file_of_each_room()}
    assert changes["stages/networks/tinyhd.py"] == set(STAGES) - {"sample_data"}
    assert changes["stages/pictures/sheets.py"] == set(STAGES) - {"sample_data", "teacher_dump", "assistant_dump"}
    assert [stages for name, stages in changes.items() if name.startswith(("stages/bench/", "pipeline/"))] == [
        set()
    ] * 2
    for name, stages in changes.items():
        path = committed / name
        before = path.read_text()
        path.write_text(before + "\n# another line\n")
        assert _changed(committed) == stages, name
        path.write_text(before)


def _one_file_of_each_room() -> set[str]:
    """The first file of every folder of code, and those of which somebody would expect the most."""
    folders = {path.parent for name in CODE for path in (PROJECT / name).rglob("*.py")}
    modules = {folder: sorted(set(folder.glob("*.py")) - {folder / "__init__.py"}) for folder in folders}
    first = {next(iter(found), folder / "__init__.py") for folder, found in modules.items()}
    named = {PROJECT / "stages" / name for name in ("networks/tinyhd.py", "training/losses.py", "pictures/sheets.py")}
    verbs = {PROJECT / "stages" / f"{verb}.py" for verb in VERBS.values()}
    return {path.relative_to(PROJECT).as_posix() for path in first | named | verbs}


def test_no_default_of_the_code_decides_what_the_pipeline_runs() -> None:
    """Else a changed default would change a stage, and DVC, which sees params.yaml, would not know."""
    given = yaml.safe_load((PROJECT / "params.yaml").read_text())
    settings = {(group, setting.name) for group, taken in vars(Params()).items() for setting in fields(taken)}
    assert settings == {(group, key) for group, keys in given.items() for key in keys}
