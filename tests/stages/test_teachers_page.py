"""docs/teachers.md: its commands as they stand there, on stand-ins that take and give what those networks do."""

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.doc_blocks import PROJECT, blocks
from tests.exported_networks import Told, write_pt2
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import open_store

SMALL = ["--set", "teacher_dump.size=[32,64]", "teacher_dump.fidelity=0.003"]
COMMANDS = {
    words[words.index("--store") + 1]: words
    for block in blocks(PROJECT / "docs/teachers.md")
    if block.language == "sh"
    for words in block.commands
}
SIZE = (32, 64)


def _brightness(clip: Tensor) -> Tensor:
    """Of the last of (B, 3, T, y, x), some logits around 0."""
    return torch.nn.functional.avg_pool2d(clip[:, :, -1].mean(1), 3, stride=1, padding=1)


class Recurrent(nn.Module):
    """(B, T, 3, y, x) and the mean of what went before -> log-probabilities of all pixels."""

    def forward(self, clip: Tensor, state_h: Tensor) -> dict[str, Tensor]:
        made, state = [], state_h
        for frame in range(clip.shape[1]):
            state = 0.8 * state + 0.2 * clip[:, frame].mean(1)
            made.append(state.flatten(1).log_softmax(1).view(state.shape))
        return {"final": torch.stack(made, 1), "next_state_h": state.clone()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rng = np.random.default_rng(0)
    background = rng.integers(0, 120, (48, 96, 3), dtype=np.uint8)
    (tmp_path / "clips").mkdir()
    frames = []
    for frame in range(34):
        frames.append(background.copy())
        frames[-1][8:40, 2 * frame : 2 * frame + 16] = 240
    write_video(tmp_path / "clips/001.mp4", iter(frames))
    (tmp_path / "vinet/001").mkdir(parents=True)
    for frame, picture in enumerate(frames):
        Image.fromarray(picture[..., 0]).save(tmp_path / f"vinet/001/{frame + 1:04d}.png")
    write_pt2(tmp_path / "tased.pt2", Told(lambda clip: _brightness(clip).sigmoid()), (3, 32, *SIZE))
    shutil.copy(tmp_path / "tased.pt2", tmp_path / "vinet_s.pt2")
    write_pt2(tmp_path / "unisal.pt2", Recurrent(), (12, 3, *SIZE), SIZE, free_batch=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_makes_a_store_that_names_its_terms(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(COMMANDS) == {"tased.zarr", "vinet.zarr", "unisal.zarr", "vinet_maps.zarr"}
    terms: dict[str, Any] = {}
    for store, words in COMMANDS.items():
        assert run([*words[1:], *SMALL]) == 0, (store, capsys.readouterr().err)
        there = open_store(world / store)
        assert len(there.frames("001.mp4")) == 34
        terms[store] = (there.description.provenance["licence"], there.description.temporal.window)
    assert terms == {
        "tased.zarr": ("MIT", 32),
        "vinet.zarr": ("CC BY-NC-SA 4.0", 32),
        "unisal.zarr": ("Apache-2.0", 12),
        "vinet_maps.zarr": ("CC BY-NC-SA 4.0", 0),
    }
    maps = {
        store: open_store(world / store).read("001.mp4", [5, 20], SIZE, levels=["final"])["final"] for store in terms
    }
    for one, other in itertools.pairwise(maps):
        assert not np.allclose(maps[one], maps[other]), "colours, scaling and values count"
