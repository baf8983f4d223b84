"""Training on a GPU: in float32 it is that of the processor, and in bfloat16 only the network is."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.stages.training.test_resuming import SHORT
from tests.stages.training.test_training import _train
from tinyhd_pipe.stages import student_train as student
from tinyhd_pipe.stages.settings.training import Recipe
from tinyhd_pipe.stages.training import fitting
from tinyhd_pipe.stages.training.checkpoint import Held, Stand
from tinyhd_pipe.stages.training.dataset import Batch
from tinyhd_pipe.stages.training.execution import trained
from tinyhd_pipe.stages.training.loading import Part
from tinyhd_pipe.stages.training.record import Recording, RunRecord
from tinyhd_pipe.stages.training.tensorboard import Log
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import Store

ONE_STEP = replace(SHORT, epochs=1, batch=8, clips_per_video=4)
"""The first loss is that of the first weights, and of nothing that rounding has led astray."""


def _batch(samples: int) -> Batch:
    return Batch(
        clip=torch.randn(samples, 3, 16, 8, 8, generator=torch.Generator().manual_seed(samples)),
        maps={"final": torch.rand(samples, 1, 8, 8)},
        density=torch.zeros(samples, 1, 8, 8),
        labelled=torch.zeros(samples, dtype=torch.bool),
        outputs=torch.tensor([0]),
    )


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 1, 1)

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        return {"final": self.conv(clip)[:, 0, -1]}


def test_in_mixed_precision_only_the_network_computes_in_bfloat16(tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []
    module = _Network()
    module.conv.register_forward_hook(lambda _, inputs, output: seen.append(("network", output.dtype)))

    def terms(logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        seen.append(("loss", logits["final"].dtype, torch.is_autocast_enabled("cpu")))
        return student._terms(logits, batch, conspicuity_weight=1.0)

    recipe = Recipe(mixed_precision=True)
    objective: Any = type("Objective", (), {"loss_terms": staticmethod(terms)})
    held = Held(module, None, torch.optim.SGD(module.parameters(), lr=0.1))
    network = trained(module, recipe)
    run, recording = fitting.Run(tmp_path), Recording(RunRecord(), 0.0)
    work = fitting._Work(objective, recipe, run, held, network, Stand(), Log(None, 0), 1, recording)
    fitting._gradients(work, Part([_batch(2), _batch(1)], samples=3))
    assert seen == [("network", torch.bfloat16), ("loss", torch.float32, False)] * 2
    assert module.conv.weight.grad is not None
    assert module.conv.weight.grad.dtype == torch.float32


@pytest.mark.cuda
def test_samples_are_put_together_in_pinned_memory_with_their_channels_last() -> None:
    batch = _batch(1).room(2, is_pinned=True)
    for place in range(2):
        batch.put(place, _batch(1))
    assert batch.clip.is_pinned()
    assert batch.maps["final"].is_pinned()
    there = batch.to(torch.device("cuda"))
    assert there.clip.is_contiguous(memory_format=torch.channels_last_3d)
    assert torch.equal(there.clip.cpu(), torch.cat([_batch(1).clip] * 2))


@pytest.mark.cuda
@pytest.mark.parametrize(("mixed", "tolerance"), [(False, 1e-3), (True, 0.05)])
def test_a_gpu_finds_the_losses_that_the_processor_finds(
    store: Store, sources: list[VideoSource], tmp_path: Path, mixed: bool, tolerance: float
) -> None:
    (right,) = _train(store, sources, tmp_path / "processor", ONE_STEP).history
    recipe = replace(ONE_STEP, mixed_precision=mixed)
    (there,) = _train(store, sources, tmp_path / "gpu", recipe, device="cuda").history
    assert there.loss == pytest.approx(right.loss, rel=tolerance)


@pytest.mark.cuda
def test_a_gpu_goes_on_with_what_a_processor_began(store: Store, sources: list[VideoSource], tmp_path: Path) -> None:
    class _Stopped(Exception):  # noqa: N818
        pass

    def stop(_: object) -> None:
        raise _Stopped

    with pytest.raises(_Stopped):
        _train(store, sources, tmp_path, SHORT, epoch_done=stop)
    fitted = _train(store, sources, tmp_path, SHORT, resume=True, device="cuda")
    assert [epoch.epoch for epoch in fitted.history] == [0, 1]
