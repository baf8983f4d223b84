"""The work of one shard: the maps of its videos, made and written. Plan, retry, repair and cluster all come down to it.

What is left after a kill depends on nothing but the task: the same task gives the same bytes, wherever and however
often it runs.
"""

from collections.abc import Callable, Mapping
from itertools import chain

from tinyhd_pipe.stages.fidelity import to_grid
from tinyhd_pipe.stages.networks import Network, Size
from tinyhd_pipe.stages.teacher_maps import ahead, teacher_maps
from tinyhd_pipe.stages.video import VideoSource, decode, probe
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.plan import ShardTask
from tinyhd_pipe.store.shard import ShardWriter
from tinyhd_pipe.store.writer import StoreWriter

READ_AHEAD = 32
"""Frames decoded before the teacher asks for them."""
Made = Callable[[int, int], None]
"""Told (maps made, videos finished) since it was told last."""


def make_shard(
    writer: StoreWriter,
    task: ShardTask,
    sources: Mapping[str, VideoSource],
    teacher: Network,
    *,
    batch: int = 1,
    made: Made = lambda frames, videos: None,
) -> None:
    """Write one shard: videos that are unchanged are copied, all others are made by the teacher.

    Arguments:
        sources: id -> video, for every member that has to be made.
        batch: windows in one forward pass.

    A video that gives no frame is stored with its reason. Raises StoreError where the shard cannot be written.
    """
    grids = {level.name: level.grid for level in writer.description.levels}
    with writer.shard(task) as shard:
        for member in shard.to_make:
            _make_video(sources[member.id], shard, teacher, grids, writer.description.every, batch, made)


def _make_video(
    source: VideoSource,
    shard: ShardWriter,
    teacher: Network,
    grids: Mapping[str, Size],
    every: int,
    batch: int,
    made: Made,
) -> None:
    """Write the maps of one video, or the reason why there are none."""
    decoding = decode(source)
    maps = teacher_maps(teacher, ahead(decoding, READ_AHEAD), every=every, batch=batch)
    try:
        facts, first = probe(source), next(maps)
    except VideoError as error:
        shard.failed_video(source.id, str(error).removeprefix(f"{source.path}: "))
        made(0, 1)
        return
    rate = str(facts.fps) if facts.fps else ""
    with shard.video(source.id, height=facts.height, width=facts.width, rate=rate) as video:
        for frames, logits in chain([first], maps):
            video.append({level: to_grid(full, grids[level]).cpu().numpy() for level, full in logits.items()})
            for frame in frames:
                if not frame.decoded:
                    video.mark_failed(frame.number)
            made(len(frames), 0)
        video.finish(decoding.frames, decoding.problem)
    made(0, 1)
