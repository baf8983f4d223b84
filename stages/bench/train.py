"""What training from a store is worth on this machine: the published way and ours, on the same samples and weights.

The published way has the teacher in the loop, one window for each target frame; student and teacher run in float32,
contiguous in memory, through torch's own layers and gradients. Ours is the training loop's own loader, layers and
store. Losses are compared first, by the oracle (training/oracle.py): against each other's maps, and through each
other's layers. The decision that is not obvious: nothing decoded is kept in memory, by either way, since nobody's data
set fits there. Both ways take their steps in turn, so a machine that is busy for a while is unfair to neither.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from tinyhd_pipe.stages.bench.machine import machine
from tinyhd_pipe.stages.networks.layers.kernels import kernels, layers_of_torch
from tinyhd_pipe.stages.networks.layers.layout import channels_last
from tinyhd_pipe.stages.networks.network import Network, as_published, scaling_for
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.stages.training.checkpoint import Stand
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, FrameReader, Sampling, TrainingVideo, collate
from tinyhd_pipe.stages.training.live_targets import LiveTargets
from tinyhd_pipe.stages.training.loading import parts
from tinyhd_pipe.stages.training.losses import answered_frames, distillation_loss
from tinyhd_pipe.stages.training.optimisation import optimiser_of
from tinyhd_pipe.stages.training.oracle import agreement
from tinyhd_pipe.stages.training.processes import Processes
from tinyhd_pipe.stages.training.targets import Targets, usable_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError, TinyHDError

LAYERS_TOLERANCE = 1e-3
"""Largest share of a loss term by which it may differ between torch's layers and ours."""
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
    """Memory of the process at most; None where the system does not tell."""


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
    videos = _videos(compared)
    published = _Way(compared, recipe, videos, is_published=True)
    ours = _Way(compared, recipe, videos, is_published=False)
    losses, difference = _agreed(published, ours, compared.stored.budget)
    report(1, rounds + 1)
    with published.loaded() as there, ours.loaded() as here:
        for done in range(rounds):
            published.step(there)
            for _ in range(STEPS):
                ours.step(here)
            report(done + 2, rounds + 1)
    base = published.way(None)
    return TrainBenchmark(
        ways=(base, ours.way(base)),
        losses=losses,
        layers_difference=difference,
        kernels=kernels().told,
        machine=machine("cpu"),
    )


