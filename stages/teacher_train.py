"""Fit a teacher where no published weights are at hand: HD2S, any width, on clips with density maps.

The published recipe (Adam, the sum of five KL terms against the density map, horizontal flip) is one choice of
recipe. A quarter of the width at a small size learns in minutes on two cores; the full network does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.kinetics import start_from_kinetics
from tinyhd_pipe.stages.networks.licence import NONE_STATED, combined, licence_of
from tinyhd_pipe.stages.networks.network import Size, scaling_for
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.stages.settings.training import TeacherRecipe
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Sampling
from tinyhd_pipe.stages.training.fitting import Fitted, Objective, Run, fit
from tinyhd_pipe.stages.training.labelled import learnable
from tinyhd_pipe.stages.training.losses import teacher_loss
from tinyhd_pipe.stages.training.validation import leave_out, validation_scores
from tinyhd_pipe.stages.training.validation_sheet import validation_sheet


def teacher_train(videos: Sequence[AnnotatedVideo], recipe: TeacherRecipe, run: Run) -> Fitted:
    """Fit an HD2S of the recipe's width (1.0 is the published one) and leave its weights in the run's folder.

    `videos` are labelled clips, every k-th of which is left out for validation; those that do not decode, or have no
    map to learn from, are left out altogether, which the run is told. Raises DataError for too few videos,
    WeightsError for encoder weights that are missing or of another network, SettingError as `fit` does.
    """
    module = HD2S(width=recipe.width, seed=recipe.seed)
    start = start_from_kinetics(module.featureExtractor, recipe.encoder_weights)
    scaling = scaling_for("hd2s", recipe.size)
    there = learnable(videos)
    learned, left_out = leave_out(there.videos, recipe.validation_share)
    sampling = Sampling(outputs=1, seed=recipe.seed)
    held_out = ClipDataset(left_out, scaling=scaling, sampling=replace(sampling, flip=False))
    objective = Objective(
        module=module,
        dataset=ClipDataset(learned, scaling=scaling, sampling=sampling),
        loss_terms=_terms,
        validate=lambda network: validation_scores(
            network,
            held_out,
            clips_per_video=recipe.validation_clips,
            loss_terms=_terms,
            device=torch.device(run.device),
        ),
        picture=lambda network, path: validation_sheet(
            network, held_out, path, name="teacher", loss_terms=_terms, device=torch.device(run.device)
        ),
        parameter_groups=[{"params": list(module.parameters())}],
        facts={
            "kind": "hd2s",
            "width": recipe.width,
            "size": list(recipe.size),
            "encoder_weights_sha256": start.sha256 if start else None,
            "recipe": {**asdict(recipe), "encoder_weights": None, "licence": None},  # which are facts of their own
            "licence": combined([recipe.licence or NONE_STATED, *([start.licence] if start else ())]),
            "code": version("tinyhd-pipe"),
            "learned_from": [video.source.id for video in learned],
        },
        left_out=there.left_out,
    )
    return fit(objective, recipe, run)


def _terms(logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    return {"density": teacher_loss(logits, batch.density[:, 0])}


def adopt_teacher(weights: Path, out: Path, *, size: Size, licence: str | None = None) -> Path:
    """Take published HD2S weights instead of fitting: leave them, with their facts, as `best.safetensors` in `out`.

    Their terms are those of the file, or `licence` where their owner gives others.

    Raises WeightsError when the file is missing, unsafe or not HD2S.
    """
    read = read_weights(weights)
    module = HD2S.from_state_dict(read.state)
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "kind": "hd2s",
        "width": module.width,
        "size": list(size),
        "taken_from_sha256": read.sha256,
        "licence": licence or licence_of("hd2s", read, width=module.width),
    }
    write_weights(out / "best.safetensors", read.state, facts)
    return out / "best.safetensors"
