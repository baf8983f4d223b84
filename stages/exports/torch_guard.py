"""A .pt2 of somebody else, made safe to load: what torch.export.load would run is refused or taken out first.

torch says that its loader unpickles, and it does more (read in 2.13): weights and constants with `use_pickle` go
through pickle, custom and opaque objects too, example inputs where they are not plain tensors; compiled libraries under
data/aotinductor are loaded as code; guards and the expressions of sizes are evaluated as Python; and the operator of a
node may be any attribute of torch, such as `torch.os.system`. So the decision that is not obvious: the loader never
sees the file. It sees a copy in memory with the graph, tensors and extra text that this module knows, everything else
left out (example inputs, guards, traces), and whatever cannot be left out refused. Cost: the file is in memory twice.
"""

import io
import json
import math
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinyhd_pipe.store.errors import WeightsError

LARGEST = 2**31
"""Elements of the largest tensor that a graph may declare."""
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.\w+\.\w+|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
)  # what these two wrap is a graph of its own, whose nodes are looked at, too
_PYTHON = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|le|ge|lt|gt|and_|or_)"
    r"|math\.(ceil|floor|trunc)|torch\.sym_(max|min|float|int|ite|not|sum)"
)
_FILES = ("from_file", "save", "load")
"""Operators of aten that open files have one of these in their names."""
_NAME = re.compile(r"[A-Za-z_]\w*")
_PATH = re.compile(r"[\w.-]*")
"""Names of parameters and buffers."""
_WORD = re.compile(
    r"[su]\d+|Symbol|positive|integer|nonnegative|True|False|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv"
    r"|CleanDiv|CeilToInt|FloorToInt|IntTrueDiv|TruncToInt|ToFloat|Eq|Ne|Lt|Le|Gt|Ge"
)
_TEXT = re.compile(r"[\w\s+\-*/(),<>=']*")
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_KEPT = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|models/model\.json|data/weights/weight_\d+"
    r"|data/constants/tensor_\d+|data/(weights/model_weights|constants/model_constants)_config\.json|extra/.*"
)