def _videos(compared: Compared) -> list[TrainingVideo]:
    held = set(compared.stored.videos)
    rows = [(source, compared.stored.video(source.id)) for source in compared.sources if source.id in held]
    videos = [TrainingVideo(source, row.frames, stored_as=source.id, usable=usable_frames(row)) for source, row in rows]
    if not videos:
        raise DataError(f"{compared.stored.urls}: holds none of the {len(compared.sources)} videos given")
    return videos


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

    def __init__(
        self, compared: Compared, recipe: StudentRecipe, videos: Sequence[TrainingVideo], *, is_published: bool
    ) -> None:
        self.is_published, self.recipe = is_published, recipe
        topology = {name: getattr(recipe, name) for name in ("decoders", "reduction", "outputs", "d1_outputs")}
        student = TinyHD(**topology, seed=recipe.seed).train()
        self.module = student if is_published else channels_last(student)
        self.optimiser = optimiser_of([{"params": list(student.parameters())}], recipe)
        teacher = replace(as_published(compared.teacher), batch=1)  # a window at a time
        live = LiveTargets.instead_of(compared.stored, teacher, compared.sources)
        self.targets, self.frames = _Timed(live if is_published else compared.stored), _Timed(FrameReader(kept_bytes=0))
        self.dataset = ClipDataset(
            videos,
            scaling=scaling_for("tinyhd", recipe.size),
            sampling=Sampling(outputs=recipe.outputs, seed=recipe.seed, target_lag=recipe.target_lag),
            targets=cast(Targets, self.targets),
        )
        self.dataset.frames = cast(FrameReader, self.frames)
        self.seconds: dict[str, list[float]] = {}
        self.peak: int | None = None

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
            for part in parts(self.dataset, recipe, Processes(), Stand(epoch=epoch), device="cpu"):
                yield from part.batches

    def step(self, batches: Iterator[Batch]) -> None:
        _forget_peak()
        with layers_of_torch() if self.is_published else nullcontext():
            clock = _Clock(self.seconds)
            batch = next(batches)
            clock.tick("wait")
            self.optimiser.zero_grad(set_to_none=True)
            logits = self.module(batch.clip.contiguous() if self.is_published else batch.clip)
            clock.tick("forward")
            loss = torch.stack(list(_terms(logits, batch).values())).sum()
            clock.tick("loss")
            torch.autograd.backward(loss)
            clock.tick("backward")
            self.optimiser.step()
            clock.tick("step")
            clock.end()
        self.peak = max(self.peak or 0, _peak() or 0) or None

    def way(self, base: TrainWay | None) -> TrainWay:
        steps = self.seconds["whole"]
        median = float(np.median(steps))
        parts = {name: float(np.median(seconds)) for name, seconds in self.seconds.items() if name != "whole"}
        loading = {"decode": self.frames.seconds, "teacher" if self.is_published else "read": self.targets.seconds}
        parts |= {name: self.recipe.batch * float(np.median(seconds)) for name, seconds in loading.items()}
        speed = self.recipe.batch / median
        return TrainWay(
            name="published: teacher in the loop, contiguous, torch's layers"
            if base is None
            else "ours: from the store",
            samples_a_second=speed,
            spread=(max(steps) - min(steps)) / median,
            ratio=1.0 if base is None else speed / base.samples_a_second,
            parts=parts,
            peak_bytes=self.peak,
        )


class _Clock:
    """Adds the time since the last tick to a part."""

    def __init__(self, seconds: dict[str, list[float]]) -> None:
        self.seconds, self.started = seconds, time.perf_counter()
        self.last = self.started

    def tick(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds.setdefault(part, []).append(now - self.last)
        self.last = now

    def end(self) -> None:
        self.seconds.setdefault("whole", []).append(self.last - self.started)


def _terms(logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    return distillation_loss(answered_frames(logits, batch.outputs), batch.maps, batch.density, batch.labelled)


def _agreed(published: _Way, ours: _Way, budget: float) -> tuple[dict[str, tuple[float, float, float]], float]:
    """Losses of both ways on one batch; raises TinyHDError where they do not agree."""
    keys = ours.dataset.epoch_keys(0, ours.recipe.batch)[: ours.recipe.batch]
    live, stored = (collate([way.dataset[key] for key in keys]) for way in (published, ours))
    found = agreement(ours.module, [(live, stored)], budget=budget)
    for name, term in found.terms.items():
        if not term.kept:
            raise TinyHDError(
                f"{name}: {term.online:.6f} nats online and {term.offline:.6f} offline, KL of the maps {term.kl:.1e}: "
                "the store's maps are not this teacher's; give the weights that it was dumped with"
            )
    here = _terms(ours.module(stored.clip), stored)
    with layers_of_torch():
        there = _terms(published.module(stored.clip.contiguous()), stored)
    difference = max(abs(here[name].item() / there[name].item() - 1) for name in there)
    if difference > LAYERS_TOLERANCE:
        raise TinyHDError(
            f"losses through our layers differ by {difference:.1e}, expected {LAYERS_TOLERANCE:g} at most"
        )
    for way in (published, ours):
        way.frames.seconds.clear()
        way.targets.seconds.clear()
    return {name: (term.online, term.offline, term.bound) for name, term in found.terms.items()}, difference


_STATUS = Path("/proc/self/status")


def _forget_peak() -> None:
    """Let Linux measure the most memory anew."""
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int | None:
    if not _STATUS.exists():
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
