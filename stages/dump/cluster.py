"""The shards of a plan, made by the workers of a Dask cluster: ours on this machine, or an existing one.

One task for each shard; what happens inside a task is in cluster_work.py. The decision that is not obvious: everything
that comes back, finished tasks and progress alike, goes through one queue that the calling thread empties, so Ctrl-C
is met at once and `report` runs where the caller is. Cost: a process and a teacher for each worker.
"""

import logging
import queue
import signal
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import resource_tracker
from typing import Any

import dask
import torch
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.utils import silence_logging_cmgr

from tinyhd_pipe.stages.dump.cluster_work import Order, Sent, make_shard_once
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import ClusterError, SettingError
from tinyhd_pipe.store.plan import ShardTask
from tinyhd_pipe.store.storage import absolute
from tinyhd_pipe.store.writer import StoreWriter

SECONDS_TO_CONNECT, SECONDS_TO_A_WORKER = 10, 60
Made = tuple[int, int]
"""Maps and bytes of a finished shard."""
SILENT = logging.CRITICAL + 1
"""Dask's log of a worker's death would stand between the lines of ours."""
CONFIG = {
    "distributed.worker.multiprocessing-method": "spawn",
    "distributed.scheduler.worker-ttl": None,  # a teacher that computes for minutes is not dead
}


@dataclass(frozen=True)
class Cluster:
    """Who makes the shards."""

    teacher: Sent
    workers: int | None = None
    """Processes of this machine, started and ended with the dump."""
    scheduler: str | None = None
    """Address of an existing scheduler. Its workers must see the same videos, weights and store."""

    def __post_init__(self) -> None:
        if (self.workers is None) == (self.scheduler is None):
            raise SettingError(f"workers {self.workers}, scheduler {self.scheduler}: give exactly one of them")
        if self.workers is not None and self.workers < 1:
            raise SettingError(f"workers {self.workers}: expected 1 or more")


