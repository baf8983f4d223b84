"""What a run shows of itself: pictures of clips left out, and a log for TensorBoard that a resumed run goes on with."""

import io
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tests.moving_dot import SIZE, column_of, make_store
from tests.stages.training.test_resuming import SHORT
from tests.stages.training.test_training import _train, make_annotated
from tinyhd_pipe.stages.networks.network import scaling_for
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.student_train import _terms, stored_videos
from tinyhd_pipe.stages.training import fitting, validation_sheet
from tinyhd_pipe.stages.training.dataset import ClipDataset, Sampling
from tinyhd_pipe.stages.training.history import EpochReport, StepReport
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.training.tensorboard import Log
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import Store
from tinyhd_pipe.store.errors import SettingError

PICTURED = replace(SHORT, validate_every=1, picture_every=1)


class _SeesTheDot(torch.nn.Module):
    """Answers with the picture itself: of the last frame, or of every frame."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self._outputs = outputs

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        return {"final": clip[:, 0, -1] if self._outputs == 1 else clip[:, 0]}


def _columns(store: Store, sources: list[VideoSource], outputs: int, tmp_path: Path) -> list[dict[str, int]]:
    """Where the dot is in the panels of every row, in pixels."""
    targets = Targets.of([store])
    data = ClipDataset(
        stored_videos(targets, sources, make_annotated(sources)),
        scaling=scaling_for("tinyhd", SIZE),
        sampling=Sampling(outputs=outputs, seed=1, flip=False),
        targets=targets,
    )
    terms = partial(_terms, conspicuity_weight=1.0)
    drawn: list[tuple[str, dict[str, NDArray[np.uint8]]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation_sheet, "sheet", lambda rows, path: drawn.extend(rows))
        validation_sheet.validation_sheet(
            _SeesTheDot(outputs), data, tmp_path, name="student", loss_terms=terms, device=torch.device("cpu")
        )
    assert len(drawn) == len(sources)
    return [
        {title: column_of(panel.sum(axis=-1, dtype=int)) for title, panel in panels.items() if panel.max() > 4}
        for _, panels in drawn
    ]


@pytest.mark.parametrize("outputs", [1, 16])
def test_the_panels_of_a_picture_are_of_the_same_instant(
    store: Store, sources: list[VideoSource], tmp_path: Path, outputs: int
) -> None:
    rows = _columns(store, sources, outputs, tmp_path)
    assert [set(row) for row in rows] == [{"frame", "truth", "teacher", "student"}] * 2 + [
        {"frame", "teacher", "student"}  # a black panel where nothing is known
    ] * 2
    assert [len(set(row.values())) for row in rows] == [1] * 4
    late = _columns(make_store(tmp_path / "late.zarr", sources, slip=1), sources, outputs, tmp_path)
    assert {row["frame"] - row["teacher"] for row in late} == {2}


def test_pictures_change_nothing_but_the_picture(store: Store, sources: list[VideoSource], tmp_path: Path) -> None:
    drawn = _train(store, sources, tmp_path / "drawn", PICTURED)
    plain = _train(store, sources, tmp_path / "plain", replace(PICTURED, picture_every=None))
    assert drawn.history == plain.history
    for name in ("best.safetensors", "last.safetensors"):
        one, other = (read_weights(tmp_path / run / name).state for run in ("drawn", "plain"))
        assert all(torch.equal(one[key], other[key]) for key in other | one)
    assert (tmp_path / "drawn/validation.png").exists()
    assert not (tmp_path / "plain/validation.png").exists()


def test_a_picture_is_drawn_every_so_many_epochs_and_of_the_last(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    drawn: list[int] = []

    def noted(epoch: EpochReport) -> None:
        if (tmp_path / "validation.png").exists():
            drawn.append(epoch.epoch + 1)
            (tmp_path / "validation.png").unlink()

    _train(store, sources, tmp_path, replace(SHORT, epochs=5, picture_every=2, clips_per_video=1), epoch_done=noted)
    assert drawn == [2, 4, 5]


def _logged(run: Path) -> EventAccumulator:
    return EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    log = _logged(run)
    return {tag: [(event.step, event.value) for event in log.Scalars(tag)] for tag in log.Tags()["scalars"]}


def test_a_log_tells_every_term_and_a_run_that_was_killed_goes_on_in_it_with_no_step_twice_and_none_missing(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    steps: list[StepReport] = []

    def copied(step: StepReport) -> None:
        """Leave what SIGKILL would: the checkpoint of step 2, and a log that has just that, or more steps already."""
        steps.append(step)
        if step.done == 3:
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")
            shutil.copytree(tmp_path / "whole", tmp_path / "killed late")
        if step.done == 6:
            shutil.copytree(tmp_path / "whole/tensorboard", tmp_path / "killed late/tensorboard", dirs_exist_ok=True)

    several = {"tensorboard": True, "checkpoint_minutes": 0}
    recipe = replace(PICTURED, clips_per_video=4)
    fitted = _train(store, sources, tmp_path / "whole", recipe, step_done=copied, **several)
    whole = _scalars(tmp_path / "whole")
    for name in steps[0].loss:
        told = [(step.done, pytest.approx(step.loss[name])) for step in steps if name in step.loss]
        assert whole[f"loss/{name}"] == told
        assert len(whole[f"epoch_loss/{name}"]) == recipe.epochs
    assert whole["learning_rate"] == [(step.done, pytest.approx(step.learning_rate)) for step in steps]
    assert [step for step, _ in whole["samples_a_second"]] == [step.done for step in steps]
    ends = [step.done for step in steps if step.of_epoch == step.steps_per_epoch]
    assert whole["validation/final"] == [
        (step, pytest.approx(epoch.validation["final"]))
        for step, epoch in zip(ends, fitted.history, strict=True)
        if epoch.validation
    ]

    for name in ("killed", "killed late"):
        _train(store, sources, tmp_path / name, recipe, resume=True, **several)
        killed = _scalars(tmp_path / name)
        assert [step for step, _ in killed.pop("samples_a_second")] == [step.done for step in steps]
        assert killed == {tag: values for tag, values in whole.items() if tag != "samples_a_second"}, name


def test_the_log_is_written_out_before_every_checkpoint(
    store: Store, sources: list[VideoSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    flush, save = Log.flush, fitting.save

    def noted_flush(log: Log) -> None:
        flush(log)
        done.append("log")

    def noted_save(*arguments: Any) -> None:
        done.append("checkpoint")
        save(*arguments)

    monkeypatch.setattr(Log, "flush", noted_flush)
    monkeypatch.setattr(fitting, "save", noted_save)
    _train(store, sources, tmp_path, SHORT, tensorboard=True, checkpoint_minutes=0)
    assert done == ["log", "checkpoint"] * (len(done) // 2)
    assert len(done) > 2 * SHORT.epochs, "in the middle of epochs, too"


def test_the_log_has_the_picture_of_every_time_and_the_folder_the_newest(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    _train(store, sources, tmp_path, PICTURED, tensorboard=True)
    pictures = _logged(tmp_path).Images("validation")
    assert len(pictures) == PICTURED.epochs
    newest = np.asarray(Image.open(tmp_path / "validation.png"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pictures[-1].encoded_image_string))), newest)
    assert not np.array_equal(np.asarray(Image.open(io.BytesIO(pictures[0].encoded_image_string))), newest)


def test_a_log_without_tensorboard_installed_is_one_line_before_the_first_step(
    store: Store, sources: list[VideoSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SettingError, match=r"pip install 'tinyhd-pipe\[tensorboard\]'"):
        _train(store, sources, tmp_path, SHORT, tensorboard=True)
    assert not list(tmp_path.rglob("*.safetensors"))
