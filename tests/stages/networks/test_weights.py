"""Weights files: what is read, what is refused and how it is said, and what our own files promise."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tinyhd_pipe.stages.networks.weights import load_strictly, read_weights, write_weights
from tinyhd_pipe.store.errors import WeightsError

STATE = {"conv.weight": torch.arange(6.0).view(1, 2, 3), "bn.num_batches_tracked": torch.tensor(7)}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
tensors = st.builds(
    lambda shape, dtype, seed: (10 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))).to(dtype),
    st.lists(st.integers(0, 4), max_size=5),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64]),
    st.integers(0, 99),
)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def refusal(path: Path) -> str:
    """What `read_weights` says of a file that it must refuse: one line that begins with the path."""
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


@settings(max_examples=50, deadline=None)
@given(
    state=st.dictionaries(
        st.text(min_size=1, max_size=9).filter(lambda name: name != "__metadata__"), tensors, min_size=1
    ),
    facts=st.dictionaries(st.text(), json_values, max_size=4),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor], facts: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("round") / "ours.safetensors"
    write_weights(path, state, facts)
    read = read_weights(path)
    assert same(read.state, state)
    assert read.facts == facts
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_weights_give_the_same_bytes_whatever_their_order_and_layout(tmp_path: Path) -> None:
    rows = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    write_weights(one, {"a": rows, "b": torch.ones(3)}, {"x": 1, "y": [2]})
    write_weights(other, {"b": torch.ones(3), "a": rows.to(memory_format=torch.channels_last)}, {"y": [2], "x": 1})
    assert one.read_bytes() == other.read_bytes()
    write_weights(other, {"b": torch.ones(3), "a": rows + 1e-6}, {"y": [2], "x": 1})
    assert one.read_bytes() != other.read_bytes()


def test_tensors_that_share_memory_and_parameters_that_learn_are_written(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    write_weights(tmp_path / "w.safetensors", {"one": layer.weight, "tied": layer.weight}, {})
    state = read_weights(tmp_path / "w.safetensors").state
    assert torch.equal(state["one"], layer.weight)
    assert torch.equal(state["tied"], layer.weight)
    assert not state["one"].requires_grad


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, STATE, {"epoch": 1})
    before = path.read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(WeightsError, match="No space left on device"):
        write_weights(path, STATE, {"epoch": 2})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_cannot_be_written_to(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be written"):
        write_weights(tmp_path / "missing/w.safetensors", STATE, {})


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.safetensors"])
@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize(
    "wrap",
    [
        dict,
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}},
        lambda state: {"epoch": 3, "student_model": state},
        lambda state: {"model": state},
        lambda state: {"net": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ],
    ids=["bare", "state_dict", "student_model", "model", "net, DataParallel", "DataParallel"],
)
def test_a_published_checkpoint_is_read_however_it_is_wrapped_and_named(
    tmp_path: Path, name: str, old_format: bool, wrap: Callable[[dict[str, Tensor]], dict[str, Any]]
) -> None:
    path = tmp_path / name
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=not old_format)
    read = read_weights(path)
    assert same(read.state, STATE)
    assert read.facts == {}
    assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_prefix_that_only_some_keys_have_is_part_of_their_names(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")
    assert read_weights(tmp_path / "w.pth").state.keys() == state.keys()


@pytest.mark.shared
@pytest.mark.parametrize("name", ["d123s_rc4_rc1T", "d123m_rc4_rc1T"])
def test_the_published_files_are_read(shared: Path, name: str) -> None:
    read = read_weights(shared / f"reference/weights/{name}.pth")
    assert len(read.state) == 980
    assert "encoder.encoder.0.0.weight" in read.state


class Touch:
    """Unpickled, it makes a file: the shape of every attack by pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


class Shell(Touch):
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("attack", [Touch, Shell])
@pytest.mark.parametrize("form", ["new", "old", "pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, attack: type[Touch], form: str) -> None:
    trace, path = tmp_path / "ran", tmp_path / "w.pth"
    checkpoint = {"a": torch.ones(2), "payload": attack(trace)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(attack(trace), protocol=2))
    else:
        torch.save(checkpoint, path, _use_new_zipfile_serialization=form == "new")
    assert "would run" in refusal(path)
    assert not trace.exists()


def test_the_attack_of_the_test_above_is_a_real_one(tmp_path: Path) -> None:
    trace, path = tmp_path / "ran", tmp_path / "w.pth"
    torch.save({"payload": Touch(trace)}, path)
    torch.load(path, weights_only=False)
    assert trace.exists()


def test_a_whole_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    assert "torch.nn.modules.linear.Linear" in refusal(tmp_path / "w.pth")


def test_a_path_without_weights_is_refused(tmp_path: Path) -> None:
    assert "no such" in refusal(tmp_path / "missing.pth")
    assert "folder" in refusal(tmp_path)
    (tmp_path / "empty.pth").touch()
    assert "empty" in refusal(tmp_path / "empty.pth")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(500),
        b"<!DOCTYPE html><html>404 Not Found</html>",
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"\x00",
        b"cposix\nsystem\n(S'true'\ntR.",
    ],
    ids=["JPEG", "web page", "AVI", "one byte", "pickle of protocol 0"],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    assert "not a weights file" in refusal(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert "a Git LFS pointer, not the weights themselves; run git lfs pull" in refusal(path)


@pytest.mark.parametrize("kind", ["new", "old", "safetensors"])
@pytest.mark.parametrize("kept", [0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, kind: str, kept: float) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut.pth"
    state = {"a": torch.ones(5000), "b": torch.ones(5000)}
    if kind == "safetensors":
        write_weights(whole, state, {})
    else:
        torch.save(state, whole, _use_new_zipfile_serialization=kind == "new")
    content = whole.read_bytes()
    cut.write_bytes(content[: max(10, int(len(content) * kept))])
    assert "download or write it again" in refusal(cut)


@pytest.mark.parametrize("checkpoint", [{}, {"epoch": 3}, {"state_dict": {}}, [torch.ones(2)], torch.ones(2), 3])
def test_a_checkpoint_without_a_state_dict_is_refused(tmp_path: Path, checkpoint: object) -> None:
    torch.save(checkpoint, tmp_path / "w.pth")
    assert "expected" in refusal(tmp_path / "w.pth")
    write_weights(tmp_path / "w.safetensors", {}, {"epoch": 3})
    assert "no tensors" in refusal(tmp_path / "w.safetensors")


def test_weights_that_fit_are_loaded(tmp_path: Path) -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    load_strictly(other, one.state_dict(), "a layer")
    assert same(dict(one.state_dict()), dict(other.state_dict()))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.ones(2, 3)}, "1 keys missing (first bias)"),
        (
            {"weight": torch.ones(2, 3), "bias": torch.ones(2), "c": torch.ones(1)},
            "1 keys unexpected (first c)",
        ),
        (
            {"weight": torch.ones(2, 4), "bias": torch.ones(2)},
            "1 of another shape (first weight: (2, 4), expected (2, 3))",
        ),
        ({}, "2 keys missing (first weight)"),
    ],
)
def test_weights_that_do_not_fit_are_counted_and_change_nothing(state: dict[str, Tensor], message: str) -> None:
    layer = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_strictly(layer, state, "a layer")
    assert message in str(caught.value)
    assert "a layer" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert same(dict(layer.state_dict()), before)
