"""Weights files from one format into the other: nothing is lost, and files for published code are as published."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tinyhd_pipe.stages.convert import Converted, convert
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import Unshown, load_student, load_teacher
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.store.errors import SettingError, WeightsError


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def _loaded(path: Path) -> Any:
    return torch.load(path, weights_only=True)


def _listed(shared: Path, name: str) -> list[str]:
    """The keys of a published checkpoint, in their order."""
    return list(json.loads((shared / f"reference/{name}_parameters.json").read_text()))


@pytest.mark.shared
@pytest.mark.parametrize(("file", "listed"), [("d123m", "tinyhd_multi_rc4"), ("d123s", "tinyhd_single_rc4")])
def test_a_published_student_goes_round_bit_by_bit_with_its_keys_in_their_order(
    shared: Path, tmp_path: Path, file: str, listed: str
) -> None:
    published = shared / f"reference/weights/{file}_rc4_rc1T.pth"
    there = convert(published, tmp_path / "student.safetensors")
    back = convert(there.out, tmp_path / "back.pth")
    state = _loaded(back.out)["student_model"]
    assert list(state) == _listed(shared, listed)
    first = torch.load(published, weights_only=True, map_location="cpu")["student_model"]
    assert list(state) == list(first)
    assert _same(state, dict(first))
    assert back.bytes < 1.1 * published.stat().st_size, "no tensor brings the memory of others along"


@pytest.mark.shared
@pytest.mark.parametrize("outputs", [1, 16])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_keys_of_every_published_student_stand_in_their_order(
    shared: Path, tmp_path: Path, outputs: int, reduction: int
) -> None:
    write_weights(tmp_path / "s.safetensors", TinyHD(outputs=outputs, reduction=reduction).state_dict(), {})
    convert(tmp_path / "s.safetensors", tmp_path / "s.pth")
    kind = "single" if outputs == 1 else "multi"
    assert list(_loaded(tmp_path / "s.pth")["student_model"]) == _listed(shared, f"tinyhd_{kind}_rc{reduction}")


@pytest.mark.shared
def test_a_published_teacher_goes_round_bit_by_bit_with_its_keys_in_their_order(shared: Path, tmp_path: Path) -> None:
    names = _listed(shared, "hd2s")
    state = HD2S(seed=4).state_dict()
    torch.save({name: state[name] for name in names}, tmp_path / "hd2s.pt")
    there = convert(tmp_path / "hd2s.pt", tmp_path / "hd2s.safetensors")
    assert there.facts["kind"] == "hd2s"
    assert there.facts["licence"].startswith("CC BY-NC 4.0")
    back = _loaded(convert(there.out, tmp_path / "back.pth").out)
    assert list(back) == names
    assert list(back) != sorted(back), "an order of its own"
    assert _same(back, state)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 16-output student as a published file has it: below a name, with DataParallel's prefix."""
    path = tmp_path_factory.mktemp("published") / "d2d3m.pth"
    state = TinyHD(decoders=("d2", "d1"), reduction=4, outputs=16, seed=3).state_dict()
    torch.save({"student_model": {f"module.{name}": tensor for name, tensor in state.items()}}, path)
    return path


def test_the_facts_say_what_the_keys_show_and_what_they_do_not(published: Path, tmp_path: Path) -> None:
    unshown = Unshown(d1_outputs=16, fusion_order=("d1", "d2"))
    convert(published, tmp_path / "s.safetensors", unshown=unshown)
    facts = read_weights(tmp_path / "s.safetensors").facts
    assert facts["decoders"] == ["d2", "d1"]
    assert (facts["reduction"], facts["outputs"]) == (4, 16)
    assert facts["taken_from_sha256"] == hashlib.sha256(published.read_bytes()).hexdigest()
    assert facts["preprocessing"]["mean"] == [123.675, 116.28, 103.53]
    assert facts["licence"] == "none stated (published TinyHD code and weights)"
    told = load_student(published, size=(32, 64), unshown=unshown)
    clip = told.preprocess(torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8).numpy())
    there = load_student(tmp_path / "s.safetensors", size=(32, 64))
    assert torch.equal(there(clip)["final"], told(clip)["final"]), "the file itself says now what had to be told"
    assert not torch.equal(load_student(published, size=(32, 64))(clip)["final"], told(clip)["final"])
    assert there.facts["licence"] == told.facts["licence"], "terms are those of the published file"


