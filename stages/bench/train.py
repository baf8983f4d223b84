"""What training from a store is worth on this machine: the published way and ours, on the same samples and weights.

The published way has the teacher in the loop, one window for each target frame; student and teacher run in float32,
contiguous in memory, through torch's own layers and gradients. Ours is the training loop's own loader, layers and
store, in the recipe's precision. Losses are compared first, by the oracle (training/oracle.py): against each other's
maps, and through each other's layers. The decision that is not obvious: nothing decoded is kept in memory, by either
way, since nobody's data set fits there. Both ways take their steps in turn, so a machine that is busy for a while is
unfair to neither.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.networks.layers.kernels import kernels, layers_of_torch
from tinyhd_pipe.stages.networks.network import Network, as_published, scaling_for
from tinyhd_pipe.stages.networks.precision import keep_float32
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.stages.student_train import (
    compare_both_ways,
    first_student,
    parameter_groups,
    sampling_of,
    stored_videos,
    terms_of,
)
from tinyhd_pipe.stages.training.checkpoint import Stand
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, FrameReader, collate
from tinyhd_pipe.stages.training.execution import laid_out, trained
from tinyhd_pipe.stages.training.live_targets import LiveTargets
from tinyhd_pipe.stages.training.loading import parts
from tinyhd_pipe.stages.training.optimisation import optimiser_of
from tinyhd_pipe.stages.training.processes import ALONE
from tinyhd_pipe.stages.training.targets import Targets, TeacherMaps
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import TinyHDError

LAYERS_TOLERANCE = 1e-3
"""Largest share of a loss term by which it may differ between torch's layers and ours."""
MIXED_TOLERANCE = 0.05
"""The same where ours compute in bfloat16."""
PUBLISHED = "published: teacher in the loop, contiguous, torch's layers"
STEPS = 4
"""Of ours for each published one, which takes many times as long."""


@dataclass(frozen=True)
class TrainWay:
    """One way to train, in medians over its steps."""

    name: str
    samples_a_second: float
    spread: float
    """(slowest - fastest) / median of its steps."""
    ratio: float
    """How many times as fast as the published way."""
    parts: Mapping[str, float]
    """Seconds of a step that each part takes; of ours, `decode` and `read` run in threads beside the others."""
    peak_bytes: int | None
    """Memory at most of a process that trains this way and does nothing else, the GPU's where it trains on one; None
    where the system does not tell."""


@dataclass(frozen=True)
class TrainBenchmark:
    """A comparison, and what it was made on."""

    ways: tuple[TrainWay, ...]
    losses: Mapping[str, tuple[float, float, float]]
    """Of each term: online, offline, and the most by which the store's fidelity lets them differ, nats."""
    layers_difference: float
    """Largest relative difference of a term between torch's layers and ours."""
    kernels: str
    machine: Mapping[str, str]


@dataclass(frozen=True)
class Compared:
    """What both ways train on."""

    teacher: Network
    """The network that the store's maps are of."""
    stored: Targets
    sources: Sequence[VideoSource]

    @property
    def device(self) -> str:
        """The teacher's, on which students train, too."""
        return str(self.teacher.device)

    def live(self) -> LiveTargets:
        """The published way to the same maps: a window at a time."""
        return LiveTargets.instead_of(self.stored, replace(as_published(self.teacher), batch=1), self.sources)


