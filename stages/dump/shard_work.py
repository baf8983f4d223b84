"""The work of one shard: the maps of its videos, made and written. Plan, retry, repair and cluster all come down to it.

Three things go on at once: a thread decodes and prepares, threads run the teacher (or read what maps come from,
map_source.py), and the caller's thread encodes and writes, so that whatever fails in writing fails where the shard is
held open. Videos follow one another without a gap: the next one is decoded while the last maps of this one are made.
Several teachers may share the decoding: each writes a shard of its own store, and they are kept in step, so that few
frames wait for the slowest.

What is left after a kill depends on nothing but the task: the same task gives the same bytes, wherever and however
often it runs.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import tee

from tinyhd_pipe.stages.dump.fidelity import to_grid
from tinyhd_pipe.stages.dump.map_source import MapSource, Work, map_source
from tinyhd_pipe.stages.networks.network import Network, Size
from tinyhd_pipe.stages.networks.overlap import ahead, cores, in_parallel
from tinyhd_pipe.stages.networks.teacher_maps import BATCHES_AHEAD
from tinyhd_pipe.stages.video.decoding import Decoding, Picture, VideoFacts, decode, probe
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.encoding import Floats
from tinyhd_pipe.store.errors import FetchError, VideoError
from tinyhd_pipe.store.numbering import Numbering
from tinyhd_pipe.store.plan import ShardTask
from tinyhd_pipe.store.shard import ShardWriter
from tinyhd_pipe.store.writer import StoreWriter

Made = Callable[[int, int, int], None]
"""Told (maps made, videos finished, bytes written) since it was told last."""


@dataclass(frozen=True)
class Job:
    """One shard of one store, and where its maps come from."""

    writer: StoreWriter
    task: ShardTask
    maps: MapSource

    @property
    def grids(self) -> Mapping[str, Size]:
        return {level.name: level.grid for level in self.writer.description.levels}


@dataclass(frozen=True)
class _Begin:
    source: VideoSource
    facts: VideoFacts


@dataclass(frozen=True)
class _ToDo:
    """Maps that a job has to make."""

    job: int
    work: Work


@dataclass(frozen=True, eq=False)
class _Maps:
    """Maps that a job has made."""

    job: int
    frames: int
    failed: Sequence[int]
    """Places of those frames that have no valid map."""
    logits: Mapping[str, Floats]
    """Level -> (frame, y, x) on the grid on which it is stored."""


@dataclass(frozen=True)
class _End:
    """The video that began last has ended."""

    frames: int
    problems: Sequence[str | None]
    """Of each job."""
    numbering: Numbering


@dataclass(frozen=True)
class _Nothing:
    """A video that gives no frame."""

    source: VideoSource
    problem: str


def make_shard(
    writer: StoreWriter,
    task: ShardTask,
    sources: Mapping[str, VideoSource],
    teacher: Network | MapSource,
    *,
    made: Made = lambda frames, videos, written: None,
) -> None:
    """Write one shard: videos that are unchanged are copied, all others are made by the teacher.

    Arguments:
        sources: id -> video, for every member that has to be made.

    A video that gives no frame is stored with its reason. Raises StoreError where the shard cannot be written.
    """
    make_together([Job(writer, task, map_source(teacher))], sources, made=made)


def make_together(
    jobs: Sequence[Job], sources: Mapping[str, VideoSource], *, made: Made = lambda frames, videos, written: None
) -> None:
    """Write a shard of each of several stores, in which the same videos are to be made; each is decoded once.

    `made` counts the maps of all of them, and each video once.
    """
    grids = [job.grids for job in jobs]
    working = max(job.maps.threads for job in jobs)
    left = max(1, cores() - working)  # beside a GPU, most of them: one thread encodes slower than it makes maps
    with ExitStack() as held_open:
        shards = [held_open.enter_context(job.writer.shard(job.task, threads=left)) for job in jobs]
        report = _Report(shards, made)
        videos = [sources[member.id] for member in shards[0].to_make]
        to_do = ahead(_steps(jobs, videos), BATCHES_AHEAD)
        with closing(in_parallel(partial(_done, grids), to_do, working)) as steps:
            _write(shards, steps, report)
    report(0, 0)  # the indexes


def _steps(jobs: Sequence[Job], sources: Iterable[VideoSource]) -> Iterator[_Begin | _ToDo | _End | _Nothing]:
    """What there is to do for each video in turn."""
    for source in sources:
        try:
            facts = probe(source)
        except FetchError:  # says nothing of the video, which a rerun makes
            raise
        except VideoError as error:
            yield _Nothing(source, _problem(source, error))
            continue
        yield _Begin(source, facts)
        decoding = decode(source)
        try:
            lacking = yield from _in_step(jobs, source, decoding)
            problems = ["; ".join(filter(None, (decoding.problem, lack))) for lack in lacking]
            yield _End(decoding.frames, problems, decoding.numbering)
        except FetchError:
            raise
        except VideoError as error:  # it was replaced or lost after it was looked at
            yield _End(decoding.frames, [_problem(source, error)] * len(jobs), decoding.numbering)


def _in_step(jobs: Sequence[Job], source: VideoSource, decoding: Decoding) -> Generator[_ToDo, None, list[str | None]]:
    """The work of all jobs on one video, who has seen the fewest frames first; returns what the maps of each lack."""
    seen = [_Counted(frames) for frames in tee(decoding, len(jobs))]
    lacking: list[str | None] = [None] * len(jobs)
    with ExitStack() as begun:
        waiting = {
            place: begun.enter_context(closing(job.maps.work(source, seen[place], job.writer.description.every)))
            for place, job in enumerate(jobs)
        }
        while waiting:
            place = min(waiting, key=lambda place: seen[place].count)
            try:
                yield _ToDo(place, next(waiting[place]))
            except StopIteration as end:
                lacking[place] = end.value
                del waiting[place]
    return lacking


@dataclass
class _Counted(Iterator[Picture | None]):
    """The same pictures, counted."""

    pictures: Iterator[Picture | None]
    count: int = 0

    def __next__(self) -> Picture | None:
        picture = next(self.pictures)
        self.count += 1
        return picture


def _problem(source: VideoSource, error: VideoError) -> str:
    return str(error).removeprefix(f"{source.where}: ")


def _done(
    grids: Sequence[Mapping[str, Size]], step: _Begin | _ToDo | _End | _Nothing
) -> _Begin | _Maps | _End | _Nothing:
    """The maps of a batch, on the grids on which they are stored; any other step as it is."""
    if not isinstance(step, _ToDo):
        return step
    wanted = grids[step.job]
    made = step.work(wanted.keys())
    logits = {level: to_grid(logits, wanted[level]).cpu().numpy() for level, logits in made.logits.items()}
    return _Maps(step.job, len(next(iter(logits.values()))), made.failed, logits)


def _write(shards: Sequence[ShardWriter], steps: Iterator[_Begin | _Maps | _End | _Nothing], report: "_Report") -> None:
    """Write videos as their steps come."""
    for step in steps:
        if isinstance(step, _Nothing):
            for shard in shards:
                shard.failed_video(step.source.id, step.problem)
        elif isinstance(step, _Begin):
            _write_video(shards, step, steps, report)
        report(0, 1)


def _write_video(
    shards: Sequence[ShardWriter], begin: _Begin, steps: Iterator[_Begin | _Maps | _End | _Nothing], report: "_Report"
) -> None:
    """Write the maps of one video, up to its end."""
    facts = begin.facts
    rate = str(facts.fps) if facts.fps else ""
    with ExitStack() as begun:
        videos = [
            begun.enter_context(shard.video(begin.source.id, height=facts.height, width=facts.width, rate=rate))
            for shard in shards
        ]
        for step in steps:
            if isinstance(step, _End):
                for video, problem in zip(videos, step.problems, strict=True):
                    video.finish(step.frames, problem, numbering=step.numbering)
                return
            assert isinstance(step, _Maps)
            videos[step.job].append(step.logits)
            for frame in step.failed:
                videos[step.job].mark_failed(frame)
            report(step.frames, 0)


@dataclass
class _Report:
    """Tells what was done since it was told last, the bytes that the shards have grown by with it."""

    shards: Sequence[ShardWriter]
    made: Made
    told: int = 0

    def __call__(self, frames: int, videos: int) -> None:
        now = sum(shard.bytes_written for shard in self.shards)
        written, self.told = now - self.told, now
        self.made(frames, videos, written)
