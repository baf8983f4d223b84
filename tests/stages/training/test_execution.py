"""How training runs: layout, fused optimiser and compilation change rounding, and nothing that is learned."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.moving_dot import SIZE
from tinyhd_pipe.stages.networks.layers.depthwise import DepthwiseConv3d
from tinyhd_pipe.stages.networks.layers.layout import is_channels_last
from tinyhd_pipe.stages.settings.training import MemoryFormat, Optimiser, StudentRecipe
from tinyhd_pipe.stages.student_train import student_train
from tinyhd_pipe.stages.training.execution import laid_out, trained
from tinyhd_pipe.stages.training.fitting import Run
from tinyhd_pipe.stages.training.history import StepReport
from tinyhd_pipe.stages.training.optimisation import optimiser_of
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import Store

RECIPE = StudentRecipe(
    size=SIZE,
    epochs=1,
    clips_per_video=2,
    picture_every=None,
    decoders=("d1",),
    reduction=4,
    validation_clips=1,
    milestones=(),
)


def _losses(store: Store, sources: list[VideoSource], out: Path, recipe: StudentRecipe) -> list[dict[str, float]]:
    steps: list[StepReport] = []
    student_train(Targets.of([store]), sources, [], recipe, Run(out=out, step_done=steps.append))
    return [dict(step.loss) for step in steps[:STEPS]]


STEPS = 3
"""That are compared: later ones have made differences of the last bit larger, as training does."""


@pytest.fixture(scope="module")
def losses(
    store: Store, sources: list[VideoSource], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, float]]:
    return _losses(store, sources, tmp_path_factory.mktemp("ours"), RECIPE)


@pytest.mark.parametrize("other", [{"memory_format": "contiguous"}, {"fused": False}])
def test_neither_layout_nor_a_fused_optimiser_changes_what_is_learned(
    store: Store, sources: list[VideoSource], tmp_path: Path, losses: list[dict[str, float]], other: dict[str, Any]
) -> None:
    theirs = _losses(store, sources, tmp_path, replace(RECIPE, **other))
    for here, there in zip(losses, theirs, strict=True):
        assert here == pytest.approx(there, rel=1e-3)


def test_another_rate_is_seen_within_these_steps(
    store: Store, sources: list[VideoSource], tmp_path: Path, losses: list[dict[str, float]]
) -> None:
    other = _losses(store, sources, tmp_path, replace(RECIPE, learning_rate=0.015))
    assert other[-1] != pytest.approx(losses[-1], rel=1e-3)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("fused", [True, False])
def test_the_optimiser_is_fused_where_that_is_asked_for(optimiser: Optimiser, fused: bool) -> None:
    weight = nn.Parameter(torch.zeros(3))
    made = optimiser_of([{"params": [weight]}], replace(RECIPE, optimiser=optimiser, fused=fused))
    assert bool(made.param_groups[0]["fused"]) is fused


class _Small(nn.Module):
    """A depthwise layer between two pointwise ones, with batch norm as the student has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv3d(3, 8, 1, bias=False),
            DepthwiseConv3d(8, (3, 3, 3), (1, 1, 1), (1, 1, 1)),
            nn.BatchNorm3d(8),
            nn.Conv3d(8, 1, 1),
        )

    def forward(self, clip: Tensor) -> Mapping[str, Tensor]:
        return {"final": self.layers(clip)[:, 0, -1]}


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
def test_weights_and_clips_lie_as_the_recipe_says(memory_format: MemoryFormat) -> None:
    recipe = replace(RECIPE, memory_format=memory_format)
    module = laid_out(_Small(), recipe)
    seen: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    clip = torch.rand(2, 3, 4, 8, 8)
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        trained(module, recipe)(clip.contiguous(memory_format=layout))
    assert [is_channels_last(x) for x in seen] == [memory_format == "channels_last"] * 2


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # by the compiler itself
def test_a_compiled_network_has_the_gradients_of_the_plain_one() -> None:
    clip, found = torch.rand(2, 3, 4, 8, 8), []
    for compiled in (False, True):
        recipe = replace(RECIPE, compile=compiled)
        module = laid_out(_Small().train(), recipe)
        logits = trained(module, recipe)(clip)["final"]
        loss = logits.flatten(1).logsumexp(1).sum()
        torch.autograd.backward(loss)
        gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
        found.append(torch.cat([loss.detach().view(1), *(gradient.flatten() for gradient in gradients)]))
    plain, built = found
    assert torch.linalg.vector_norm(plain - built) < 1e-5 * torch.linalg.vector_norm(plain)
    assert torch.linalg.vector_norm(plain[1:]) > 0.1