def make_shards(
    cluster: Cluster,
    writer: StoreWriter,
    tasks: Sequence[ShardTask],
    sources: Mapping[str, VideoSource],
    *,
    report: Callable[[int, int, int], None] = lambda frames, videos, written: None,
) -> None:
    """Make every shard of a plan; call it inside `StoreWriter.exclusive`.

    A worker that dies is replaced, and its shard made anew. What dead workers left is swept at the end; after an error
    of a cluster that is not ours, by the next run.

    Arguments:
        sources: id -> video, for every member that has to be made.
        report: told (maps, videos, bytes) that are made, or being made, by workers that are alive: less after a death.

    Raises ClusterError where there is no scheduler or no worker, or a shard's worker dies again and again; a user's
    error in a worker as it was raised there.
    """
    if not tasks:
        return
    if writer.url.startswith("memory://"):
        raise SettingError(
            f"{writer.url}: lives in one process, workers cannot see it: use a folder or an object store"
        )
    arrivals: queue.SimpleQueue[Any] = queue.SimpleQueue()
    order = Order(
        writer=replace(writer, url=absolute(writer.url)),
        teacher=cluster.teacher,
        threads=max(1, torch.get_num_threads() // cluster.workers) if cluster.workers else None,
        topic=f"tinyhd-{uuid.uuid4().hex}",
        spread=cluster.workers is not None,
    )
    all_at_rest = cluster.workers is not None  # our workers end with the client; others may write for a moment yet
    try:
        with _client(cluster) as client:
            client.subscribe_topic(order.topic, arrivals.put)
            futures = {_submit(client, order, task, sources): task for task in tasks}
            try:
                for future in futures:
                    future.add_done_callback(arrivals.put)
                _wait_for_a_worker(client, cluster.scheduler)
                _gather(futures, arrivals, _Tally(report))
            except BaseException:
                client.cancel(list(futures), force=True)
                raise
        all_at_rest = True
    finally:
        if all_at_rest:
            writer.sweep()


def _submit(client: Client, order: Order, task: ShardTask, sources: Mapping[str, VideoSource]) -> "Future[Made]":
    needed = {member.id: sources[member.id] for member in task.to_make}
    absolute = {
        video: source if source.remote else replace(source, path=source.path.absolute())
        for video, source in needed.items()
    }
    return client.submit(make_shard_once, order, task, absolute, key=f"shard-{task.number}-{order.topic}", pure=False)


def _gather(futures: "Mapping[Future[Made], ShardTask]", arrivals: "queue.SimpleQueue[Any]", tally: "_Tally") -> None:
    """Take what arrives until all shards are there. Raises what a worker raised."""
    waiting = len(futures)
    while waiting:
        arrived = arrivals.get()
        if isinstance(arrived, Future):
            tally.finished(futures[arrived], *_result(arrived, futures[arrived]))
            waiting -= 1
        else:
            _, message = arrived
            tally.told(*message)


def _result(future: "Future[Made]", task: ShardTask) -> Made:
    try:
        return future.result()
    except KilledWorker as error:
        raise ClusterError(
            f"shard {task.number}: every worker that began it died; with fewer workers each has more memory"
        ) from error
    except CancelledError as error:
        raise ClusterError(
            f"shard {task.number}: the scheduler was lost; run again, finished shards are kept"
        ) from error


@dataclass
class _Tally:
    """What has been made, shard by shard: an attempt that began later takes the place of an earlier one."""

    report: Callable[[int, int, int], None]
    made: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """Shard -> (maps, videos, bytes)."""
    attempts: dict[int, list[str]] = field(default_factory=dict)
    """Shard -> its attempts as they came; none that is told counts when the shard is finished."""
    done: set[int] = field(default_factory=set)

    def told(self, shard: int, attempt: str, frames: int, videos: int, written: int) -> None:
        attempts = self.attempts.setdefault(shard, [])
        if attempt not in attempts:
            attempts.append(attempt)
        if attempt == attempts[-1] and shard not in self.done:
            self._set(shard, frames, videos, written)

    def finished(self, task: ShardTask, frames: int, written: int) -> None:
        self.done.add(task.number)
        self._set(task.number, frames, len(task.to_make), written)

    def _set(self, shard: int, *made: int) -> None:
        self.made[shard] = (made[0], made[1], made[2])
        frames, videos, written = map(sum, zip(*self.made.values(), strict=True))
        self.report(frames, videos, written)


@contextmanager
def _client(cluster: Cluster) -> Iterator[Client]:
    """A connection to the workers; those that are ours end with it."""
    with dask.config.set(CONFIG), silence_logging_cmgr(SILENT):
        if cluster.scheduler is not None:
            with _connected(cluster.scheduler) as client:
                yield client
        else:
            with _interrupts_blocked():
                local = LocalCluster(
                    n_workers=cluster.workers,
                    threads_per_worker=1,
                    processes=True,
                    memory_limit=0,  # a limit would kill workers whose memory is the page cache's
                    dashboard_address="127.0.0.1:0",  # None would warn where somebody else's has Dask's usual port
                    silence_logs=SILENT,
                )
            with local, Client(local, set_as_default=False) as client:
                yield client


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Threads and processes that begin meanwhile never get Ctrl-C, which a terminal sends to all of ours at once:
    we end the workers ourselves."""
    resource_tracker.ensure_running()  # or the first process that is spawned would unblock them again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _connected(address: str) -> Client:
    try:
        return Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"{address}: no Dask scheduler answers there: start one with 'dask scheduler' and name its tcp:// address"
        ) from error


def _wait_for_a_worker(client: Client, address: str | None) -> None:
    try:
        client.wait_for_workers(1, timeout=SECONDS_TO_A_WORKER)
    except TimeoutError as error:
        raise ClusterError(f"{address}: no worker there: start some with 'dask worker {address}'") from error
