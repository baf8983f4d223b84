"""`auto` is decided by a rule from written-down facts: the same every time, whatever a stopwatch would say."""

import json
import time
from pathlib import Path

import pytest
import torch

from tests.small_dumps import dump_of, write_teacher, write_videos
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.bench.networks import advice
from tinyhd_pipe.stages.dump.cluster_work import TeacherFile
from tinyhd_pipe.stages.networks import network as networks
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import Network, load_teacher
from tinyhd_pipe.stages.networks.precision import by_rule, keep_float32, units_of
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.store import open_store

CPU = torch.device("cpu")
UNITS = ("amx_bf16", "avx512_bf16")


@pytest.fixture(scope="module")
def published_width(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    write_weights(path, HD2S().state_dict(), {"kind": "hd2s", "size": [64, 96]})
    return path


def _on_a_processor_with(units: tuple[str, ...], patch: pytest.MonkeyPatch) -> None:
    patch.setattr(networks, "units_of", lambda device: units)


@pytest.mark.parametrize(
    ("hd2s_width", "units", "precision", "because"),
    [
        (1.0, UNITS, "bfloat16", "amx_bf16 and avx512_bf16, and this is HD2S at its published width"),
        (1.0, ("avx512_bf16",), "bfloat16", "has avx512_bf16, and"),
        (1.0, ("compute capability 9.0",), "bfloat16", "has compute capability 9.0, and"),
        (0.25, UNITS, "float32", "HD2S of width 0.25 gains too little"),
        (None, UNITS, "float32", "TinyHD gains too little"),
        (1.0, (), "float32", "no units for bfloat16"),
        (None, (), "float32", "no units for bfloat16"),
    ],
)
def test_the_rule_decides_by_network_and_units_and_says_so(
    hd2s_width: float | None, units: tuple[str, ...], precision: str, because: str
) -> None:
    choice = by_rule(hd2s_width, units)
    assert choice.precision == precision
    assert because in choice.reason


@pytest.mark.parametrize(("units", "precision"), [(UNITS, torch.bfloat16), ((), torch.float32)])
def test_loading_computes_in_what_the_rule_says_and_asks_no_clock(
    published_width: Path, monkeypatch: pytest.MonkeyPatch, units: tuple[str, ...], precision: torch.dtype
) -> None:
    def no_clock() -> float:
        raise AssertionError("a stopwatch decides otherwise the next time")

    _on_a_processor_with(units, monkeypatch)
    for name in ("perf_counter", "monotonic", "process_time", "time"):
        monkeypatch.setattr(time, name, no_clock)
    teacher = load_teacher("hd2s", weights=published_width, precision="auto")
    assert f"torch.{teacher.precision}" == str(precision)
    assert teacher.facts["precision"] == teacher.precision
    assert next(teacher.module.parameters()).dtype == precision
    assert teacher.facts["precision_chosen"].startswith("by rule: ")


def test_a_precision_that_is_asked_for_is_no_matter_of_rules(
    published_width: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_a_processor_with((), monkeypatch)
    teacher = load_teacher("hd2s", weights=published_width, precision="bfloat16")
    assert (teacher.precision, teacher.facts["precision_chosen"]) == ("bfloat16", "as asked for")


def test_a_worker_without_units_computes_as_its_client_decided(
    published_width: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _on_a_processor_with(UNITS, monkeypatch)
    teacher = load_teacher("hd2s", weights=published_width, precision="auto")
    sent = TeacherFile.of(teacher, published_width)
    _on_a_processor_with((), monkeypatch)
    there: Network = sent.load()
    assert there.precision == "bfloat16"
    assert there.identity == teacher.identity, "why it was chosen is no part of what a teacher is"


CPUINFO = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("cpuinfo", "units"),
    [
        (CPUINFO, UNITS),
        (CPUINFO.replace("amx_bf16", "amx_int8"), ("avx512_bf16",)),
        (CPUINFO.replace("_bf16", "_vnni"), ()),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", ()),
    ],
)
def test_units_are_what_the_kernel_lists(monkeypatch: pytest.MonkeyPatch, cpuinfo: str, units: tuple[str, ...]) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: cpuinfo)
    assert units_of(CPU) == units


def test_a_machine_that_lists_nothing_has_no_units(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: Path) -> str:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    assert units_of(CPU) == ()
    assert units_of(torch.device("mps")) == ()


def test_this_processor_has_the_units_that_torch_sees() -> None:
    seen = torch.cpu.get_capabilities()
    assert units_of(CPU) == tuple(unit for unit in UNITS if seen[unit])


@pytest.mark.parametrize(("capability", "units"), [((9, 0), ("compute capability 9.0",)), ((7, 5), ())])
def test_cuda_devices_tell_by_their_compute_capability(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], units: tuple[str, ...]
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert units_of(torch.device("cuda:1")) == units


def test_two_dumps_are_one_store_and_info_says_which_rule_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_teacher(tmp_path / "teacher.safetensors")
    videos = write_videos(tmp_path / "videos", {"a.mp4": 9})
    auto = ("--set", "teacher_dump.precision=auto")
    for store in ("one", "two"):
        assert run([str(argument) for argument in dump_of(videos, weights, tmp_path / store, *auto)]) == 0
    roots = [(tmp_path / store / "zarr.json").read_bytes() for store in ("one", "two")]
    assert roots[0] == roots[1]
    reason = open_store(tmp_path / "one").info()["provenance"]["precision_chosen"]
    assert reason.startswith("by rule: ")
    capsys.readouterr()
    assert run(["store", "info", str(tmp_path / "one"), "--json"]) == 0
    out, table = capsys.readouterr()
    assert json.loads(out)["provenance"]["precision_chosen"] == reason
    assert "precision chosen" in table


@pytest.mark.parametrize(
    ("chosen", "share", "agree", "advised"),
    [
        ("float32", 0.5, True, "bfloat16 takes 0.50 of the time here"),
        ("float32", 0.5, False, ""),
        ("float32", 0.8, True, ""),
        ("float32", 70.0, True, ""),
        ("bfloat16", 0.5, True, ""),
        ("bfloat16", 2.0, True, "float32 takes 0.50 of the time here"),
    ],
)
def test_the_benchmark_advises_where_times_and_rule_disagree(
    chosen: str, share: float, agree: bool, advised: str
) -> None:
    line = advice(chosen, share, agree=agree)  # type: ignore[arg-type]
    assert line.startswith(advised)
    assert bool(line) == bool(advised)
    assert "\n" not in line


def test_float32_is_kept_on_a_gpu_and_nothing_is_set_for_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    keep_float32("cpu")
    assert torch.backends.cudnn.allow_tf32
    keep_float32("cuda:1")
    assert not torch.backends.cudnn.allow_tf32
