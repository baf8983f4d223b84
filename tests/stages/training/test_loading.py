"""Batches are put together by the threads that load their samples, of which there are as many as a device can use."""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import pytest
import torch

from tests.stages.training.test_gpu import _batch
from tinyhd_pipe.stages.settings.training import Recipe
from tinyhd_pipe.stages.training import loading
from tinyhd_pipe.stages.training.checkpoint import Stand
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Key
from tinyhd_pipe.stages.training.loading import parts, threads_for
from tinyhd_pipe.stages.training.processes import ALONE
from tinyhd_pipe.store.errors import DataError


class _Samples:
    """Samples that say which they are; of some, the maps are missing."""

    def __init__(self, count: int, without_maps: Sequence[int] = ()) -> None:
        self.count, self.without_maps = count, without_maps

    def epoch_keys(self, epoch: int, clips_per_video: int) -> list[Key]:
        return [(epoch, index) for index in range(self.count)]

    def __getitem__(self, key: Key) -> Batch:
        sample = replace(_batch(1), clip=torch.full((1, 3, 16, 8, 8), float(key[1])))
        return replace(sample, maps={}) if key[1] in self.without_maps else sample


def _loaded(samples: _Samples) -> list[Batch]:
    coming = parts(cast(ClipDataset, samples), Recipe(batch=4), ALONE, Stand(), device="cpu")
    return [batch for part in coming for batch in part.batches]


@pytest.mark.parametrize("threads", [1, 7])
def test_every_sample_has_its_place_however_many_threads_load(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "threads_for", lambda device: threads)
    batches = _loaded(_Samples(26))
    assert [len(batch.clip) for batch in batches] == [4] * 6 + [2]
    assert torch.cat([batch.clip for batch in batches])[:, 0, 0, 0, 0].tolist() == list(range(26))
    assert all(batch.clip.is_contiguous(memory_format=torch.channels_last_3d) for batch in batches)


def test_a_batch_of_samples_with_and_without_maps_is_refused() -> None:
    with pytest.raises(DataError, match="mixes videos with and without teacher maps"):
        _loaded(_Samples(8, without_maps=[5]))


@pytest.mark.parametrize(
    ("device", "cores", "processes", "threads"),
    [("cpu", 16, 1, 2), ("cuda", 16, 1, 15), ("cuda:1", 16, 4, 3), ("cuda", 2, 1, 2), ("cuda", 128, 1, 16)],
)
def test_a_gpu_has_a_thread_for_each_core_of_its_process_and_a_processor_keeps_its_cores(
    device: str, cores: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert threads_for(device) == threads
