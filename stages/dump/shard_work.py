"""The work of one shard: the maps of its videos, made and written. Plan, retry, repair and cluster all come down to it.

Three things go on at once: a thread decodes and prepares, threads run the teacher (or read what maps come from,
map_source.py), and the caller's thread encodes and writes, so that whatever fails in writing fails where the shard is
held open. Videos follow one another without a gap: the next one is decoded while the last maps of this one are made.

What is left after a kill depends on nothing but the task: the same task gives the same bytes, wherever and however
often it runs.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial

from tinyhd_pipe.stages.dump.fidelity import to_grid
from tinyhd_pipe.stages.dump.map_source import MapSource, Work, map_source
from tinyhd_pipe.stages.networks.network import Network, Size
from tinyhd_pipe.stages.networks.overlap import ahead, in_parallel
from tinyhd_pipe.stages.networks.teacher_maps import BATCHES_AHEAD
from tinyhd_pipe.stages.video.decoding import VideoFacts, decode, probe
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.encoding import Floats
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.numbering import Numbering
from tinyhd_pipe.store.plan import ShardTask
from tinyhd_pipe.store.shard import ShardWriter
from tinyhd_pipe.store.writer import StoreWriter

Made = Callable[[int, int, int], None]
"""Told (maps made, videos finished, bytes written) since it was told last."""


@dataclass(frozen=True)
class _Begin:
    source: VideoSource
    facts: VideoFacts


@dataclass(frozen=True)
class _End:
    """The video that began last has ended."""

    frames: int
    problem: str | None
    numbering: Numbering


@dataclass(frozen=True)
class _Nothing:
    """A video that gives no frame."""

    source: VideoSource
    problem: str


@dataclass(frozen=True, eq=False)
class _Maps:
    frames: int
    failed: Sequence[int]
    """Places of those frames that have no valid map."""
    logits: Mapping[str, Floats]
    """Level -> (frame, y, x) on the grid on which it is stored."""


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
    grids = {level.name: level.grid for level in writer.description.levels}
    maps = map_source(teacher)
    with writer.shard(task) as shard:
        report = _Report(shard, made)
        videos = [sources[member.id] for member in shard.to_make]
        steps_to_do = ahead(_steps(maps, videos, writer.description.every), BATCHES_AHEAD)
        with closing(in_parallel(partial(_done, grids), steps_to_do, maps.threads)) as steps:
            _write(shard, steps, report)
    report(0, 0)  # the indexes


def _steps(maps: MapSource, sources: Iterable[VideoSource], every: int) -> Iterator[_Begin | Work | _End | _Nothing]:
    """What there is to do for each video in turn."""
    for source in sources:
        try:
            facts = probe(source)
        except VideoError as error:
            yield _Nothing(source, _problem(source, error))
            continue
        yield _Begin(source, facts)
        decoding = decode(source)
        try:
            lacking = yield from maps.work(source, decoding, every)
            problem = "; ".join(filter(None, (decoding.problem, lacking)))
            yield _End(decoding.frames, problem, decoding.numbering)
        except VideoError as error:  # it was replaced or lost after it was looked at
            yield _End(decoding.frames, _problem(source, error), decoding.numbering)


def _problem(source: VideoSource, error: VideoError) -> str:
    return str(error).removeprefix(f"{source.path}: ")


def _done(grids: Mapping[str, Size], step: _Begin | Work | _End | _Nothing) -> _Begin | _Maps | _End | _Nothing:
    """The maps of a batch, on the grids on which they are stored; any other step as it is."""
    if isinstance(step, _Begin | _End | _Nothing):
        return step
    made = step(grids.keys())
    logits = {level: to_grid(logits, grids[level]).cpu().numpy() for level, logits in made.logits.items()}
    return _Maps(len(next(iter(logits.values()))), made.failed, logits)


def _write(shard: ShardWriter, steps: Iterator[_Begin | _Maps | _End | _Nothing], report: "_Report") -> None:
    """Write videos as their steps come."""
    for step in steps:
        if isinstance(step, _Nothing):
            shard.failed_video(step.source.id, step.problem)
        elif isinstance(step, _Begin):
            _write_video(shard, step, steps, report)
        report(0, 1)


def _write_video(
    shard: ShardWriter, begin: _Begin, steps: Iterator[_Begin | _Maps | _End | _Nothing], report: "_Report"
) -> None:
    """Write the maps of one video, up to its end."""
    facts = begin.facts
    rate = str(facts.fps) if facts.fps else ""
    with shard.video(begin.source.id, height=facts.height, width=facts.width, rate=rate) as video:
        for step in steps:
            if isinstance(step, _End):
                video.finish(step.frames, step.problem, numbering=step.numbering)
                return
            assert isinstance(step, _Maps)
            video.append(step.logits)
            for frame in step.failed:
                video.mark_failed(frame)
            report(step.frames, 0)


@dataclass
class _Report:
    """Tells what was done since it was told last, the bytes that the shard has grown by with it."""

    shard: ShardWriter
    made: Made
    told: int = 0

    def __call__(self, frames: int, videos: int) -> None:
        written, self.told = self.shard.bytes_written - self.told, self.shard.bytes_written
        self.made(frames, videos, written)