def test_the_same_file_gives_the_same_bytes_in_either_format(published: Path, tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors", "a.pth", "b.pth"):
        convert(published, tmp_path / name)
    for ending in ("safetensors", "pth"):
        one, other = (hashlib.sha256((tmp_path / f"{name}.{ending}").read_bytes()).digest() for name in "ab")
        assert one == other


def test_facts_of_our_own_files_stay_as_they_are(tmp_path: Path) -> None:
    facts = {
        "kind": "tinyhd",
        "decoders": ["d1"],
        "reduction": 4,
        "outputs": 16,
        "d1_outputs": 16,
        "fusion_order": ["d1"],
        "size": [64, 96],
        "licence": "CC BY 4.0",
        "teacher": {"kind": "hd2s"},
        "code": "0.0.1",
    }
    state = TinyHD(decoders=("d1",), reduction=4, outputs=16, d1_outputs=16).state_dict()
    write_weights(tmp_path / "ours.safetensors", state, facts)
    convert(tmp_path / "ours.safetensors", tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "ours.safetensors").read_bytes()
    assert convert(tmp_path / "ours.safetensors", tmp_path / "theirs.pth").facts == facts


def _refused(file: Path, out: Path, **asked: Any) -> str:
    before = out.read_bytes() if out.is_file() else None
    with pytest.raises((SettingError, WeightsError)) as caught:
        convert(file, out, **asked)
    assert (out.read_bytes() if out.is_file() else None) == before
    return str(caught.value)


def test_what_is_there_is_overwritten_only_where_that_is_asked_for(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    assert _refused(published, out) == f"{out}: is there already; give another name, or add --overwrite"
    assert isinstance(convert(published, out, overwrite=True), Converted)
    assert read_weights(out).facts["kind"] == "tinyhd"
    assert "is the file that is read" in _refused(out, out, overwrite=True)


def test_what_is_no_network_of_ours_is_refused(published: Path, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.ones(1)}, tmp_path / "other.pth")
    said = _refused(tmp_path / "other.pth", tmp_path / "o.safetensors")
    assert "neither TinyHD nor HD2S (its first key is conv.weight)" in said
    lacking = dict(list(read_weights(published).state.items())[:-1])
    torch.save(lacking, tmp_path / "lacking.pth")
    said = _refused(tmp_path / "lacking.pth", tmp_path / "o.safetensors")
    assert said.startswith(f"{tmp_path / 'lacking.pth'}: weights do not fit")
    assert "is a folder" in _refused(published, _folder(tmp_path / "folder.pth"))
    assert "is a folder" in _refused(published, tmp_path)
    assert "is a file, not a folder" in _refused(published, tmp_path / "other.pth" / "s.pth")
    assert "its ending says no format" in _refused(published, tmp_path / "student.onnx")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_options_do_not_contradict_the_file(published: Path, tmp_path: Path) -> None:
    there = convert(published, tmp_path / "s.safetensors", licence="CC BY 4.0").out
    assert read_weights(there).facts["licence"] == "CC BY 4.0"
    out = tmp_path / "o.safetensors"
    assert "the file itself says 1" in _refused(there, out, unshown=Unshown(d1_outputs=16))
    assert "the file itself says 'CC BY 4.0'" in _refused(there, out, licence="MIT")
    write_weights(tmp_path / "h.safetensors", HD2S(width=0.0625).state_dict(), {})
    assert "holds HD2S" in _refused(tmp_path / "h.safetensors", out, unshown=Unshown(d1_outputs=16))
    assert load_teacher("hd2s", weights=convert(tmp_path / "h.safetensors", out).out).facts["licence"] == "none stated"
