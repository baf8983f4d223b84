"""A teacher of one's own: by the published recipe from Kinetics-400 weights, and through the students' own loop."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.moving_dot import SIZE, make_data
from tests.public_s3d import PublicS3D
from tinyhd_pipe.stages import teacher_train as verb
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.settings.training import TeacherRecipe
from tinyhd_pipe.stages.training.fitting import Objective, Run
from tinyhd_pipe.stages.training.history import StepReport
from tinyhd_pipe.store.errors import SettingError

SMALL = TeacherRecipe(
    width=0.0625, size=SIZE, epochs=2, batch=1, accumulate=2, milestones=(), validation_share=0.5, validation_clips=1
)


class _KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[AnnotatedVideo]:
    return list(make_data(tmp_path_factory.mktemp("data"), videos=3, labelled=3))


def test_the_defaults_are_the_published_recipe() -> None:
    recipe = TeacherRecipe()
    assert (recipe.width, recipe.optimiser, recipe.learning_rate, recipe.weight_decay) == (1.0, "adam", 1e-3, 2e-7)
    assert recipe.batch * recipe.accumulate == 16
    assert round(600 * recipe.validation_share) == 60, "540 videos are learned from"


def test_the_encoder_begins_with_the_kinetics_weights_and_the_file_says_so(
    videos: list[AnnotatedVideo], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(PublicS3D(seed=1).file(prefix="module."), tmp_path / "s3d.pt")
    begun: list[Objective] = []
    monkeypatch.setattr(verb, "fit", lambda objective, recipe, run: begun.append(objective))
    recipe = TeacherRecipe(size=SIZE, encoder_weights=tmp_path / "s3d.pt", licence="CC0-1.0")
    verb.teacher_train(videos, recipe, Run(tmp_path / "out"))
    (objective,) = begun
    public, ours, plain = PublicS3D(seed=1).file(), objective.module.state_dict(), HD2S().state_dict()
    inception = "branch1.1.conv_t.weight"
    assert torch.equal(ours[f"featureExtractor.block4.2.{inception}"], public[f"base.10.{inception}"])
    assert all(torch.equal(ours[name], plain[name]) for name in plain if not name.startswith("featureExtractor."))
    assert objective.facts["encoder_weights_sha256"] == read_weights(tmp_path / "s3d.pt").sha256
    assert objective.facts["licence"].startswith("CC0-1.0 + MIT (public S3D weights")
    assert str(tmp_path) not in str(objective.facts), "it is known by its digest, wherever it lies"


def test_a_teacher_that_is_killed_goes_on_as_a_student_does(videos: list[AnnotatedVideo], tmp_path: Path) -> None:
    def train(out: str, recipe: TeacherRecipe = SMALL, **run: Any) -> None:
        verb.teacher_train(videos, recipe, Run(tmp_path / out, checkpoint_minutes=0, **run))

    def kill(step: StepReport) -> None:
        if step.done == step.total - 1:
            raise _KilledError

    train("whole")
    with pytest.raises(_KilledError):
        train("killed", step_done=kill)
    train("killed", resume=True)
    names = ("best.safetensors", "last.safetensors", "history.csv", "validation.png")
    assert all((tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes() for name in names)
    with pytest.raises(SettingError, match=r'other settings: licence = "none stated", not "MIT"'):
        train("whole", replace(SMALL, licence="MIT"), resume=True)