def safe_archive(path: Path) -> io.BytesIO:
    """The parts of a .pt2 that are data, as an archive that torch.export.load may read.

    Raises WeightsError, in one line, for a file that is not of torch.export or that would run code.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _copied(path, archive)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise WeightsError(f"{path}: is a folder; name the .pt2 in it") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = " ".join(str(error).split())[:120]
        raise WeightsError(f"{path}: not a file of torch.export, or damaged ({said}); export it again") from error


def _copied(path: Path, archive: zipfile.ZipFile) -> io.BytesIO:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names) or any(name.startswith("/") or ".." in name.split("/") for name in names):
        raise _refused(path, "names that lead out of the archive, or occur twice")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise _refused(path, "compressed entries, which torch.export does not write")
    root = names[0].split("/")[0] if names else ""
    parts = {name.removeprefix(f"{root}/"): archive.read(name) for name in names if name.startswith(f"{root}/")}
    if "models/model.json" not in parts:
        found = "a checkpoint, or of TorchScript" if "data.pkl" in parts else "something else"
        raise WeightsError(f"{path}: not a file of torch.export ({found}); write it with torch.export.save")
    if compiled := next((name for name in parts if name.startswith("data/aotinductor")), None):
        raise _refused(path, f"a compiled library, {compiled}")
    if legacy := next((name for name in ("data/weights/model.pt", "data/constants/model.pt") if name in parts), None):
        raise _refused(path, f"a pickle, {legacy}")
    for kind in ("weights", "constants"):
        _refuse_pickles(path, kind, parts)
    parts = {name: content for name, content in parts.items() if _KEPT.fullmatch(name)}
    parts["models/model.json"] = json.dumps(_plain_program(path, json.loads(parts["models/model.json"]))).encode()
    parts["data/sample_inputs/model.pt"] = b""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as clean:
        for name, content in parts.items():
            clean.writestr(f"{root}/{name}", content)
    made.seek(0)
    return made


def _refuse_pickles(path: Path, kind: str, parts: dict[str, bytes]) -> None:
    """Tensors are to lie there as bytes, as many as their sizes say."""
    config = json.loads(parts[f"data/{kind}/model_{kind}_config.json"])["config"]
    for name, stored in config.items():
        _refuse_odd_name(path, name, _PATH)
        if stored["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", stored["path_name"]):
            raise _refused(path, f"a pickle, the {kind[:-1]} {name}")
        numel = math.prod(int(size["as_int"]) for size in stored["tensor_meta"]["sizes"])
        if numel and not parts[f"data/{kind}/{stored['path_name']}"]:
            raise WeightsError(f"{path}: damaged, {name} has {numel} elements and no bytes; export it again")


def _plain_program(path: Path, program: dict[str, Any]) -> dict[str, Any]:
    """The program without guards and traces. Raises WeightsError for what is not arithmetic on tensors."""
    program["guards_code"] = []
    module = program["graph_module"]
    module["treespec_namedtuple_fields"] = {}
    module["module_call_graph"] = [entry for entry in module["module_call_graph"] if entry["fqn"] == ""]
    for node in _nodes(program):
        node["metadata"] = {}
        target = node["target"]
        if not (_OPERATOR.fullmatch(target) or _PYTHON.fullmatch(target)) or any(one in target for one in _FILES):
            raise WeightsError(f"{path}: refused, its operator {target[:60]!r} is none of torch's own on tensors")
    for key, value in _pairs(program):
        if key in ("as_custom_obj", "as_operator", "custom_obj_values") and value:
            raise _refused(path, f"an object, {str(value)[:60]}")
        if key in ("name", "as_name") or key.endswith("_name"):  # Python is written of these
            _refuse_odd_name(path, value, _NAME if key in ("name", "as_name") else _PATH)
        if key == "expr_str" and not _is_arithmetic(value):
            raise _refused(path, f"an expression, {str(value)[:60]!r}")
        if key in ("in_spec", "out_spec") and value:
            _refuse_other_containers(path, json.loads(value)[1])
        if key == "sizes" and math.prod(_least(size) for size in value) > LARGEST:
            raise WeightsError(f"{path}: refused, a tensor of more than {LARGEST:,} elements in its graph")
    if any(not _NAME.fullmatch(name) for name in program["range_constraints"]):
        raise _refused(path, "constraints of something that is no size")
    return program


def _refuse_odd_name(path: Path, name: Any, pattern: re.Pattern[str]) -> None:
    if name not in (None, "") and not (isinstance(name, str) and pattern.fullmatch(name)):
        raise _refused(path, f"a name that is none, {str(name)[:60]!r}")


def _nodes(part: Any) -> Iterator[dict[str, Any]]:
    for key, value in _pairs(part):
        if key == "nodes":
            yield from value


def _pairs(part: Any) -> Iterator[tuple[str, Any]]:
    """Every key and its value, at any depth."""
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _is_arithmetic(text: Any) -> bool:
    """Whether an expression of sizes holds nothing but numbers, sizes and functions of numbers."""
    words = re.findall(r"[A-Za-z_]\w*", text)
    return bool(_TEXT.fullmatch(text)) and all(_WORD.fullmatch(word) for word in words)


def _least(size: dict[str, Any]) -> int:
    """A size; 1 where it is free."""
    return int(size["as_int"]) if "as_int" in size else 1


def _refuse_other_containers(path: Path, spec: dict[str, Any]) -> None:
    if spec["type"] not in _CONTAINERS:
        raise _refused(path, f"a container of a kind of its own, {str(spec['type'])[:60]}")
    for child in spec["children_spec"]:
        _refuse_other_containers(path, child)


def _refused(path: Path, what: str) -> WeightsError:
    return WeightsError(f"{path}: refused, it holds {what}, and reading that could run code")
