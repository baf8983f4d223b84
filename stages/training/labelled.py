"""Videos that are learned from their density maps alone: no teacher, no store."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.training.dataset import TrainingVideo
from tinyhd_pipe.stages.video.index import index_frames
from tinyhd_pipe.stages.video.sources import VideoSource, digest, numbering_of
from tinyhd_pipe.store.errors import DataError


def training_video(video: AnnotatedVideo) -> TrainingVideo:
    """A labelled video as something to learn from: every frame that decodes and has a density map is a target."""
    usable = index_frames(video.source).valid.copy()
    numbering = numbering_of(video.source)
    usable &= np.isin(numbering.numbers(np.arange(len(usable))), list(video.density_maps))
    return TrainingVideo(video.source, frames=len(usable), annotation=video, usable=usable, numbering=numbering)


def labelled_videos(sources: Sequence[VideoSource], annotated: Sequence[AnnotatedVideo]) -> list[TrainingVideo]:
    """Those of these videos that are annotated, matched by path. Raises DataError where none is."""
    labels = {video.source.path.resolve(): video for video in annotated}
    found = [
        replace(training_video(labels[path]), source=source, digest=digest(source))
        for source in sources
        if (path := source.path.resolve()) in labels
    ]
    if not found:
        raise DataError(
            f"none of the {len(sources)} videos given is labelled; give --labels DIR, or maps to learn from"
        )
    return found
