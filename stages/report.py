"""Show a run on one page: an HTML file that opens from disk, holds all its pictures, and asks nobody for anything.

What is missing (no evaluation, no store, clips that have moved) leaves a sentence in its place, because a page is
wanted most where something is still lacking. Cost: a second, and with a gallery the windows of three short loops by
teacher and student; the page has some hundred kilobytes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.evaluation_file import KeptEvaluation
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.reports.gallery import Gallery, chosen, draw_gallery
from tinyhd_pipe.stages.reports.page import Page, render
from tinyhd_pipe.stages.reports.places import (
    TEACHER,
    Asked,
    Missing,
    RunFolder,
    find_data,
    find_evaluation,
    find_stores,
    find_teacher,
    own_network,
    read_run,
)
from tinyhd_pipe.stages.settings.report import ReportOptions
from tinyhd_pipe.store.errors import DataError, VideoError
from tinyhd_pipe.store.whole_file import write_whole


@dataclass(frozen=True)
class Reported:
    """A page that was written."""

    path: Path
    bytes: int
    missing: tuple[str, ...]
    """What it could not show, a sentence each."""


def report(
    asked: Asked,
    out: Path,
    options: ReportOptions = ReportOptions(),
    *,
    device: str = "cpu",
) -> Reported:
    """Write the page of a run.

    Raises SettingError where `asked.run` is no run or a folder was named that
    holds no evaluation, WeightsError for weights that cannot be read, OSError where the page cannot be written.
    """
    run = read_run(asked.run)
    kept = find_evaluation(run, asked)
    stores = find_stores(run, asked)
    gallery = _gallery(run, kept, asked, options, device)
    page = Page.of(run, kept, stores, gallery, options)
    html = render(page)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, html.encode())
    return Reported(out, len(html.encode()), page.missing)


def _gallery(
    run: RunFolder, kept: KeptEvaluation | Missing, asked: Asked, options: ReportOptions, device: str
) -> Gallery | Missing:
    """The loops of the best, median and worst clip, or why there are none."""
    if isinstance(kept, Missing):
        return Missing("No gallery: its clips are chosen by an evaluation of these weights, and there is none.")
    own = kept.row_of(run.weights.sha256) or ""
    data = find_data(kept, asked)
    if isinstance(data, Missing):
        return data
    try:
        found = find_annotated_videos(data, kept.setting.given.get("layout", [None])[0])
        by_id = {video.source.id: video for video in found.videos}
        which = {which: by_id[video] for which, video in chosen(kept.scored, own).items() if video in by_id}
        if not which:
            return Missing(
                f"No gallery: none of the clips that were evaluated is in {data}; --data names their folder."
            )
        teacher = find_teacher(run, kept, asked, device) if run.is_student else None
        networks: dict[str, Network] = {} if teacher is None or isinstance(teacher, Missing) else dict([teacher])
        networks["student" if run.is_student else TEACHER] = own_network(run, device)
        figures = {
            video: {name: of[video]["CC"] for name, of in kept.scored.videos.items() if video in of} for video in by_id
        }
        drawn = draw_gallery(which, networks, figures, options)
    except (DataError, VideoError) as error:
        return Missing(f"No gallery: {error}.")
    return replace(drawn, without=teacher.why if isinstance(teacher, Missing) else None)
