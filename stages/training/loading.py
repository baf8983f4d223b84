"""The batches of an epoch, step by step, loaded ahead in threads.

Decoding, decompression and resizing all release the interpreter's lock, so threads are enough. The decision that is not
obvious: one thread more puts batches together, and pins them for a GPU, so that neither those that load nor the one
that trains stops for it. Cost: three batches in memory beside the one at work.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import torch

from tinyhd_pipe.stages.settings.training import Recipe
from tinyhd_pipe.stages.training.checkpoint import Stand
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Key, collate
from tinyhd_pipe.stages.training.processes import Processes

AHEAD = 3
"""Batches that are asked for before they are needed."""


@dataclass(frozen=True)
class Part:
    """What one process takes of a step."""

    batches: Sequence[Batch]
    samples: int
    """Of the whole step, over all processes."""


def keys_left(dataset: ClipDataset, recipe: Recipe, stand: Stand) -> list[Key]:
    """The samples of what is left of an epoch, for all processes."""
    return dataset.epoch_keys(stand.epoch, recipe.clips_per_video)[stand.step * recipe.batch * recipe.accumulate :]


def parts(dataset: ClipDataset, recipe: Recipe, processes: Processes, stand: Stand, *, device: str) -> Iterator[Part]:
    """This process's part of each step that is left of an epoch."""
    steps = _groups(keys_left(dataset, recipe, stand), recipe.batch * recipe.accumulate)
    shares = [processes.share_of(_groups(step, recipe.batch), recipe.accumulate) for step in steps]
    groups = (group for share in shares for group in share)
    is_pinned = torch.device(device).type == "cuda"
    ahead: deque[Future[Batch]] = deque()
    with _threads(2) as loaders, _threads(1) as packer:

        def load() -> Batch:
            for group in islice(groups, AHEAD - len(ahead)):
                samples = [loaders.submit(dataset.__getitem__, key) for key in group]
                ahead.append(packer.submit(_together, samples, is_pinned=is_pinned))
            return ahead.popleft().result()

        for step, share in zip(steps, shares, strict=True):
            yield Part([load() for _ in share], samples=len(step))


def _threads(count: int) -> ThreadPoolExecutor:
    """Threads that compute alone: with torch's own they would fight for the cores with the one that trains."""
    return ThreadPoolExecutor(max_workers=count, initializer=torch.set_num_threads, initargs=(1,))


def _together(samples: Sequence[Future[Batch]], *, is_pinned: bool) -> Batch:
    batch = collate([sample.result() for sample in samples])
    return batch.pinned() if is_pinned else batch


def _groups(keys: Sequence[Key], size: int) -> list[Sequence[Key]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]
