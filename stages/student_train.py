"""Train a TinyHD student from a store of teacher maps: the teacher itself is loaded only to make them live, instead.

Every sample is a clip of frames with the stored maps of the same absolute frames, and the density maps where people
were recorded. The loss is the paper's (losses.py); optimiser and schedule are the recipe's. An epoch costs the
student's own forward and backward passes; as published it would cost 16 teacher windows a sample on top.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.networks.inflation import start_encoder
from tinyhd_pipe.stages.networks.layers.layout import channels_last
from tinyhd_pipe.stages.networks.licence import Start, combined
from tinyhd_pipe.stages.networks.network import scaling_for
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.settings.training import StudentRecipe
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Sampling, Terms, TrainingVideo, collate
from tinyhd_pipe.stages.training.fitting import Fitted, Objective, Run, fit
from tinyhd_pipe.stages.training.labelled import Learnable, counted, labelled_videos, unmatched
from tinyhd_pipe.stages.training.live_targets import LiveTargets
from tinyhd_pipe.stages.training.losses import answered_frames, distillation_loss
from tinyhd_pipe.stages.training.oracle import Agreement, agreement
from tinyhd_pipe.stages.training.targets import Targets, TeacherMaps, usable_frames
from tinyhd_pipe.stages.training.validation import leave_out, validation_scores
from tinyhd_pipe.stages.training.validation_sheet import validation_sheet
from tinyhd_pipe.stages.video.clips import training_clip
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store.errors import DataError, SettingError

LISTED = 1000
"""Videos whose ids a weights file lists."""


def student_train(
    targets: TeacherMaps | None,
    sources: Sequence[VideoSource],
    annotated: Sequence[AnnotatedVideo],
    recipe: StudentRecipe,
    run: Run,
) -> Fitted:
    """Train a student and leave its weights in the run's folder.

    Arguments:
        targets: the teachers' maps; None where only density maps are learned.
        sources: the videos they were made of; those that the stores do not hold are left out, and so are those from
            which no clip with all its targets can be drawn. The run is told.
        annotated: the labelled ones among them.

    Raises DataError when the stores hold none of the videos, WeightsError for encoder weights that are missing or of
    another network, SettingError as `fit` does.
    """
    module, start = first_student(recipe)
    scaling = scaling_for("tinyhd", recipe.size, run.device)
    targets = None if recipe.learn_from == "labels" else targets
    sampling = sampling_of(recipe)
    there = _learnable(targets, sources, annotated, recipe)
    learned, left_out = _leave_out_of_both(there.videos, recipe.validation_share)
    dataset = ClipDataset(learned, scaling=scaling, sampling=sampling, targets=targets)
    held_out = ClipDataset(
        left_out,
        scaling=scaling,
        sampling=replace(sampling, flip=False),
        targets=targets,
        frames=dataset.frames,
    )
    terms = terms_of(recipe)
    objective = Objective(
        module=module,
        dataset=dataset,
        loss_terms=terms,
        validate=lambda network: _best_by_truth(
            validation_scores(
                network,
                held_out,
                clips_per_video=recipe.validation_clips,
                loss_terms=terms,
                device=torch.device(run.device),
            )
        ),
        picture=lambda network, path: validation_sheet(
            network, held_out, path, name="student", loss_terms=terms, device=torch.device(run.device)
        ),
        parameter_groups=parameter_groups(module, encoder_rate=recipe.encoder_rate),
        facts={
            "kind": "tinyhd",
            **_topology(recipe),
            "fusion_order": list(recipe.decoders),
            "size": list(recipe.size),
            **(targets.facts() if targets else {"teacher": None}),
            "code": version("tinyhd-pipe"),
            "videos_sha256": _digest_of_all(learned),
            "encoder_weights_sha256": start.sha256 if start else None,
            "licence": combined([*(targets.licences if targets else ()), *([start.licence] if start else ())]),
            "recipe": {**asdict(recipe), "encoder_weights": None},  # known by its digest, wherever it lies
            "learned_from": _told(learned),
        },
        left_out=there.left_out,
    )
    return fit(objective, recipe, run)


def compare_both_ways(
    live: LiveTargets,
    stored: Targets,
    sources: Sequence[VideoSource],
    annotated: Sequence[AnnotatedVideo],
    recipe: StudentRecipe,
    *,
    samples: int = 16,
    device: str = "cpu",
) -> Agreement:
    """Losses and gradients of the first samples of a run, on its first weights, online and offline.

    Raises as `student_train`.
    """
    module, _ = first_student(recipe)
    scaling, sampling = scaling_for("tinyhd", recipe.size), sampling_of(recipe)
    learned, _ = _leave_out_of_both(_learnable(stored, sources, annotated, recipe).videos, recipe.validation_share)
    ways = [ClipDataset(learned, scaling=scaling, sampling=sampling, targets=targets) for targets in (live, stored)]
    keys = ways[0].epoch_keys(0, recipe.clips_per_video)[:samples]
    groups = [keys[start : start + recipe.batch] for start in range(0, len(keys), recipe.batch)]
    batches = ([collate([way[key] for key in group]).to(torch.device(device)) for way in ways] for group in groups)
    student = channels_last(module.to(device)).train()
    return agreement(student, ((online, offline) for online, offline in batches), budget=stored.budget)


def _topology(recipe: StudentRecipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in ("decoders", "reduction", "outputs", "d1_outputs")}


def first_student(recipe: StudentRecipe) -> tuple[TinyHD, Start | None]:
    """The student's first weights, and what its encoder starts from."""
    module = TinyHD(**_topology(recipe), seed=recipe.seed)
    return module, start_encoder(module.encoder, recipe.encoder_weights)


