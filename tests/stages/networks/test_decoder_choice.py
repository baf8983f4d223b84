"""Any choice of decoders, repeats among them, as in the published ablation with three D1."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.lively_networks import answer, lively, noise
from tinyhd_pipe.stages.networks.decoders import DECODERS, adapters
from tinyhd_pipe.stages.networks.levels import CONSPICUITY, levels_of, plain_level
from tinyhd_pipe.stages.networks.network import as_published, load_student
from tinyhd_pipe.stages.networks.tinyhd import TinyHD, Topology, topology_from_state_dict
from tinyhd_pipe.stages.networks.weights import write_weights

CHOICES = [("d1", "d1", "d1"), ("d2",), ("d2", "d1"), ("d1", "d2", "d3"), ("d2", "d1", "d2")]
choices = st.lists(st.sampled_from(DECODERS), min_size=1, max_size=5).map(tuple)
ADAPTER = "aggregator.aggregate_adapter."


@settings(deadline=None)
@given(choices)
def test_no_two_maps_share_a_name_and_each_tells_its_target(decoders: tuple[str, ...]) -> None:
    names = levels_of(decoders)
    flat = [level for levels in names for level in levels]
    assert len(set(flat)) == len(flat)
    for decoder, levels in zip(decoders, names, strict=True):
        assert tuple(map(plain_level, levels)) == (CONSPICUITY if decoder == "d1" else (decoder,))
    firsts = [names[decoders.index(decoder)] for decoder in set(decoders)]
    assert all(plain_level(level) == level for levels in firsts for level in levels), "the first keeps the plain names"


@settings(max_examples=10, deadline=None)
@given(choices, st.sampled_from([1, 2, 4]), st.sampled_from([1, 16]))
def test_keys_and_shapes_tell_every_choice(decoders: tuple[str, ...], reduction: int, outputs: int) -> None:
    with torch.device("meta"):  # shapes are enough
        state = TinyHD(decoders=decoders, reduction=reduction, outputs=outputs, d1_outputs=outputs).state_dict()
    assert topology_from_state_dict(state) == Topology(decoders, reduction, outputs)


@pytest.mark.shared
@pytest.mark.parametrize(("letter", "outputs"), [("single", 1), ("multi", 16)])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_published_keys_of_three_d1_are_known_by_themselves(
    shared: Path, letter: str, outputs: int, reduction: int
) -> None:
    """The published list of D1, D2, D3 with D1's keys three times, numbered on, and a fusion of 12 maps."""
    listed = json.loads((shared / f"reference/tinyhd_{letter}_rc{reduction}_parameters.json").read_text())
    count = len(adapters("d1", reduction))
    d1 = [(int(key.split(".")[2]), key) for key in listed if key.startswith(ADAPTER)]
    state = {key: torch.empty(shape) for key, shape in listed.items() if not key.startswith(ADAPTER)}
    for repeat in range(3):
        for number, key in d1:
            if number < count:
                moved = key.replace(f"{ADAPTER}{number}.", f"{ADAPTER}{number + repeat * count}.")
                state[moved] = torch.empty(listed[key])
    state["decoder.decoder.0.weight"] = torch.empty(1, 12, *listed["decoder.decoder.0.weight"][2:])
    assert topology_from_state_dict(state) == Topology(("d1", "d1", "d1"), reduction, outputs)
    network = TinyHD.from_state_dict(state, d1_outputs=outputs)
    assert list(network.state_dict().keys()) == sorted(state, key=list(network.state_dict()).index)


@pytest.mark.parametrize("outputs", [1, 16])
@pytest.mark.parametrize("decoders", CHOICES, ids="-".join)
def test_a_network_that_was_written_is_read_with_the_same_maps(
    tmp_path: Path, decoders: tuple[str, ...], outputs: int
) -> None:
    network = lively(1, decoders=decoders, reduction=4, outputs=outputs, d1_outputs=outputs)
    facts = {"kind": "tinyhd", "d1_outputs": outputs, "fusion_order": list(decoders), "size": [32, 64]}
    write_weights(tmp_path / "w.safetensors", network.state_dict(), facts)
    clip = noise(1, 1, 3, 16, 32, 64)
    expected = answer(network, clip)
    read = as_published(load_student(tmp_path / "w.safetensors"))(clip)
    assert set(read) == {*(level for levels in levels_of(decoders) for level in levels), "final"}
    for level, maps in read.items():
        assert maps.shape == ((1, 32, 64) if outputs == 1 else (1, 16, 32, 64))
        torch.testing.assert_close(maps, expected[level].sigmoid())


