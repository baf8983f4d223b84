"""Run the teacher once for every frame of every video, and keep its maps.

The loop is that of every dump (dump/dumping.py), to the same bytes however often it was killed. Cost: the teacher's
own, one window for each frame (networks/teacher_maps.py), and that of encoding its maps.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tinyhd_pipe.stages.dump.dumping import Dumped as Dumped
from tinyhd_pipe.stages.dump.dumping import DumpProgress as DumpProgress
from tinyhd_pipe.stages.dump.dumping import Listeners, Order, dump, dump_together
from tinyhd_pipe.stages.dump.map_source import MapSource, map_source
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.video.sources import VideoSource

if TYPE_CHECKING:
    from tinyhd_pipe.stages.dump.cluster import Cluster


def teachers_dump(
    sources: Sequence[VideoSource],
    teachers: Sequence[tuple[str, Network | MapSource]],
    options: DumpOptions,
    listeners: Listeners,
) -> list[Dumped]:
    """The same for several teachers, each with the URL of its own store; each frame is decoded once for all of them.

    Stores that are new hold the same videos in their shards, so that they stay in step. Errors as `teacher_dump`: none
    of the stores is begun where one is refused.
    """
    return dump_together(sources, [Order(url, map_source(teacher), options) for url, teacher in teachers], listeners)


def teacher_dump(
    sources: Sequence[VideoSource],
    url: str,
    teacher: Network | MapSource,
    options: DumpOptions = DumpOptions(),
    *,
    cluster: "Cluster | None" = None,
    report: Callable[[DumpProgress], None] = lambda progress: None,
    reading: Callable[[int, int], None] = lambda done, total: None,
) -> Dumped:
    """Make the teacher's maps of every video that the store does not have yet.

    Arguments:
        teacher: a network of ours, or another source of maps (dump/map_source.py), as an exported file is.
        url: a folder, or any fsspec URL; made where there is none.
        options: which maps, how they are stored, and what becomes of other videos, of problems and of a store of
            another teacher (refused by default, because a store may have cost weeks). Levels whose
            grid and step are given are measured all the same, and refused where they cost more than the budget.
        cluster: Dask workers that make the shards, to the same bytes; without one this process does.
        report: told of every batch; reading: told (videos read, videos in all) while they are identified.

    Raises StoreError when the store belongs to another teacher or another dump writes to it, VideoError when no video
    can be read at all, ClusterError when there are no workers or they see other files. A video that fails is listed in
    the result and in the store; the others are done.
    """
    return dump(sources, url, map_source(teacher), options, Listeners(report, reading), cluster)
