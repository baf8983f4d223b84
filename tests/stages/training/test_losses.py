"""The losses: what a divergence must be, and which terms a sample gives."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tinyhd_pipe.stages.networks.divergence import kl_divergence
from tinyhd_pipe.stages.networks.levels import CONSPICUITY, levels_of
from tinyhd_pipe.stages.training.losses import distillation_loss, teacher_loss

LEVELS = (*CONSPICUITY, "final")


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(hnp.arrays(np.float32, (2, 4, 5), elements=st.floats(-20, 20, width=32)))
def test_a_map_does_not_diverge_from_itself(logits: np.ndarray) -> None:
    values = torch.from_numpy(logits)
    assert abs(float(kl_divergence(values.sigmoid(), values))) < 1e-4


@given(
    hnp.arrays(np.float64, (3, 4), elements=st.floats(0.01, 1)),
    hnp.arrays(np.float64, (3, 4), elements=st.floats(-9, 9)),
    st.floats(0.1, 100),
)
def test_divergence_is_the_textbook_sum_and_knows_no_scale(
    target: np.ndarray, logits: np.ndarray, scale: float
) -> None:
    g = target / target.sum()
    p = 1 / (1 + np.exp(-logits))
    p /= p.sum()
    expected = float((g * np.log(g / p)).sum())
    measured = float(kl_divergence(torch.from_numpy(target * scale), torch.from_numpy(logits)))
    assert measured == pytest.approx(expected, abs=1e-9)
    assert measured > -1e-12


def test_zeros_in_the_truth_cost_nothing_and_give_a_finite_gradient() -> None:
    truth = torch.zeros(1, 4, 4)
    truth[0, 1, 2] = 1.0
    logits = torch.full((1, 4, 4), -80.0, requires_grad=True)
    loss = kl_divergence(truth, logits)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(np.log(16), rel=1e-5)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_teachers_loss_is_five_divergences_against_one_density_map() -> None:
    logits = {level: _random(2, 4, 4, seed=seed) for seed, level in enumerate(LEVELS)}
    density = torch.rand(2, 4, 4)
    expected = sum(float(kl_divergence(density, logits[level])) for level in LEVELS)
    assert float(teacher_loss(logits, density)) == pytest.approx(expected, rel=1e-5)


def test_an_unlabelled_sample_learns_from_the_teacher_alone() -> None:
    logits = {level: _random(2, 4, 4, seed=seed) for seed, level in enumerate(LEVELS)}
    maps = {level: torch.rand(2, 1, 4, 4) for level in LEVELS}
    density = torch.rand(2, 1, 4, 4)
    density[1] = 0  # the second sample has no truth: a divergence from it would be NaN
    both = distillation_loss(logits, maps, density, torch.tensor([True, False]))
    none = distillation_loss(logits, maps, density, torch.tensor([False, False]))
    assert set(none) == set(LEVELS)
    assert set(both) == {*LEVELS, "density"}
    alone = float(kl_divergence(density[:1, 0], logits["final"][:1]))
    assert float(both["density"]) == pytest.approx(alone / 2, rel=1e-5)


def test_one_map_for_many_frames_is_compared_with_the_mean_of_the_teachers() -> None:
    maps = {level: torch.rand(1, 16, 4, 4) for level in LEVELS}
    logits = {level: _random(1, 4, 4) for level in CONSPICUITY} | {"final": _random(1, 16, 4, 4)}
    terms = distillation_loss(logits, maps, torch.zeros(1, 16, 4, 4), torch.tensor([False]))
    mean = maps["conspicuity_3"].mean(dim=1)
    assert float(terms["conspicuity_3"]) == pytest.approx(float(kl_divergence(mean, logits["conspicuity_3"])))
    assert float(terms["final"]) == pytest.approx(float(kl_divergence(maps["final"], logits["final"])))


def test_sixteen_d1_maps_are_compared_with_the_teachers_map_of_their_own_frame() -> None:
    maps = {"conspicuity_2": torch.rand(1, 16, 4, 4)}
    logits = {"conspicuity_2": _random(1, 16, 4, 4), "final": _random(1, 16, 4, 4)}
    terms = distillation_loss(logits, maps, torch.zeros(1, 16, 4, 4), torch.tensor([False]))
    frames = [kl_divergence(maps["conspicuity_2"][:, t], logits["conspicuity_2"][:, t]) for t in range(16)]
    assert float(terms["conspicuity_2"]) == pytest.approx(float(torch.stack(frames).mean()), rel=1e-5)


def test_every_decoder_of_a_kind_answers_to_the_same_maps() -> None:
    names = [level for levels in levels_of(("d1", "d1", "d2", "d1")) for level in levels]
    maps = {level: torch.rand(2, 1, 4, 4) for level in LEVELS}
    logits = {level: _random(2, 4, 4, seed=seed) for seed, level in enumerate([*names, "final"])}
    terms = distillation_loss(logits, maps, torch.zeros(2, 1, 4, 4), torch.tensor([False, False]))
    assert set(terms) == set(logits) - {"d2"}, "the teacher has no map for D2"
    for level in CONSPICUITY:
        for own in (level, f"{level}-2", f"{level}-3"):
            assert float(terms[own]) == pytest.approx(float(kl_divergence(maps[level][:, 0], logits[own])))


@given(st.floats(0, 4))
def test_only_the_terms_of_d1_are_weighed_and_a_weight_of_nothing_leaves_none(weight: float) -> None:
    levels = (*CONSPICUITY, "conspicuity_2-2", "final")
    logits = {level: _random(2, 4, 4, seed=seed) for seed, level in enumerate(levels)}
    maps = {level: torch.rand(2, 1, 4, 4) for level in LEVELS}
    sample = (logits, maps, torch.rand(2, 1, 4, 4), torch.tensor([True, True]))
    plain, weighed = distillation_loss(*sample), distillation_loss(*sample, conspicuity_weight=weight)
    assert set(weighed) == ({*levels, "density"} if weight else {"final", "density"})
    for level, term in weighed.items():
        factor = weight if level.startswith("conspicuity") else 1
        assert float(term) == pytest.approx(factor * float(plain[level]), rel=1e-5, abs=1e-12)


def test_levels_that_teacher_or_student_lack_give_no_term() -> None:
    maps = {"final": torch.rand(1, 1, 4, 4)}
    logits = {"final": _random(1, 4, 4), "d2": _random(1, 4, 4)}
    assert set(distillation_loss(logits, maps, torch.zeros(1, 1, 4, 4), torch.tensor([False]))) == {"final"}
