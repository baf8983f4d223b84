"""One map for every frame of any video, in files that people and programs take; what is there already stays.

The network runs as in a dump and an evaluation (networks/prediction.py): decoding, windows side by side and writing
overlap, and what is held is a fixed number of frames, however long a video is. The decision that is not obvious: each
video's products are finished one by one, and known by what made them (predictions/records.py). So a rerun makes what is
missing and nothing else, pictures frame by frame; a video that has changed is made anew; and maps of other weights are
refused, since a folder of both would be worth nothing.

Cost: the network's own, and 1 to 2 ms for the picture of a map.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.prediction import Map, fastest, predict_live
from tinyhd_pipe.stages.networks.prediction import predict as predicted_maps
from tinyhd_pipe.stages.predictions.products import Product, Wanted, Work, work_on
from tinyhd_pipe.stages.predictions.records import Made
from tinyhd_pipe.stages.video.decoding import count_packets
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.stages.video.streams import Stream
from tinyhd_pipe.stages.video.viewing import Viewing
from tinyhd_pipe.store.errors import VideoError


@dataclass(frozen=True)
class PredictProgress:
    """Where a prediction stands."""

    frames: int
    """Maps made in this run."""
    frames_in_all: int
    """An estimate: packets are counted, nothing is decoded for it."""
    videos: int
    """Videos finished in this run."""
    videos_in_all: int
    seconds: float
    """Since the first video was begun."""

    @property
    def frames_a_second(self) -> float:
        """Maps a second, over this run so far; 0 before the first."""
        return self.frames / self.seconds if self.frames else 0.0


@dataclass(frozen=True)
class Predicted:
    """What a prediction left."""

    out: Path
    videos: int
    """Videos that have maps now, out of those given."""
    frames: int
    """Maps that this run made."""
    already_there: int
    """Videos that were finished before this run."""
    problems: Mapping[str, str]
    """Video id -> one line, for those that gave no frame at all or not all of them."""


def predict(
    sources: Sequence[VideoSource | Stream],
    network: Network,
    out: Path,
    wanted: Wanted = Wanted(),
    *,
    overwrite: bool = False,
    report: Callable[[PredictProgress], None] = lambda progress: None,
) -> Predicted:
    """Make the maps of every video that `out` does not have yet.

    Arguments:
        out: a folder, made where there is none; a video's files are named by its id.
        overwrite: make maps anew that are there by another network or in another brightness; refused otherwise.
        report: told after every map.

    A video that fails is listed in the result; the others are done. Raises SettingError, before anything is made,
    where maps are by something else or a place is taken by what was not made here; OSError for a full disk.
    """
    works: list[Work] = []
    problems: dict[str, str] = {}
    for source in sources:
        try:
            works.append(work_on(source, network.identity, out, wanted, overwrite=overwrite))
        except VideoError as error:
            problems[source.id] = str(error)
    finished = [work for work in works if not work.products]
    problems |= {work.source.id: problem for work in finished if (problem := work.record.problem)}
    run = _Run.of([work for work in works if work.products], report)
    fast = fastest(network)
    for work in run.works:
        try:
            problem = _make(work, fast, run)
        except VideoError as error:
            problem = str(error)
            run.without_maps += 1
        if problem:
            problems[work.source.id] = problem
        run.ended(work)
    problems = {source.id: problems[source.id] for source in sources if source.id in problems}
    return Predicted(out, len(works) - run.without_maps, run.frames, len(finished), problems)


@dataclass
class _Run:
    """What has been done so far, and whom to tell."""

    works: Sequence[Work]
    report: Callable[[PredictProgress], None]
    left: dict[str, int]
    """Video -> maps that are still to be made, about."""
    frames: int = 0
    videos: int = 0
    without_maps: int = 0
    started: float = field(default_factory=time.perf_counter)

    @staticmethod
    def of(works: Sequence[Work], report: Callable[[PredictProgress], None]) -> "_Run":
        left = {work.source.id: max(0, _about(work.source) - len(work.frames_there)) for work in works}
        run = _Run(works, report, left)
        run.tell()  # the clock that tells the time left starts now
        return run

    def made(self, work: Work) -> None:
        self.frames += 1
        self.left[work.source.id] = max(0, self.left[work.source.id] - 1)
        self.tell()

    def ended(self, work: Work) -> None:
        self.videos += 1
        self.left[work.source.id] = 0
        self.tell()

    def tell(self) -> None:
        seconds = time.perf_counter() - self.started
        in_all = self.frames + sum(self.left.values())
        self.report(PredictProgress(self.frames, in_all, self.videos, len(self.works), seconds))


@dataclass(frozen=True)
class _AllBut:
    """All frames but some."""

    some: frozenset[int]

    def __contains__(self, frame: object) -> bool:
        return frame not in self.some


def _make(work: Work, network: Network, run: _Run) -> str | None:
    """Make what is missing of a video; what of it does not decode. Raises VideoError where nothing does."""
    there, record, made = work.frames_there, work.record, 0
    with (
        closing(Viewing(work.source)) as viewing,
        ExitStack() as open_products,
        closing(_maps(network, work, viewing)) as maps,
    ):
        adds = [open_products.enter_context(product.write(viewing)) for product in work.products]
        for frame, saliency in maps:
            if not made:
                for product in work.products:
                    record = record.having(product.name, _begun(product, work))
            for add in adds:
                add(frame, saliency)
            made += 1
            run.made(work)
    for product in work.products:
        record = record.having(product.name, Made(product.by, made + len(there), viewing.problem))
    return viewing.problem


def _maps(network: Network, work: Work, viewing: Viewing) -> Generator[tuple[int, Map]]:
    if isinstance(work.source, Stream):
        return predict_live(network, viewing)
    return predicted_maps(network, work.source, _AllBut(work.frames_there), decoding=viewing)


def _begun(product: Product, work: Work) -> Made:
    if product.name in work.anew:
        product.remove()
    return Made(product.by)


def _about(source: VideoSource | Stream) -> int:
    """How many frames a video may have; none where that cannot be said."""
    if isinstance(source, Stream):
        return 0
    try:
        return count_packets(source)
    except VideoError:
        return 0
