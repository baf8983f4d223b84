"""What only the teacher can do for a store: make lost maps again, and say whether stored maps are still its own.

A repaired shard has the bytes that it had: it is the task of the first dump once more, with intact videos copied from
the shard itself and the others made anew. A sampled frame is compared by a way of its own, one window read at random
instead of a stream: what the dump did wrong, this does not do wrong with it. Cost: the teacher's windows for what is
lost or sampled, one read of the store, and one decoding of each sampled video.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tinyhd_pipe.stages.dump.fidelity import kl_of, to_size
from tinyhd_pipe.stages.dump.identity import refuse_other_teacher
from tinyhd_pipe.stages.dump.map_source import MapSource, map_source
from tinyhd_pipe.stages.dump.shard_work import Made, make_shard
from tinyhd_pipe.stages.networks.divergence import FAR as FAR
from tinyhd_pipe.stages.networks.levels import MIRRORED
from tinyhd_pipe.stages.networks.network import Network, Size
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store.encoding import Floats
from tinyhd_pipe.store.errors import StoreError, VideoError
from tinyhd_pipe.store.lock import exclusive
from tinyhd_pipe.store.plan import Member
from tinyhd_pipe.store.reader import FrameStatus, Store, open_store
from tinyhd_pipe.store.repair import repair
from tinyhd_pipe.store.storage import open_storage
from tinyhd_pipe.store.verify import Damage, known_description, verify
from tinyhd_pipe.store.writer import StoreWriter

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Repaired:
    """What a repair did."""

    damages: tuple[Damage, ...]
    """What was wrong."""
    shards: int
    """Shards that were written anew."""
    videos: tuple[str, ...]
    """Videos that the teacher made again."""


@dataclass(frozen=True)
class LevelCheck:
    """How far stored maps of one level are from the live ones."""

    kl: float
    """Mean KL(live ‖ stored) over the sampled frames, at the teacher's size, nats."""
    worst_kl: float
    worst: str
    """Video and frame of the largest one."""
    max_difference: float
    """Largest difference of two pixels of maps in [0, 1]."""


@dataclass(frozen=True)
class Sampled:
    """A comparison with the live teacher."""

    frames: int
    """Frames that were compared."""
    budget: float
    """What storing a map may cost on the mean, by the store's own word, nats."""
    levels: Mapping[str, LevelCheck]

    @property
    def kept(self) -> bool:
        """Whether the maps can be this teacher's."""
        return all(level.kl <= FAR * self.budget for level in self.levels.values())


def repair_store(
    url: str,
    *,
    teacher: Network | MapSource | None = None,
    sources: Sequence[VideoSource] = (),
    checking: Report = lambda done, total: None,
    report: Report = lambda done, total: None,
) -> Repaired:
    """Undo whatever `verify` finds: root, plans and metadata at once, lost maps with the store's own teacher.

    Arguments:
        teacher, sources: needed only where maps are lost; the videos are matched by id and content.
        checking: told (shards checked, shards in all); report: told (videos made again, videos in all).

    Holds the store's lock. Raises StoreError where a dump holds it, where the store is another teacher's, or where
    maps are lost and teacher or videos are missing; what needs neither has been repaired by then.
    """
    with exclusive(open_storage(url)):
        there = known_description(url)
        if teacher is not None:
            refuse_other_teacher(there, teacher, url)
        found = verify(url, checking)
        tasks = repair(url, found)
        writer = StoreWriter(url, there)
        lost = [task for task in tasks if task.to_make]
        for task in tasks:
            if not task.to_make:
                with writer.shard(task):
                    pass  # leaving it copies every video
        members = [member for task in lost for member in task.to_make]
        if teacher is not None:
            videos = same_videos(members, sources, map_source(teacher))
            counted = _told(report, len(members))
            for task in lost:
                make_shard(writer, task, videos, teacher, made=counted)
        elif lost:
            others = f" and of {len(members) - 1} other videos" if len(members) > 1 else ""
            raise StoreError(
                f"{url}: maps of {members[0].id}{others} are lost: give --weights and --videos, "
                "so that the teacher can make them again"
            )
    return Repaired(found.damages, len(tasks), tuple(member.id for member in members))


def _told(report: Report, total: int) -> Made:
    """What `make_shard` tells, as a count of videos."""
    done = 0

    def made(frames: int, videos: int, written: int) -> None:
        nonlocal done
        done += videos
        if videos:
            report(done, total)

    return made


