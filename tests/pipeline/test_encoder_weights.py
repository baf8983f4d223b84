"""student-train and image weights for its encoder: a file, --download, or one line that says that there are none."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.image_network import image_weights
from tests.moving_dot import SIZE, make_data, make_store
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks import imagenet
from tinyhd_pipe.stages.networks.inflation import inflated
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.video.sources import find_videos

NONE = "encoder: starts from random weights"
LAST_BLOCK = "encoder.encoder.18.0.weight"


@dataclass(frozen=True)
class Place:
    """Videos, a store of their maps, and a file of image weights."""

    folder: Path
    weights: Path

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.weights.read_bytes()).hexdigest()

    def train(self, out: str, *more: str) -> int:
        small = ("epochs=1", "clips_per_video=1", f"size={list(SIZE)}", "reduction=4", "validation_clips=1")
        settings = [f"student_train.{setting}" for setting in (*small, "decoders=[d2]", "learning_rate=1e-12")]
        paths = ["--store", self.folder / "maps.zarr", "--videos", self.folder / "video", "--out", self.folder / out]
        return run(["student-train", *map(str, paths), *more, "--device", "cpu", "--json", "--set", *settings])

    def trained(self, out: str) -> tuple[dict[str, object], torch.Tensor]:
        """Facts of the student, and a kernel of its encoder."""
        read = read_weights(self.folder / out / "best.safetensors")
        return read.facts, read.state[LAST_BLOCK]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("place")
    make_data(folder, videos=2)
    make_store(folder / "maps.zarr", find_videos([folder / "video"]))
    torch.save(image_weights(1), folder / "w.pth")
    digest = hashlib.sha256((folder / "w.pth").read_bytes()).hexdigest()
    return Place(folder, (folder / "w.pth").rename(folder / f"mobilenet-{digest[:8]}.pth"))


def expected(place: Place) -> torch.Tensor:
    """The kernel that image weights give: at this learning rate a step moves nothing by more than rounding."""
    encoder = TinyHD(decoders=["d2"], reduction=4).encoder
    return inflated(read_weights(place.weights).state, encoder)[LAST_BLOCK.removeprefix("encoder.")]


def test_without_weights_training_says_so_and_goes_on(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.train("random") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("encoder:")]
    assert len(said) == 1
    assert said[0].startswith(NONE)
    facts, kernel = place.trained("random")
    assert facts["encoder_weights_sha256"] is None
    assert not torch.allclose(kernel, expected(place), atol=1e-3)


def test_a_named_file_is_where_the_encoder_starts_and_a_fact_wherever_it_lies(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.train("named", "--set", f"student_train.encoder_weights={place.weights}") == 0
    said = capsys.readouterr()
    assert NONE not in said.err
    facts, kernel = place.trained("named")
    assert facts["encoder_weights_sha256"] == place.digest
    assert str(place.weights) not in json.dumps(facts)
    torch.testing.assert_close(kernel, expected(place), atol=1e-6, rtol=0)
    moved = place.weights.with_name("moved.pth")
    moved.write_bytes(place.weights.read_bytes())
    assert place.train("named", "--resume", "--set", f"student_train.encoder_weights={moved}") == 0
    assert place.train("named", "--resume") == 2, "from random weights it would be another run"
    assert "holds a run with other settings" in capsys.readouterr().err


def test_download_takes_the_public_file_and_a_file_named_beside_it_is_a_contradiction(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The public address is that of a file here; fetching has tests of its own, with a server."""
    url = f"file://{place.weights}"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(imagenet, "MOBILENET_V2", url)
    assert place.train("downloaded", "--download") == 0
    assert f"ImageNet weights of {url}, kept at {tmp_path}" in capsys.readouterr().err
    facts, kernel = place.trained("downloaded")
    assert facts["encoder_weights_sha256"] == place.digest
    torch.testing.assert_close(kernel, expected(place), atol=1e-6, rtol=0)
    assert place.train("both", "--download", "--set", f"student_train.encoder_weights={place.weights}") == 2
    assert "leave one of them out" in capsys.readouterr().err
    monkeypatch.setattr(imagenet, "MOBILENET_V2", "http://127.0.0.1:9/net-00000000.pth")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert place.train("offline", "--download") == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert "cannot be fetched" in said[-1]
    assert not (place.folder / "offline").exists(), "nothing was begun"