def bench_train(
    compared: Compared,
    recipe: StudentRecipe,
    *,
    rounds: int = 3,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> TrainBenchmark:
    """Time a step of both ways: decoding, targets, forward, loss, backward, optimiser, and waiting for data.

    Raises TinyHDError where losses do not agree: then no time is worth a look. DataError where the store holds none of
    the videos.
    """
    keep_float32(compared.device)
    losses = _agreed_losses(compared, recipe)
    published, ours = (_Way(compared, recipe, is_published=is_published) for is_published in (True, False))
    difference = _agreed_layers(published, ours)
    peaks = [_peak_of(compared, recipe, is_published) for is_published in (True, False)]
    report(1, rounds + 1)
    with published.loaded() as there, ours.loaded() as here:
        published.step(there)
        ours.step(here)
        for way in (published, ours):  # its first step finds nothing ready, which is no way's own
            way.forget()
        for done in range(rounds):
            published.step(there)
            for _ in range(STEPS):
                ours.step(here)
            report(done + 2, rounds + 1)
    base = published.way(peaks[0], None)
    return TrainBenchmark(
        ways=(base, ours.way(peaks[1], base)),
        losses=losses,
        layers_difference=difference,
        kernels=kernels().told,
        machine=machine(compared.device),
    )


@dataclass
class _Timed:
    """Something with a `read` whose time is kept."""

    of: Any
    seconds: list[float] = field(default_factory=list)

    def read(self, *arguments: Any, **named: Any) -> Any:
        started = time.perf_counter()
        answer = self.of.read(*arguments, **named)
        self.seconds.append(time.perf_counter() - started)
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.of, name)


