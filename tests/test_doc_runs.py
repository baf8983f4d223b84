"""The blocks of code that need nothing but clips and weights are run as they stand, on small ones of those names."""

import ast
import glob
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.doc_blocks import PAGES, Block, blocks
from tests.moving_dot import SIZE, column_of, dot, make_data
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import open_store

SMALL = {
    "teacher-dump": "precision=float32 fidelity=0.01",
    "student-train": "epochs=1 size=[32,64] reduction=4 decoders=[d1] batch=2 validation_clips=1",
    "evaluate": "every=12",
}
"""Settings that come behind those of a page, so that it takes seconds."""
ALL = [block for page in PAGES for block in blocks(page) if block.needs is None]
SHELL = [b for b in ALL if b.language == "sh" and any(words[0] == "tinyhd-pipe" for words in b.commands)]
PYTHON = [block for block in ALL if block.language == "python"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips and weights of the names that our pages use."""
    root = tmp_path_factory.mktemp("world")
    make_data(root / "DHF1K", videos=2)
    for source in find_videos([root / "DHF1K/video"]):
        write_video(source.path.with_suffix(".mp4"), read_frames(source, np.arange(24)))
        shutil.rmtree(source.path)
    for folder in ("clips", "holiday"):
        (root / folder).mkdir()
        for video in (root / "DHF1K/video").iterdir():
            (root / folder / video.name).symlink_to(video)
    (root / "video.mp4").symlink_to(root / "clips/001.mp4")
    write_weights(root / "hd2s.pt", HD2S(width=0.0625).state_dict(), {"kind": "hd2s", "size": list(SIZE)})
    for name, outputs in (("s.pth", 1), ("m.pth", 16), ("student.safetensors", 1)):
        state = TinyHD(reduction=4, outputs=outputs).state_dict()
        write_weights(root / name, state, {"kind": "tinyhd", "size": list(SIZE)})
    return root


@pytest.fixture
def with_store(world: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with a store of its clips, which README's first block leaves, too."""
    monkeypatch.chdir(world)
    words = "tinyhd-pipe teacher-dump --videos clips/*.mp4 --store maps.zarr --weights hd2s.pt"
    assert _do(words.split()) == 0
    return world


def _do(words: list[str]) -> int:
    """Run a command of a page as a shell would, with the small settings behind its own."""
    name, *arguments = words[1:]
    expanded = [path for word in arguments for path in (sorted(glob.glob(word)) or [word])]  # noqa: PTH207
    if name == "student-train":  # which two blocks leave in the same folder
        shutil.rmtree(expanded[expanded.index("--out") + 1], ignore_errors=True)
    sets = [f"{name.replace('-', '_')}.{one}" for one in SMALL.get(name, "").split()]
    return run([name, *expanded, *(["--set", *sets] if sets else [])])


def test_the_blocks_of_shell_run_as_they_stand(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    assert len(SHELL) >= 2
    for block in SHELL:
        for words in block.commands:
            if words[0] == "tinyhd-pipe":
                assert _do(words) == 0, f"{block}: {' '.join(words)}"
    assert Path("maps/001.mp4.overlay.mp4").exists(), "what README promises first"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_the_blocks_of_python_run_as_they_stand(block: Block, with_store: Path) -> None:
    names: dict[str, object] = {}
    exec(compile(ast.parse(block.text), str(block), "exec"), names)
    if "saliency" in names:
        assert np.asarray(names["saliency"]).shape == SIZE
    if "dumped" in names:  # docs/add-a-teacher.md
        store = open_store("stands-out.zarr")
        assert (store.levels, len(store.videos)) == (("final",), 2)
        stands_out = [column_of(store.read("001.mp4", [frame], size=SIZE)["final"][0]) for frame in (4, 20)]
        assert abs(stands_out[0] - column_of(dot(4))) < 6, "the map of a frame is of that frame"
        assert abs(stands_out[1] - column_of(dot(20))) < 6


def test_a_block_that_does_not_run_would_be_seen(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    assert _do(["tinyhd-pipe", "predict", "holiday/*.mp4", "--weights", "gone.pth", "--out", "elsewhere/"]) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_of_python_that_need_more_are_python_all_the_same(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)
