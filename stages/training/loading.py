"""The batches of an epoch, step by step, loaded ahead in threads.

Decoding, decompression and resizing all release the interpreter's lock, so threads are enough: two of them where the
processor trains as well, one for each core beside a GPU. The decision that is not obvious: whoever has loaded a sample
writes it to its place in the batch, in pinned memory for a GPU. Put together by one thread, batches of 16 came at most
70 samples a second, however many threads loaded them. Cost: three batches in memory beside the one at work, more where
they are smaller than the threads are many.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from threading import Lock

import torch

from tinyhd_pipe.stages.networks.device import make_current
from tinyhd_pipe.stages.settings.training import Recipe
from tinyhd_pipe.stages.training.checkpoint import Stand
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Key
from tinyhd_pipe.stages.training.processes import Processes

AHEAD = 3
"""Batches that are asked for before they are needed, at least."""
BESIDE_A_GPU = 16
"""Threads at most that load for one GPU."""


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
    threads = threads_for(device)
    depth = max(AHEAD, -(-2 * threads // recipe.batch))
    ahead: deque[_Coming] = deque()
    with ThreadPoolExecutor(threads, initializer=_begin, initargs=(device,)) as loaders:

        def load() -> Batch:
            for group in islice(groups, depth - len(ahead)):
                ahead.append(_Coming(dataset, group, loaders, is_pinned=device.startswith("cuda")))
            return ahead.popleft().batch()

        for step, share in zip(steps, shares, strict=True):
            yield Part([load() for _ in share], samples=len(step))


def threads_for(device: str) -> int:
    """Threads that load: two where the cores train as well, else one for each core of this process's share."""
    if not device.startswith("cuda"):
        return 2
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(BESIDE_A_GPU, there // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1))  # torchrun's


def _begin(device: str) -> None:
    """A thread that computes alone, since with torch's own threads it would fight for the cores with the one that
    trains; and whose memory is pinned for the device that trains."""
    torch.set_num_threads(1)
    make_current(device)


class _Coming:
    """A batch, each of whose samples is put into its place by the thread that loads it."""

    def __init__(
        self, dataset: ClipDataset, keys: Sequence[Key], loaders: ThreadPoolExecutor, *, is_pinned: bool
    ) -> None:
        self._dataset, self._size, self._is_pinned = dataset, len(keys), is_pinned
        self._room: Batch | None = None
        self._lock = Lock()
        self._loading: list[Future[None]] = [loaders.submit(self._load, *each) for each in enumerate(keys)]

    def batch(self) -> Batch:
        """Waits for all samples, and raises what one of them has met with."""
        for each in self._loading:
            each.result()
        assert self._room is not None
        return self._room

    def _load(self, place: int, key: Key) -> None:
        sample = self._dataset[key]
        with self._lock:
            if self._room is None:
                self._room = sample.room(self._size, is_pinned=self._is_pinned)
        self._room.put(place, sample)


def _groups(keys: Sequence[Key], size: int) -> list[Sequence[Key]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]
