"""`auto` takes bfloat16 where it is faster, and finds out at once where it is not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor

from tinyhd_pipe.stages.networks import network as networks
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import Network, load_teacher
from tinyhd_pipe.stages.networks.weights import write_weights

SIZE = (64, 96)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "teacher.safetensors"
    write_weights(path, HD2S(width=0.25).state_dict(), {"kind": "hd2s", "size": list(SIZE)})
    return path


@pytest.mark.parametrize(("slower", "chosen"), [(0.5, "bfloat16"), (0.9, "float32"), (70.0, "float32")])
def test_the_faster_precision_is_taken(
    weights: Path, monkeypatch: pytest.MonkeyPatch, slower: float, chosen: str
) -> None:
    timed: list[tuple[str, tuple[int, ...]]] = []

    def seconds(network: Network, clip: Tensor) -> float:
        timed.append((network.precision, tuple(clip.shape[2:])))
        return slower if network.precision == "bfloat16" else 1.0

    monkeypatch.setattr(networks, "_seconds", seconds)
    assert load_teacher("hd2s", weights=weights, precision="auto").precision == chosen
    a_run = (23, *SIZE)
    assert (("bfloat16", a_run) in timed) == (slower < 1.5), "what would take minutes is not tried"


PROBE = """
import sys, torch
from tinyhd_pipe.stages.networks import load_teacher, Network
seen = []
answer = Network._run
def noted(network, clip, *arguments):
    seen.append((network.precision, tuple(clip.shape[3:])))
    return answer(network, clip, *arguments)
Network._run = noted
print(load_teacher("hd2s", weights=sys.argv[1], precision="auto").precision, ("bfloat16", (64, 96)) in seen)
"""


def test_a_processor_without_units_for_bfloat16_computes_in_float32(weights: Path) -> None:
    old = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, str(weights)], env=old, capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["float32", "False"]