@pytest.mark.parametrize(
    ("decoders", "order", "outputs"),
    [
        (("d1", "d1", "d1"), (2, 0, 1), 1),
        (("d1", "d2", "d3"), (2, 0, 1), 1),
        (("d1", "d2", "d1", "d2"), (3, 2, 1, 0), 1),
        (("d1", "d2", "d1"), (1, 2, 0), 16),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else str(value),
)
def test_decoders_that_change_places_with_their_weights_give_the_same_final_map(
    decoders: tuple[str, ...], order: tuple[int, ...], outputs: int
) -> None:
    network = lively(2, decoders=decoders, reduction=4, outputs=outputs, d1_outputs=outputs)
    moved = TinyHD(decoders=[decoders[place] for place in order], reduction=4, outputs=outputs, d1_outputs=outputs)
    moved.load_state_dict(_moved(network, order))
    clip = noise(2, 1, 3, 16, 32, 64)
    one, other = answer(network, clip), answer(moved.eval(), clip)
    torch.testing.assert_close(other["final"], one["final"], atol=1e-4, rtol=1e-4)
    before, after = levels_of(network.decoders), levels_of(moved.decoders)
    for new, old in enumerate(order):
        for was, level in zip(before[old], after[new], strict=True):
            assert torch.equal(other[level], one[was]), "each map moves with its decoder"
    moved.decoder.load_state_dict(network.decoder.state_dict())
    assert (answer(moved, clip)["final"] - one["final"]).abs().max() > 1e-2, "the fusion must move, too"


def _moved(network: TinyHD, order: tuple[int, ...]) -> dict[str, Tensor]:
    """The weights of `network` with its decoders and their maps in another order."""
    state: dict[str, Any] = network.state_dict()
    counts = [len(adapters(decoder, network.reduction)) for decoder in network.decoders]
    maps = [len(levels) for levels in levels_of(network.decoders)]
    blocks, columns = (
        [range(sum(sizes[:place]), sum(sizes[: place + 1])) for place in range(len(sizes))] for sizes in (counts, maps)
    )
    numbers = [number for place in order for number in blocks[place]]
    moved = {key: tensor for key, tensor in state.items() if not key.startswith(ADAPTER)}
    for new, old in enumerate(numbers):
        own = {key: tensor for key, tensor in state.items() if key.startswith(f"{ADAPTER}{old}.")}
        moved |= {key.replace(f"{ADAPTER}{old}.", f"{ADAPTER}{new}."): tensor for key, tensor in own.items()}
    fused = [column for place in order for column in columns[place]]
    moved["decoder.decoder.0.weight"] = state["decoder.decoder.0.weight"][:, fused]
    return moved


def test_the_fusion_order_counts_decoders_of_a_kind_among_themselves() -> None:
    network = lively(3, decoders=("d1", "d2", "d1"), reduction=4)
    state = network.state_dict()
    weights = state["decoder.decoder.0.weight"]  # first d1: 0 to 3, d2: 4, second d1: 5 to 8
    moved = {**state, "decoder.decoder.0.weight": weights[:, [0, 1, 2, 3, 5, 6, 7, 8, 4]]}
    same = TinyHD.from_state_dict(moved, fusion_order=("d1", "d1", "d2")).eval()
    clip = noise(3, 1, 3, 16, 32, 64)
    torch.testing.assert_close(answer(same, clip)["final"], answer(network, clip)["final"])


def test_several_d1_learn_apart_and_do_not_start_as_one() -> None:
    network = TinyHD(decoders=("d1", "d1"), reduction=4).train()
    logits = network(noise(4, 2, 3, 16, 32, 64))
    for level in CONSPICUITY:
        assert (logits[level] - logits[f"{level}-2"]).abs().max() > 1e-2, level
    logits["conspicuity_2-2"].square().mean().backward()
    touched = {
        int(name.split(".")[2])
        for name, p in network.named_parameters()
        if name.startswith(ADAPTER) and p.grad is not None
    }
    assert touched == {16, 17, 18, 19}, "the shallowest head of the second D1"
