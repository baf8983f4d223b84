"""Model cards say what a network is, what it costs and under which terms, and a hub folder is one that loads."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.lively_networks import lively
from tests.video_files import numbered, write
from tinyhd_pipe.stages.exports.card import (
    Described,
    card_of,
    check_hub_folder,
    gflop_of,
    lay_out,
    terms_of,
    write_card,
)
from tinyhd_pipe.stages.exports.facts import facts_of
from tinyhd_pipe.stages.exports.graph import Graph
from tinyhd_pipe.stages.exports.int8 import Loss
from tinyhd_pipe.stages.exports.metrics_files import Metrics, read_metrics
from tinyhd_pipe.stages.exports.published import facts_of_file
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.licence import PUBLISHED, TORCHVISION
from tinyhd_pipe.stages.networks.network import Unshown, load_student, ready
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.store.errors import DataError, SettingError

HD2S_TERMS = PUBLISHED["hd2s"]
TRAINED: dict[str, Any] = {
    "kind": "tinyhd",
    "decoders": ["d3"],
    "reduction": 4,
    "outputs": 16,
    "d1_outputs": 1,
    "fusion_order": ["d3"],
    "size": [32, 64],
    "teacher": {"kind": "hd2s", "weights_sha256": "beef" * 16},
    "learned_from": ["a.mp4", "b.mp4"],
    "videos_sha256": "cafe" * 16,
    "encoder_weights_sha256": None,
    "recipe": {"epochs": 3, "optimiser": "sgd", "size": [32, 64], "encoder_weights": None},
    "code": "0.1.0",
    "licence": f"{HD2S_TERMS} + {TORCHVISION}",
}
SCORES = {
    "mean": {
        "student": {"CC": 0.5, "NSS": 2.25, "s-AUC": None},
        "teacher": {"CC": 0.6, "NSS": 3.0, "s-AUC": None},
        "centre prior": {"CC": 0.2, "NSS": 1.0, "s-AUC": None},
    },
    "videos": {"student": {"1": {}, "2": {}}},
    "frames": 1234,
    "protocol": "dhf1k",
    "postprocessing": "none",
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Described:
    """A student of HD2S, trained here, and a file that stands for its export."""
    folder = tmp_path_factory.mktemp("trained")
    module = lively(7, decoders=("d3",), reduction=4, outputs=16)
    write_weights(folder / "best.safetensors", module.state_dict(), TRAINED)
    network = load_student(folder / "best.safetensors")
    graph = Graph(network, ["final"], takes_frames=False)
    facts = facts_of(network, graph, graph(graph.example()), versions={})
    (folder / "best.onnx").write_bytes(b"exported")
    weights = read_weights(folder / "best.safetensors")
    return Described("best", network, weights, facts, (folder / "best.onnx",), "Compared.")


def _with(described: Described, **changed: Any) -> Described:
    return Described(**{**vars(described), **changed})


def _head(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---")[1]))


def test_a_student_of_hd2s_says_at_the_top_that_it_is_non_commercial(described: Described) -> None:
    card = card_of(described, weights="best.safetensors")
    assert _head(card)["license"] == "cc-by-nc-4.0"
    top = card.split("## What it is")[0]
    assert HD2S_TERMS in top
    assert "Not for commercial use" in top
    assert "distilled from HD2S" in top


@pytest.mark.parametrize(
    ("licence", "identifier", "name", "words"),
    [
        (HD2S_TERMS, "cc-by-nc-4.0", None, "Not for commercial use"),
        (f"{HD2S_TERMS} + {TORCHVISION}", "cc-by-nc-4.0", None, "Not for commercial use"),
        ("CC BY 4.0 (Example Lab)", "cc-by-4.0", None, "terms of their own"),
        ("MIT + Apache-2.0", "mit", None, "terms of their own"),
        (f"CC BY 4.0 + {HD2S_TERMS} + none stated", "other", "non-commercial-see-card", "For none stated there are no"),
        ("CC BY-NC 4.0 + CC BY-SA 4.0", "other", "non-commercial-see-card", "Not for commercial use"),
        ("none stated", "other", "see-card", "all rights are reserved"),
        (PUBLISHED["tinyhd"], "other", "non-commercial-see-card", "taught by HD2S"),
        ("MITRE's own", "other", "see-card", "all rights are reserved"),
    ],
)
def test_terms_are_an_identifier_only_where_it_holds_for_all_sources(
    licence: str, identifier: str, name: str | None, words: str
) -> None:
    terms = terms_of(licence)
    assert (terms.licence, terms.name) == (identifier, name)
    assert words in terms.in_words
    assert ("Not for commercial use" in terms.in_words) == ("NC" in licence or "TinyHD" in licence)


def test_a_card_holds_what_the_file_and_the_network_say(described: Described) -> None:
    card = card_of(described, weights="best.safetensors")
    parameters = sum(parameter.numel() for parameter in described.network.module.parameters()) / 1e6
    gflop = gflop_of(described.network)
    for said in (
        f"{parameters:.2f} million",
        f"{gflop:.2f} a window of 16 frames, {gflop / 16:.3g} a frame",
        described.weights.sha256,
        "Maps of HD2S, weights `beefbeefbeef`.",
        "2 videos, by digest `cafecafecafe`.",
        "epochs 3, optimiser sgd, size 32 64",
        "| `best.onnx` |",
        'load_student("best.safetensors").predict("video.mp4")',
        "tinyhd-pipe predict VIDEO --weights best.safetensors --out maps/ --overlay",
        "No evaluation was given.",
    ):
        assert said in card
    assert "None" not in card


def test_a_card_of_a_file_in_8_bits_says_what_they_cost(described: Described) -> None:
    assert "8 bits" not in card_of(described, weights="best.safetensors")
    loss = Loss(0.0123, 0.05, 0.998, 2.5, 2.6, 8, ("a",), ("b",), 0.02)
    card = card_of(_with(described, facts={**described.facts, "int8": loss.facts()}), weights="best.safetensors")
    assert "| 8 bits cost | KL 0.0123 nats (mean of final maps; largest 0.0500), CC 0.9980, NSS 2.50 for 2.60," in card


def test_operations_are_those_counted_as_the_networks_own_docs_count_them() -> None:
    """S and M at full width: 10.3 and 14.4 GFLOP for 16 frames of 192x256, as networks/tinyhd.py has it."""
    for outputs, gflop in ((1, 10.3), (16, 14.4)):
        whole = gflop_of(ready("tinyhd", TinyHD(outputs=outputs), size=(32, 64)))
        assert whole * (192 * 256) / (32 * 64) == pytest.approx(gflop, rel=0.01)


def test_figures_stand_in_the_table_and_in_the_head_with_their_protocol(described: Described, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps(SCORES))
    metrics = read_metrics(tmp_path / "scores.json", row=None, names=("student", "best"))
    card = card_of(_with(described, metrics=metrics), weights="best.safetensors")
    assert "| **student** (this network) | 0.500 | 2.250 | – |" in card
    assert "| centre prior | 0.200 | 1.000 | – |" in card
    assert "Protocol dhf1k, postprocessing none; 2 videos, 1,234 frames." in card
    (result,) = _head(card)["model-index"][0]["results"]
    assert {metric["name"]: metric["value"] for metric in result["metrics"]} == {"CC": 0.5, "NSS": 2.25}
    assert result["metrics"][0]["args"]["protocol"] == "dhf1k"


def test_the_row_of_the_network_is_found_or_asked_for(tmp_path: Path) -> None:
    def read(rows: list[str], row: str | None = None) -> Metrics:
        (tmp_path / "s.json").write_text(json.dumps({"mean": {name: {"CC": 0.1} for name in rows}}))
        return read_metrics(tmp_path / "s.json", row=row, names=("student", "best"))

    assert read(["other", "centre prior", "other, still frames"]).row == "other"
    assert read(["a", "best"]).row == "best"
    assert read(["a", "b"], row="b").row == "b"
    with pytest.raises(SettingError, match=r"--row: which of its rows is this network\? .* has 'a', 'b'; name it"):
        read(["a", "b"])
    with pytest.raises(SettingError, match=r"--row c: .* has 'a', 'b'"):
        read(["a", "b"], row="c")
    (tmp_path / "student.json").write_text(json.dumps({"CC": 0.5, "IG": None}))
    alone = read_metrics(tmp_path / "student.json", row=None, names=("student",))
    assert (alone.row, alone.protocol) == ("student", None)
    for wrong in ("[1]", '{"a": {"b": "c"}}', "CC .5", "{}"):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(DataError, match="evaluate --json"):
            read_metrics(tmp_path / "wrong.json", row=None, names=())


def test_a_hub_folder_loads_again_and_its_card_is_valid_without_a_network(described: Described, tmp_path: Path) -> None:
    facts, _ = facts_of_file(Path("best.safetensors"), described.weights, "tinyhd", Unshown())
    left = lay_out(described, tmp_path / "hub", facts)
    assert {path.name for path in left} == {path.name for path in (tmp_path / "hub").iterdir()}
    assert {path.name for path in left} == {"README.md", "model.safetensors", "config.json", "best.onnx"}
    card = ModelCard.load(tmp_path / "hub" / "README.md")
    assert card.data.license == "cc-by-nc-4.0"
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict(), "what is read is what was written"
    loaded = load_student(tmp_path / "hub" / "model.safetensors")
    assert loaded.facts["licence"] == described.network.facts["licence"]
    assert json.loads((tmp_path / "hub" / "config.json").read_text()) == described.facts
    with pytest.raises(SettingError, match="is not empty"):
        check_hub_folder(tmp_path / "hub", overwrite=False)
    check_hub_folder(tmp_path / "hub", overwrite=True)
    check_hub_folder(tmp_path / "new", overwrite=False)
    with pytest.raises(SettingError, match="is a file"):
        check_hub_folder(tmp_path / "hub" / "README.md", overwrite=True)


def test_the_python_of_a_card_runs(described: Described, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = write_card(described, tmp_path / "best.onnx.md", weights="best.safetensors").read_text()
    code = card.split("```python\n")[1].split("```")[0]
    shutil.copy(described.files[0].with_name("best.safetensors"), tmp_path)
    write(tmp_path / "video.mp4", [numbered(number) for number in range(3)])
    monkeypatch.chdir(tmp_path)
    shown: list[Any] = []
    exec(code, {"print": lambda *values: shown.append(values)})
    assert [values[0] for values in shown] == [0, 1, 2]
    assert shown[0][1] == (32, 64)


def test_a_teacher_has_a_card_too(described: Described, tmp_path: Path) -> None:
    write_weights(tmp_path / "t.safetensors", HD2S(width=0.0625).state_dict(), {"kind": "hd2s", "licence": "MIT"})
    weights = read_weights(tmp_path / "t.safetensors")
    network = ready("hd2s", HD2S.from_state_dict(weights.state), size=(32, 64), weights=weights)
    facts = {**described.facts, "topology": {"width": 0.0625}}
    card = card_of(_with(described, network=network, weights=weights, facts=facts), weights="t.safetensors")
    assert "HD2S of width 0.0625" in card
    assert "--teacher hd2s" in card
    assert 'load_teacher("hd2s", weights="t.safetensors")' in card
    assert _head(card)["license"] == "mit"
