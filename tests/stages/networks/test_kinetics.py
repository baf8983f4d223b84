"""S3D's public Kinetics-400 file: every layer arrives where it belongs, and nothing that does not fit is taken."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.public_s3d import PublicS3D
from tinyhd_pipe.stages.networks.kinetics import TERMS, start_from_kinetics
from tinyhd_pipe.stages.networks.s3d import S3DEncoder
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.store.errors import WeightsError


@pytest.fixture(scope="module")
def public() -> PublicS3D:
    return PublicS3D(seed=4).eval()


@pytest.mark.parametrize(("prefix", "shuffled"), [("", None), ("module.", 1), ("", 2)])
def test_the_encoder_computes_what_the_public_network_computes(
    public: PublicS3D, prefix: str, shuffled: int | None, tmp_path: Path
) -> None:
    torch.save(public.file(prefix=prefix, shuffled=shuffled), tmp_path / "s3d.pt")
    encoder = S3DEncoder(1.0).eval()
    start = start_from_kinetics(encoder, tmp_path / "s3d.pt")
    assert start is not None
    assert (start.sha256, start.licence) == (read_weights(tmp_path / "s3d.pt").sha256, TERMS)
    clip = torch.randn(1, 3, 16, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = encoder(clip), dict(public.features(clip))
    assert ours.keys() == theirs.keys()
    for block, features in theirs.items():
        assert features.std() > 1e-3, "features that are all alike would show nothing"
        torch.testing.assert_close(ours[block], features, rtol=1e-3, atol=1e-4 * float(features.abs().max()))


def test_counters_may_be_missing_as_in_files_of_older_torch(public: PublicS3D, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in public.file().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "s3d.pt")
    assert start_from_kinetics(S3DEncoder(1.0), tmp_path / "s3d.pt") is not None


def _without(state: dict[str, Tensor]) -> None:
    del state["base.10.branch2.1.bn_t.running_var"]


def _with_more(state: dict[str, Tensor]) -> None:
    state["base.16.conv.weight"] = torch.zeros(1)


def _swapped(state: dict[str, Tensor]) -> None:
    state["base.2.conv.weight"] = state["base.3.conv_s.weight"]


@pytest.mark.parametrize(
    ("spoil", "width", "named"),
    [
        (_without, 1.0, "base.10.branch2.1.bn_t.running_var is missing)"),
        (_with_more, 1.0, "base.16.conv.weight is none of its tensors)"),
        (_swapped, 1.0, "base.2.conv.weight is (192, 64, 1, 3, 3), expected (64, 64, 1, 1, 1))"),
        (lambda state: None, 0.25, "base.0.conv_s.weight is (64, 3, 1, 7, 7), expected (16, 3, 1, 7, 7) and "),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_and_changes_nothing(
    public: PublicS3D, spoil: Callable[[dict[str, Tensor]], None], width: float, named: str, tmp_path: Path
) -> None:
    state = public.file(shuffled=3)
    spoil(state)
    torch.save(state, tmp_path / "s3d.pt")
    encoder = S3DEncoder(width)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(WeightsError) as refusal:
        start_from_kinetics(encoder, tmp_path / "s3d.pt")
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.state_dict().items())


def test_without_a_file_nothing_changes_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    encoder = S3DEncoder(0.25)
    assert start_from_kinetics(encoder, None) is None
    with pytest.raises(WeightsError, match="no such weights file"):
        start_from_kinetics(encoder, tmp_path / "gone.pt")
