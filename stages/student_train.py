"""Train a TinyHD student from a store of teacher maps: the teacher itself is never loaded.

Every sample is a clip of frames with the stored maps of the same absolute frames, and the density maps where people
were recorded. The loss is the paper's (losses.py); the optimiser and schedule are a `Recipe`. An epoch costs the
student's own forward and backward passes; as published it would cost 16 teacher windows a sample on top.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tinyhd_pipe.stages.gaze.dhf1k import AnnotatedVideo
from tinyhd_pipe.stages.networks.network import Size, scaling_for
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Sampling, TrainingVideo
from tinyhd_pipe.stages.training.fitting import EpochReport, Fitted, Recipe, fit
from tinyhd_pipe.stages.training.losses import distillation_loss
from tinyhd_pipe.stages.training.validation import leave_out, validation_scores
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store.errors import DataError
from tinyhd_pipe.store.manifest import VideoRow
from tinyhd_pipe.store.reader import Store


@dataclass(frozen=True)
class Topology:
    """Which TinyHD network is trained."""

    decoders: tuple[str, ...]
    """Of d1, d2, d3; only d1 answers to the conspicuity maps."""
    reduction: int
    """Channel reduction: 1, 2 or 4."""
    outputs: int
    """1 (S: the last frame of a clip) or 16 (M: every frame of it)."""
    d1_outputs: int
    """Maps that d1 gives of an M network: 1 (its target is the mean of 16) or 16."""


def student_train(
    store: Store,
    sources: Sequence[VideoSource],
    annotated: Sequence[AnnotatedVideo],
    out: Path,
    *,
    topology: Topology,
    size: Size,
    recipe: Recipe,
    unlabelled_per_labelled: float,
    encoder_rate: float,
    target_lag: int,
    validation_share: float,
    validation_clips: int,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    report: Callable[[EpochReport], None] = lambda epoch: None,
    step_report: Callable[[int, int], None] = lambda done, total: None,
) -> Fitted:
    """Train a student and leave its weights in `out`.

    Arguments:
        store: the teacher's maps.
        sources: the videos they were made of; those that the store does not hold are left out.
        annotated: the labelled ones among them.
        size: (y, x) of the student's input and maps.
        unlabelled_per_labelled: clips of unlabelled videos in an epoch for each of a labelled one.
        encoder_rate: the encoder's learning rate as a share of the others' (published: .5).
        target_lag: frames by which targets run behind the clip (0 aligns; 1 as in the published M training).
        validation_share, validation_clips: every k-th video is left out, and so many of its clips are scored.

    Raises DataError when the store holds none of the videos, SettingError as `fit` does.
    """
    module = TinyHD(**asdict(topology), seed=recipe.seed)
    scaling = scaling_for("tinyhd", size)
    videos = stored_videos(store, sources, annotated)
    learned, left_out = _leave_out_of_both(videos, validation_share)
    sampling = Sampling(
        outputs=topology.outputs,
        seed=recipe.seed,
        target_lag=target_lag,
        unlabelled_per_labelled=unlabelled_per_labelled,
    )
    unflipped = Sampling(outputs=topology.outputs, seed=recipe.seed, target_lag=target_lag, flip=False)

    return fit(
        module,
        dataset=ClipDataset(learned, scaling=scaling, sampling=sampling, store=store),
        loss_terms=_terms,
        validate=lambda: _best_by_truth(
            validation_scores(
                module,
                ClipDataset(left_out, scaling=scaling, sampling=unflipped, store=store),
                clips_per_video=validation_clips,
                loss_terms=_terms,
                device=torch.device(device),
            )
        ),
        parameter_groups=parameter_groups(module, recipe, encoder_rate=encoder_rate),
        recipe=recipe,
        facts={
            "kind": "tinyhd",
            **asdict(topology),
            "fusion_order": list(topology.decoders),
            "size": list(size),
            "teacher": store.info()["teacher"],
            "recipe": asdict(recipe),
            "target_lag": target_lag,
            "learned_from": [video.source.id for video in learned],
        },
        out=out,
        resume=resume,
        overwrite=overwrite,
        device=torch.device(device),
        report=report,
        step_report=step_report,
    )


def stored_videos(
    store: Store, sources: Sequence[VideoSource], annotated: Sequence[AnnotatedVideo]
) -> list[TrainingVideo]:
    """The videos that can be learned from: in the store, with at least one frame; labels where there are any.

    Videos are matched with the store by id and content digest, and with their annotation by path.

    Raises DataError when nothing matches, or when a video is not the one that the teacher saw.
    """
    labels = {video.source.path.resolve(): video for video in annotated}
    known = set(store.videos)
    videos = []
    for source in sources:
        if source.id not in known:
            continue
        facts = store.video(source.id)
        if facts.digest != digest(source):
            raise DataError(f"{source.path}: changed since the teacher saw it; run teacher-dump again")
        if facts.frames:
            videos.append(
                TrainingVideo(
                    source=source,
                    frames=facts.frames,
                    annotation=labels.get(source.path.resolve()),
                    stored_as=source.id,
                    usable=_usable(facts),
                )
            )
    if not videos:
        raise DataError(f"{store.url}: holds none of the {len(sources)} videos given; give those that were dumped")
    return videos


def _usable(facts: VideoRow) -> NDArray[np.bool_] | None:
    usable = np.ones(facts.frames, bool)
    usable[list(facts.failed)] = False
    return usable if facts.failed else None


def parameter_groups(module: TinyHD, recipe: Recipe, *, encoder_rate: float) -> list[dict[str, Any]]:
    """The published groups: the encoder learns slower, biases learn twice as fast and do not decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        groups.setdefault((name.startswith("encoder."), name.endswith(".bias")), []).append(parameter)
    return [
        {
            "params": parameters,
            "rate": (encoder_rate if encoder else 1.0) * (2.0 if bias else 1.0),
            **({"weight_decay": 0.0} if bias else {}),
        }
        for (encoder, bias), parameters in groups.items()
    ]


def _terms(logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """The paper's loss, on those of the student's outputs whose frames have stored maps."""
    answered = {level: maps if maps.ndim == 3 else maps[:, batch.outputs] for level, maps in logits.items()}
    return distillation_loss(answered, batch.maps, batch.density, batch.labelled)


def _leave_out_of_both(
    videos: Sequence[TrainingVideo], share: float
) -> tuple[list[TrainingVideo], list[TrainingVideo]]:
    """Leave videos out of the labelled ones where there are two or more, else of all."""
    labelled = [video for video in videos if video.annotation is not None]
    if len(labelled) < 2:
        return leave_out(videos, share)
    learned, left_out = leave_out(labelled, share)
    return [*learned, *(video for video in videos if video.annotation is None)], left_out


def _best_by_truth(scores: Mapping[str, float]) -> dict[str, float]:
    """Put the score that decides first: KL to the density maps where there are any, else to the teacher's final map."""
    first = "density" if "density" in scores else "final"
    return {first: scores[first], **scores}