class _Way:
    """A student in training, its samples, and how long everything took."""

    def __init__(self, compared: Compared, recipe: StudentRecipe, *, is_published: bool) -> None:
        self.is_published, self.recipe, self.device = is_published, recipe, torch.device(compared.device)
        student, _ = first_student(recipe)
        way = _as_published(recipe) if is_published else recipe
        self.is_mixed = way.mixed_precision
        self.network = trained(laid_out(student.to(self.device).train(), way), way)
        self.optimiser = optimiser_of(parameter_groups(student, encoder_rate=recipe.encoder_rate), way)
        self.terms = terms_of(recipe)
        self.targets = _Timed(compared.live() if is_published else compared.stored)
        self.frames = _Timed(FrameReader(kept_bytes=0))
        self.dataset = ClipDataset(
            stored_videos(compared.stored, compared.sources, []),
            scaling=scaling_for("tinyhd", recipe.size, "cpu" if is_published else self.device),
            sampling=sampling_of(recipe),
            targets=cast(TeacherMaps, self.targets),
        )
        self.dataset.frames = cast(FrameReader, self.frames)
        self.seconds: dict[str, list[float]] = {}

    def forget(self) -> None:
        """Begin to measure."""
        self.seconds.clear()
        self.frames.seconds.clear()
        self.targets.seconds.clear()

    def batch(self) -> Batch:
        """The first one of a run."""
        keys = self.dataset.epoch_keys(0, self.recipe.batch)[: self.recipe.batch]
        return collate([self.dataset[key] for key in keys]).to(self.device)

    def layers(self) -> AbstractContextManager[None]:
        """Within, layers are this way's."""
        return layers_of_torch() if self.is_published else nullcontext()

    def answer(self, batch: Batch) -> Mapping[str, Tensor]:
        """The student's logits, float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_mixed):
            logits = self.network(batch.clip)
        return {level: maps.float() for level, maps in logits.items()}

    def losses(self, batch: Batch) -> Mapping[str, Tensor]:
        """Every term of the loss."""
        with self.layers():
            return self.terms(self.answer(batch), batch)

    @contextmanager
    def loaded(self) -> Iterator[Iterator[Batch]]:
        """Endless batches: published, loaded where they are needed; ours, ahead in threads."""
        batches = self._loaded_here() if self.is_published else self._loaded_ahead()
        with closing(batches):
            yield batches

    def _loaded_here(self) -> Generator[Batch, None, None]:
        for epoch in range(2**31):
            keys = self.dataset.epoch_keys(epoch, self.recipe.batch)
            for start in range(0, len(keys) - self.recipe.batch + 1, self.recipe.batch):
                yield collate([self.dataset[key] for key in keys[start : start + self.recipe.batch]])

    def _loaded_ahead(self) -> Generator[Batch, None, None]:
        recipe = replace(self.recipe, accumulate=1, clips_per_video=64 * self.recipe.batch)
        for epoch in range(2**31):
            for part in parts(self.dataset, recipe, ALONE, Stand(epoch=epoch), device=str(self.device)):
                yield from part.batches

    def step(self, batches: Iterator[Batch]) -> None:
        with self.layers():
            clock = _Clock(self.seconds, self.device)
            batch = next(batches)
            clock.tick("wait")
            batch = batch.to(self.device)
            if self.device.type != "cpu":
                clock.tick("copy")
            self.optimiser.zero_grad(set_to_none=True)
            logits = self.answer(batch)
            clock.tick("forward")
            loss = torch.stack(list(self.terms(logits, batch).values())).sum()
            clock.tick("loss")
            torch.autograd.backward(loss)
            clock.tick("backward")
            self.optimiser.step()
            clock.tick("step")
            clock.end()

    def way(self, peak_bytes: int | None, base: TrainWay | None) -> TrainWay:
        steps = self.seconds["whole"]
        median = float(np.median(steps))
        parts = {name: float(np.median(seconds)) for name, seconds in self.seconds.items() if name != "whole"}
        loading = {"decode": self.frames.seconds, "teacher" if self.is_published else "read": self.targets.seconds}
        parts |= {name: self.recipe.batch * float(np.median(seconds)) for name, seconds in loading.items()}
        speed = self.recipe.batch / median
        return TrainWay(
            name=PUBLISHED if self.is_published else "ours: from the store",
            samples_a_second=speed,
            spread=(max(steps) - min(steps)) / median,
            ratio=1.0 if base is None else speed / base.samples_a_second,
            parts=parts,
            peak_bytes=peak_bytes,
        )


def _as_published(recipe: StudentRecipe) -> StudentRecipe:
    return replace(recipe, memory_format="contiguous", fused=False, compile=False, mixed_precision=False)


class _Clock:
    """Adds the time since the last tick to a part; a GPU is waited for, so that each part has its own."""

    def __init__(self, seconds: dict[str, list[float]], device: torch.device) -> None:
        self.seconds, self.device, self.started = seconds, device, time.perf_counter()
        self.last = self.started

    def tick(self, part: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds.setdefault(part, []).append(now - self.last)
        self.last = now

    def end(self) -> None:
        self.seconds.setdefault("whole", []).append(self.last - self.started)


def _agreed_losses(compared: Compared, recipe: StudentRecipe) -> dict[str, tuple[float, float, float]]:
    """Of each term: online, offline, and the bound. Raises TinyHDError where they differ by more."""
    samples = max(2, recipe.batch)
    found = compare_both_ways(
        compared.live(), compared.stored, compared.sources, [], recipe, samples=samples, device=compared.device
    )
    for name, term in found.terms.items():
        if not term.kept:
            raise TinyHDError(
                f"{name}: {term.online:.6f} nats online and {term.offline:.6f} offline, KL of the maps {term.kl:.1e}: "
                "the store's maps are not this teacher's; give the weights that it was dumped with"
            )
    return {name: (term.online, term.offline, term.bound) for name, term in found.terms.items()}


def _agreed_layers(published: _Way, ours: _Way) -> float:
    """Largest relative difference of a loss term between both ways. Raises TinyHDError above the tolerance."""
    batch = ours.batch()
    there, here = published.losses(batch), ours.losses(batch)
    difference = max(abs(here[name].item() / there[name].item() - 1) for name in there)
    tolerance = MIXED_TOLERANCE if ours.is_mixed else LAYERS_TOLERANCE
    if difference > tolerance:
        raise TinyHDError(f"losses through our layers differ by {difference:.1e}, expected {tolerance:g} at most")
    return difference


def _peak_of(compared: Compared, recipe: StudentRecipe, is_published: bool) -> int | None:
    """Most memory of a process of its own that takes two steps."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, compared, recipe, is_published).result()


def _peak_here(compared: Compared, recipe: StudentRecipe, is_published: bool) -> int | None:
    way = _Way(compared, recipe, is_published=is_published)
    with way.loaded() as batches:
        for _ in range(2):
            way.step(batches)
    if way.device.type == "cuda":
        return torch.cuda.max_memory_allocated(way.device)
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
