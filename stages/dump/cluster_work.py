"""What a Dask worker does: one shard of a dump, with a teacher that it loads once and keeps.

A task may run twice, or begin anew after a death (distributed #847, #8182): it claims its shard, looks whether that
is sealed, and only then makes it. Windows run one thread each (overlap.py), so bytes do not depend on how many cores
are a worker's share.
"""

import threading
import time
import uuid
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from distributed import Worker, get_worker

from tinyhd_pipe.stages.dump.map_source import LiveMaps, MapSource
from tinyhd_pipe.stages.dump.shard_work import make_shard
from tinyhd_pipe.stages.networks.device import device_of
from tinyhd_pipe.stages.networks.network import Network, Precision, Size, Unshown, load_teacher
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import ClusterError, StoreError
from tinyhd_pipe.store.plan import ShardTask
from tinyhd_pipe.store.writer import StoreWriter, read_description

SECONDS_BETWEEN_REPORTS = 0.5
_loading = threading.Lock()


class Sent(Hashable, Protocol):
    """Where a worker takes maps from, in a form that can be sent to it and compared."""

    @property
    def files(self) -> tuple[str, ...]:
        """Paths that every worker must see, beside the videos."""

    def source(self, device: str | None = None) -> MapSource:
        """Ready to work, on this device where one is given and matters."""


@dataclass(frozen=True)
class TeacherFile:
    """Everything that a worker must know to load the client's teacher; arguments as in `load_teacher`."""

    kind: str
    weights: str
    """Path of the file, the same on every worker."""
    size: Size
    precision: Precision
    """As the client decided: never `auto`, which two machines may answer differently."""
    batch: int
    device: str = "cpu"
    unshown: Unshown | None = None

    @staticmethod
    def of(teacher: Network, weights: str | Path, *, unshown: Unshown | None = None) -> "TeacherFile":
        """The file that this network was loaded from, with what was decided since."""
        return TeacherFile(
            kind=teacher.kind,
            weights=str(Path(weights).absolute()),
            size=teacher.scaling.size,
            precision=teacher.precision,
            batch=teacher.batch,
            device=str(teacher.device),
            unshown=unshown,
        )

    @property
    def files(self) -> tuple[str, ...]:
        return ()  # a missing one is told by loading it

    def source(self, device: str | None = None) -> MapSource:
        return LiveMaps(replace(self, device=device or self.device).load())

    def load(self) -> Network:
        """Raises WeightsError where the file is not what it should be."""
        return load_teacher(
            self.kind,
            weights=self.weights,
            size=self.size,
            precision=self.precision,
            batch=self.batch,
            device=self.device,
            unshown=self.unshown,
        )


@dataclass(frozen=True)
class Order:
    """What all tasks of one dump have in common."""

    writer: StoreWriter
    teacher: Sent
    threads: int | None
    """Windows that a worker runs side by side, its share of the cores; None: as many as its own torch would use."""
    topic: str
    """Where progress is told."""
    spread: bool
    """Worker i takes CUDA device i modulo their number; otherwise the device is the one that each worker sees."""


def make_shard_once(order: Order, task: ShardTask, sources: Mapping[str, VideoSource]) -> tuple[int, int]:
    """Make one shard unless it is there; returns how many maps of each level its new videos have, and its bytes.

    Raises ClusterError where this worker sees other files than the client, WeightsError and StoreError as they come.
    """
    worker = get_worker()
    if order.threads is not None:
        torch.set_num_threads(order.threads)
    _refuse_other_files(order, sources, worker)
    with order.writer.claim(task):
        if not order.writer.is_sealed(task):
            _make(order, task, sources, worker)
    return order.writer.made(task)


def _make(order: Order, task: ShardTask, sources: Mapping[str, VideoSource], worker: Worker) -> None:
    teacher = _teacher(order, worker)
    try:
        make_shard(order.writer, task, sources, teacher, made=_Reporter(order, task, worker).made)
    except (StoreError, OSError):
        if not order.writer.is_sealed(task):  # else another worker was faster, where there are no claims
            raise


def _refuse_other_files(order: Order, sources: Mapping[str, VideoSource], worker: Worker) -> None:
    """A worker without our disk would list every video as missing, and write a store of its own."""
    where = f"worker at {worker.address}"
    here = (source.path for source in sources.values() if not source.remote)
    for path in (*here, *map(Path, order.teacher.files)):
        if not path.exists():
            raise ClusterError(f"{path}: not seen by the {where}: give all workers the same files")
    there = read_description(order.writer.url)
    if there is None:
        raise ClusterError(f"{order.writer.url}: no store seen by the {where}: use a shared disk or an object store")
    there.refuse_other(order.writer.description, order.writer.url)


def _teacher(order: Order, worker: Worker) -> MapSource:
    """This process's teacher, which must be the one that the store describes."""
    sent, device = order.teacher, None
    if isinstance(sent, TeacherFile) and order.spread:
        device = device_of(sent.device, worker.name, torch.cuda.device_count())
    with _loading:
        teacher = _loaded(sent, device)
    order.writer.description.refuse_other(replace(order.writer.description, teacher=teacher.identity), order.writer.url)
    return teacher


@lru_cache(maxsize=1)
def _loaded(sent: Sent, device: str | None) -> MapSource:
    return sent.source(device)


@dataclass
class _Reporter:
    """Tells the client now and then what this attempt has made, and stops an attempt that nobody waits for."""

    order: Order
    task: ShardTask
    worker: Worker
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)
    frames: int = 0
    videos: int = 0
    written: int = 0
    told: float = 0.0

    def made(self, frames: int, videos: int, written: int) -> None:
        self.frames += frames
        self.videos += videos
        self.written += written
        now = time.monotonic()
        if now - self.told < SECONDS_BETWEEN_REPORTS:
            return
        self.told = now
        state = self.worker.state.tasks.get(self.worker.get_current_task())
        if state is None or state.state == "cancelled":
            raise ClusterError(f"shard {self.task.number}: stopped, its dump was")
        self.worker.log_event(
            self.order.topic, [self.task.number, self.attempt, self.frames, self.videos, self.written]
        )