def sampling_of(recipe: StudentRecipe) -> Sampling:
    """How a recipe draws its clips."""
    return Sampling(
        outputs=recipe.outputs,
        seed=recipe.seed,
        target_lag=recipe.target_lag,
        unlabelled_per_labelled=recipe.unlabelled_per_labelled,
    )


def _learnable(
    targets: TeacherMaps | None,
    sources: Sequence[VideoSource],
    annotated: Sequence[AnnotatedVideo],
    recipe: StudentRecipe,
) -> Learnable:
    """What `learn_from` says: videos with maps, labelled ones among them or as if without labels; or labelled ones.

    Of those, the ones from which a clip can be drawn: where frames failed, a short video may have none with all its
    targets. Raises DataError where none is left.
    """
    if targets is None and recipe.learn_from == "maps":
        raise SettingError("learn_from: maps of a teacher, and none are given; give a store, or learn_from labels")
    labels = [] if recipe.learn_from == "maps" else annotated
    found = labelled_videos(sources, annotated) if targets is None else _stored(targets, sources, labels)
    sampling, every = sampling_of(recipe), targets.every if targets else 1
    there = [video for video in found.videos if video.usable is None or _has_clip(video, sampling, every)]
    if not there:
        raise DataError(
            f"none of {len(found.videos)} videos has a clip with all its targets; a frame of each failed, or its map"
        )
    kept = {video.source.id for video in there}
    without = [video.source.id for video in found.videos if video.source.id not in kept]
    lines = [counted(without, "", "without a clip that has all its targets")] if without else []
    return Learnable(there, (*found.left_out, *lines))


def _stored(targets: TeacherMaps, sources: Sequence[VideoSource], annotated: Sequence[AnnotatedVideo]) -> Learnable:
    """The videos that a store holds, and a line on those that it does not, and on labels of no video given."""
    found = stored_videos(targets, sources, annotated)
    held = {video.source.id for video in found}
    others = [source.id for source in sources if source.id not in held]
    lines = [counted(others, "", f"without maps in {targets.urls}")] if others else []
    return Learnable(found, (*lines, *unmatched(sources, annotated)))


def _has_clip(video: TrainingVideo, sampling: Sampling, every: int) -> bool:
    try:
        training_clip(
            video.frames,
            outputs=sampling.outputs,
            rng=np.random.default_rng(0),
            every=every,
            target_lag=sampling.target_lag,
            usable=video.usable,
        )
    except DataError:
        return False
    return True


def stored_videos(
    targets: TeacherMaps, sources: Sequence[VideoSource], annotated: Sequence[AnnotatedVideo]
) -> list[TrainingVideo]:
    """The videos that can be learned from: in every store, with at least one frame; labels where there are any.

    Videos are matched with the stores by id, and with their annotation by path; nothing of them is read. That one is
    not the video that the teacher saw is said when a sample of it is first drawn (dataset.py).

    Raises DataError when nothing matches.
    """
    labels = {video.source.path.resolve(): video for video in annotated}
    known = set(targets.videos)
    videos = []
    for source in sources:
        if source.id not in known:
            continue
        facts = targets.video(source.id)
        if facts.frames:
            videos.append(
                TrainingVideo(
                    source=source,
                    frames=facts.frames,
                    annotation=labels.get(source.path.resolve()),
                    stored_as=source.id,
                    digest=facts.digest,
                    usable=usable_frames(facts),
                    numbering=facts.numbering,
                )
            )
    if not videos:
        raise DataError(f"{targets.urls}: holds none of the {len(sources)} videos given; give those that were dumped")
    return videos


def _told(videos: Sequence[TrainingVideo]) -> list[str] | str:
    """The videos' ids, or how many they are: checkpoints are written with them, and `videos_sha256` is of them all."""
    return [video.source.id for video in videos] if len(videos) <= LISTED else f"{len(videos)} videos"


def _digest_of_all(videos: Sequence[TrainingVideo]) -> str:
    """One digest of the videos learned from, and of how many of their frames decode."""
    told = [[video.source.id, video.digest, video.frames, video.annotation is not None] for video in videos]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def parameter_groups(module: TinyHD, *, encoder_rate: float) -> list[dict[str, Any]]:
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


def terms_of(recipe: StudentRecipe) -> Terms:
    """The paper's loss as a recipe weighs it, on those of the student's outputs whose frames have stored maps."""
    return partial(_terms, conspicuity_weight=recipe.conspicuity_weight)


def _terms(logits: Mapping[str, Tensor], batch: Batch, *, conspicuity_weight: float) -> dict[str, Tensor]:
    answered = answered_frames(logits, batch.outputs)
    return distillation_loss(answered, batch.maps, batch.density, batch.labelled, conspicuity_weight=conspicuity_weight)


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
