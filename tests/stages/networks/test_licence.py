"""Terms follow the weights file: its own where it says so, those of a published file where it can be nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinyhd_pipe.stages.networks.licence import (
    NONE_STATED,
    PUBLISHED,
    TORCHVISION,
    combined,
    forbids_commerce,
    licence_of,
    licence_of_start,
)
from tinyhd_pipe.stages.networks.weights import Weights

TERMS = st.lists(st.sampled_from(["MIT", "CC BY 4.0 (a lab)", "GPL-2.0+", NONE_STATED]), min_size=1, max_size=5)


def _file(sha256: str = "0" * 64, **facts: object) -> Weights:
    return Weights({"w": torch.zeros(1)}, facts, sha256)


@pytest.mark.parametrize(
    ("weights", "width", "licence"),
    [
        (_file(), 1.0, PUBLISHED["hd2s"]),
        (_file(), 0.25, NONE_STATED),
        (_file(kind="hd2s", taken_from_sha256="00"), 1.0, PUBLISHED["hd2s"]),
        (_file(kind="hd2s", epoch=3), 1.0, NONE_STATED),
        (_file(kind="hd2s", licence="CC0-1.0"), 1.0, "CC0-1.0"),
        (None, 1.0, NONE_STATED),
    ],
    ids=["published", "never published", "published, adopted", "fitted before files had terms", "its own", "no file"],
)
def test_the_kind_of_network_decides_nothing(weights: Weights | None, width: float, licence: str) -> None:
    assert licence_of("hd2s", weights, width=width) == licence


def test_torchvisions_image_weights_are_known_by_their_digest() -> None:
    assert licence_of_start(_file("b0353104" + "0" * 56)) == TORCHVISION
    assert licence_of_start(_file()).startswith(NONE_STATED)
    assert licence_of_start(_file("b0353104" + "0" * 56, licence="MIT")) == "MIT"


@given(TERMS, TERMS)
def test_combined_terms_name_each_source_once_in_any_grouping(some: list[str], others: list[str]) -> None:
    together = combined([*some, *others])
    assert combined([combined(some), combined(others)]) == together
    assert sorted(together.split(" + ")) == sorted({*some, *others})


@pytest.mark.parametrize(
    ("terms", "forbids"),
    [
        (PUBLISHED["hd2s"], True),
        (PUBLISHED["tinyhd"], False),
        (TORCHVISION, False),
        ("CC BY-NC-SA 4.0", True),
        ("MIT + CC BY-NC 4.0", True),
        ("for non-commercial use", True),
        ("Noncommercial research", True),
        ("not for commercial use", True),
        ("research purposes only", True),
        ("Apache-2.0", False),
        ("CC BY 4.0 (NCSA lab)", False),
        ("commercial use allowed", False),
        (NONE_STATED, False),
    ],
)
def test_terms_that_forbid_commercial_use_are_known_by_their_words(terms: str, forbids: bool) -> None:
    assert forbids_commerce(terms) is forbids