def same_videos(members: Iterable[Member], sources: Sequence[VideoSource], maps: MapSource) -> dict[str, VideoSource]:
    """The videos of these members by id. Raises StoreError where one is missing, or it or its maps have changed."""
    by_id = {source.id: source for source in sources}
    for member in members:
        if member.id not in by_id:
            raise StoreError(
                f"{member.id}: its maps are lost, and it is not among the videos given: add it to --videos"
            )
        if digest(by_id[member.id]) != member.digest:
            raise StoreError(
                f"{by_id[member.id].path}: changed since the teacher saw it: give the file of then, "
                "or let teacher-dump make its maps of today"
            )
        if maps.content(by_id[member.id]) != member.maps:
            raise StoreError(
                f"{member.id}: its maps have changed since they were imported: give the files of then, or import again"
            )
    return by_id


def sample_store(
    url: str,
    teacher: Network | MapSource,
    sources: Sequence[VideoSource],
    *,
    frames: int,
    seed: int = 0,
    report: Report = lambda done, total: None,
) -> Sampled:
    """Make some maps again and compare them with the stored ones.

    Arguments:
        frames: how many, drawn evenly from all that have maps in those of the store's videos that are given.
        report: told (frames compared, frames in all).

    Frames whose window holds one that does not decode are passed over. Raises StoreError where the store is another
    teacher's, where a video has changed, or where nothing is left to compare.
    """
    store, maps = open_store(url), map_source(teacher)
    refuse_other_teacher(store.description, maps, url)
    levels = [level.name for level in store.description.levels]
    drawn = _drawn(store, sources, maps, frames, np.random.default_rng(seed))
    compared: dict[str, Mapping[str, tuple[float, float]]] = {}
    for done, (source, frame) in enumerate(drawn):
        report(done, len(drawn))
        facts = store.video(source.id)
        try:
            live = maps.at(source, facts, frame, levels)
        except VideoError:
            if not facts.problem:
                raise
            continue
        stored = _stored_logits(store, source.id, frame)
        compared[f"{source.id}, frame {frame}"] = {
            level: _difference(live[level].cpu(), torch.from_numpy(stored[level]), maps.size) for level in levels
        }
    report(len(drawn), len(drawn))
    if not compared:
        raise StoreError(f"{url}: no window of {len(drawn)} sampled frames decodes: sample more")
    checks = {level: _level_check({name: one[level] for name, one in compared.items()}) for level in levels}
    return Sampled(len(compared), store.description.budget, checks)


def _drawn(
    store: Store, sources: Sequence[VideoSource], maps: MapSource, frames: int, rng: np.random.Generator
) -> list[tuple[VideoSource, int]]:
    """Frames with maps, drawn from all of them; their videos are those that the teacher saw."""
    known = set(store.videos)
    given = [source for source in sources if source.id in known]
    valid = {}
    for source in given:
        dumped = store.frames(source.id)
        valid[source.id] = dumped[store.status(source.id, dumped) == FrameStatus.VALID]
    ends = np.cumsum([len(valid[source.id]) for source in given])
    if not len(ends) or not ends[-1]:
        raise StoreError(f"{store.url}: holds no map of the {len(sources)} videos given: give those that were dumped")
    places = np.sort(rng.choice(ends[-1], size=min(frames, int(ends[-1])), replace=False))
    videos = np.searchsorted(ends, places, side="right").tolist()
    drawn = [
        (given[video], int(valid[given[video].id][place - ends[video]]))
        for video, place in zip(videos, places, strict=True)
    ]
    rows = [store.video(source.id) for source in dict.fromkeys(source for source, _ in drawn)]
    same_videos([Member(row.id, row.digest, row.maps) for row in rows], sources, maps)
    return drawn


def _stored_logits(store: Store, video: str, frame: int) -> dict[str, Floats]:
    """What is stored of a frame, the maps of the mirrored clip under the names of their levels."""
    stored = store.read_logits(video, [frame])
    if store.mirrored:
        stored |= {MIRRORED[level]: maps for level, maps in store.read_logits(video, [frame], mirrored=True).items()}
    return stored


def _difference(live: Tensor, stored: Tensor, size: Size) -> tuple[float, float]:
    """KL(live ‖ stored) in nats, and the largest difference of the maps."""
    apart = to_size(live, size).sigmoid() - to_size(stored, size).sigmoid()
    return kl_of(live, stored, size), float(apart.abs().max())


def _level_check(differences: Mapping[str, tuple[float, float]]) -> LevelCheck:
    """Of one level: name of the frame -> (KL, largest difference)."""
    worst = max(differences, key=lambda name: differences[name][0])
    return LevelCheck(
        kl=float(np.mean([kl for kl, _ in differences.values()])),
        worst_kl=differences[worst][0],
        worst=worst,
        max_difference=max(difference for _, difference in differences.values()),
    )
