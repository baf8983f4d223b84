"""Training: frames and maps are of the same instant, and a run that is killed ends as one that was not."""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.moving_dot import SIZE, column_of, make_data, make_store
from tinyhd_pipe.stages.networks.network import scaling_for
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.settings.training import StudentRecipe, TeacherRecipe
from tinyhd_pipe.stages.student_train import stored_videos, student_train
from tinyhd_pipe.stages.teacher_train import teacher_train
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Sampling, TrainingVideo
from tinyhd_pipe.stages.training.fitting import Fitted, Run
from tinyhd_pipe.stages.training.history import EpochReport, StepReport
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import Store
from tinyhd_pipe.store.errors import DataError, SettingError

RECIPE = StudentRecipe(
    size=SIZE,
    epochs=4,
    milestones=(2,),
    seed=3,
    decoders=("d1", "d2"),
    reduction=4,
    validation_share=0.5,
    validation_clips=1,
)


def _samples(store: Store, sources: list[VideoSource], sampling: Sampling) -> list[Batch]:
    data = ClipDataset(
        stored_videos(Targets.of([store]), sources, []),
        scaling=scaling_for("tinyhd", SIZE),
        sampling=sampling,
        targets=Targets.of([store]),
    )
    return [data[epoch, index] for epoch in range(4) for index in range(len(sources))]


def _slips(samples: list[Batch]) -> set[int]:
    """By how many pixels the dot of a map is away from the dot of its frame."""
    slips = set()
    for sample in samples:
        shown = sample.clip[0, 0, sample.outputs] if len(sample.outputs) > 1 else sample.clip[0, 0, -1:]
        for picture, saliency in zip(shown, sample.maps["conspicuity_4"][0], strict=True):
            slips.add(column_of(saliency.numpy()) - column_of(picture.numpy()))
    return slips


@pytest.mark.parametrize("outputs", [1, 16])
def test_a_map_shows_the_dot_where_its_frame_shows_it(store: Store, sources: list[VideoSource], outputs: int) -> None:
    samples = _samples(store, sources, Sampling(outputs=outputs, seed=1))
    assert _slips(samples) == {0}
    columns = [column_of(sample.maps["final"][0, -1].numpy()) for sample in samples]
    assert len(set(columns)) > 4, "the clips must differ for this to mean anything"


def test_a_store_that_is_one_frame_late_is_noticed(sources: list[VideoSource], tmp_path: Path) -> None:
    late = make_store(tmp_path / "late.zarr", sources, slip=1)
    assert _slips(_samples(late, sources, Sampling(outputs=1, seed=1, flip=False))) == {-2}


def test_the_published_lag_is_an_option_and_is_one_frame(store: Store, sources: list[VideoSource]) -> None:
    assert _slips(_samples(store, sources, Sampling(outputs=16, seed=1, target_lag=1, flip=False))) <= {-2, 0}
    assert -2 in _slips(_samples(store, sources, Sampling(outputs=16, seed=1, target_lag=1, flip=False)))


def test_half_of_the_samples_are_mirrored_and_frames_with_their_maps(store: Store, sources: list[VideoSource]) -> None:
    plain = _samples(store, sources, Sampling(outputs=1, seed=5, flip=False))
    mixed = _samples(store, sources, Sampling(outputs=1, seed=5, flip=True))
    mirrored = [not torch.equal(a.clip, b.clip) for a, b in zip(plain, mixed, strict=True)]
    assert 0 < sum(mirrored) < len(mirrored)
    for before, after, turned in zip(plain, mixed, mirrored, strict=True):
        for left, right in ((before.clip, after.clip), (before.maps["final"], after.maps["final"])):
            assert torch.equal(left.flip(-1) if turned else left, right)


def test_samples_are_a_function_of_seed_epoch_and_index(store: Store, sources: list[VideoSource]) -> None:
    once = _samples(store, sources, Sampling(outputs=1, seed=7))
    again = _samples(store, sources, Sampling(outputs=1, seed=7))
    other = _samples(store, sources, Sampling(outputs=1, seed=8))
    assert all(torch.equal(a.clip, b.clip) for a, b in zip(once, again, strict=True))
    assert not all(torch.equal(a.clip, b.clip) for a, b in zip(once, other, strict=True))


def test_an_epoch_takes_labelled_clips_once_and_unlabelled_ones_in_proportion(
    store: Store, sources: list[VideoSource]
) -> None:
    annotated = make_annotated(sources)
    videos = stored_videos(Targets.of([store]), sources, annotated)
    data = ClipDataset(
        videos,
        scaling=scaling_for("tinyhd", SIZE),
        sampling=Sampling(outputs=1, seed=0, unlabelled_per_labelled=0.5),
        targets=Targets.of([store]),
    )
    for epoch in range(3):
        positions = [index % len(videos) for _, index in data.epoch_keys(epoch, clips_per_video=2)]
        labelled = [place for place in positions if videos[place].annotation is not None]
        assert sorted(labelled) == [0, 0, 1, 1]
        assert len(positions) - len(labelled) == 2
        assert len(set(data.epoch_keys(epoch, 2))) == len(positions)


def make_annotated(sources: list[VideoSource]) -> list:
    from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos

    return find_annotated_videos(sources[0].path.parents[1]).videos


def _train(store: Store, sources: list[VideoSource], out: Path, recipe: StudentRecipe = RECIPE, **run: Any) -> Fitted:
    return student_train(Targets.of([store]), sources, make_annotated(sources), recipe, Run(out, **run))


class _KilledError(Exception):
    pass


def test_a_run_that_is_killed_and_resumed_ends_with_the_same_weights(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    whole = _train(store, sources, tmp_path / "whole")

    def kill(step: StepReport) -> None:
        if step.done == step.total - 2:
            raise _KilledError

    with pytest.raises(_KilledError):
        _train(store, sources, tmp_path / "killed", step_done=kill)
    resumed = _train(store, sources, tmp_path / "killed", resume=True)
    assert resumed.history == whole.history
    for name in ("best.safetensors", "last.safetensors", "history.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    first = read_weights(tmp_path / "whole" / "last.safetensors").state
    other = _train(store, sources, tmp_path / "other", replace(RECIPE, seed=4))
    assert other.history != whole.history, "another seed must be another run"
    assert first


def test_a_run_is_not_written_over_unless_that_is_asked_for(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    short = replace(RECIPE, epochs=1, milestones=())
    _train(store, sources, tmp_path, short)
    with pytest.raises(SettingError, match="--resume goes on with it"):
        _train(store, sources, tmp_path, short)
    with pytest.raises(SettingError, match=r"other settings: recipe.learning_rate = 0.01, not 0.02"):
        _train(store, sources, tmp_path, replace(short, learning_rate=0.02), resume=True)
    before = (tmp_path / "last.safetensors").read_bytes()
    _train(store, sources, tmp_path, replace(short, learning_rate=0.02), resume=True, overwrite=True)
    assert (tmp_path / "last.safetensors").read_bytes() != before


def test_a_run_that_has_ended_begins_again_where_both_are_asked_for_because_its_data_or_code_have_changed(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    short = replace(RECIPE, epochs=2, milestones=())
    steps: list[int] = []

    def run(**options: object) -> list[int]:
        steps.clear()
        _train(store, sources, tmp_path, short, step_done=lambda step: steps.append(step.done), **options)
        return list(steps)

    whole = run()
    assert whole[0] == 1
    assert run(resume=True) == [], "there is nothing left to do"
    assert run(resume=True, overwrite=True) == whole
    with pytest.raises(_KilledError):
        _train(store, sources, tmp_path, short, overwrite=True, step_done=_kill_after(len(whole) // 2))
    assert run(resume=True, overwrite=True) == whole[len(whole) // 2 :], "one that was killed goes on"


def _kill_after(done: int) -> Callable[[StepReport], None]:
    def kill(step: StepReport) -> None:
        if step.done > done:
            raise _KilledError

    return kill


def test_the_history_is_a_table_of_every_term_with_nothing_where_an_epoch_was_not_validated(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    fitted = _train(store, sources, tmp_path, replace(RECIPE, epochs=3, milestones=(), validate_every=2))
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["validation_final"] == "" for row in rows] == [True, False, False], "the last one always is"
    for row, epoch in zip(rows, fitted.history, strict=True):
        assert float(row["learning_rate"]) == epoch.learning_rate
        assert {name: float(row[f"loss_{name}"]) for name in epoch.loss} == epoch.loss
        assert float(row["loss"]) == pytest.approx(sum(epoch.loss.values()))
        assert {name: float(row[f"validation_{name}"]) for name in epoch.validation or ()} == (epoch.validation or {})
    assert not list(tmp_path.glob("*.partial"))


def test_the_student_learns_the_dot_on_a_video_left_out(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    recipe = replace(
        RECIPE, epochs=8, clips_per_video=4, optimiser="adamw", learning_rate=3e-3, schedule="cosine", milestones=()
    )
    history = _train(store, sources, tmp_path, recipe).history
    scores = [epoch.validation["final"] for epoch in history if epoch.validation]
    assert scores[-1] < 0.7 * scores[0]


def test_the_rate_falls_and_the_best_weights_return_at_a_milestone(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    history = _train(store, sources, tmp_path).history
    assert [round(epoch.learning_rate / 0.005, 6) for epoch in history] == [1, 1, 0.1, 0.1]


def test_mixed_precision_on_a_cpu_is_refused_before_it_can_crash(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="GPU"):
        _train(store, sources, tmp_path, replace(RECIPE, mixed_precision=True))


def test_a_changed_video_is_not_matched_with_old_maps(tmp_path: Path) -> None:
    make_data(tmp_path, videos=2)
    sources = find_videos([tmp_path / "video"])
    store = make_store(tmp_path / "maps.zarr", sources)
    (sources[0].path / "0001.png").write_bytes((sources[0].path / "0002.png").read_bytes())
    with pytest.raises(DataError, match="run teacher-dump again"):
        _samples(store, sources[:1], Sampling(outputs=1, seed=0))
    assert _samples(store, sources[1:], Sampling(outputs=1, seed=0)), "the other one is as it was"


def test_the_weights_file_tells_topology_teacher_and_recipe(
    store: Store, sources: list[VideoSource], tmp_path: Path
) -> None:
    fitted = _train(store, sources, tmp_path, replace(RECIPE, epochs=1, milestones=()))
    facts = read_weights(fitted.best).facts
    assert facts["teacher"] == {"kind": "dots"}
    assert facts["decoders"] == ["d1", "d2"]
    assert facts["recipe"]["learning_rate"] == 0.01
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [EpochReport(**json.loads(line)) for line in lines] == list(fitted.history)


def test_a_reduced_teacher_learns_from_density_maps(sources: list[VideoSource], tmp_path: Path) -> None:
    recipe = TeacherRecipe(
        width=0.125,
        size=SIZE,
        epochs=6,
        clips_per_video=4,
        batch=2,
        accumulate=1,
        optimiser="adamw",
        learning_rate=3e-3,
        milestones=(),
        validation_share=0.5,
        validation_clips=1,
        seed=3,
    )
    losses: list[Mapping[str, float]] = []
    run = Run(tmp_path, epoch_done=lambda epoch: losses.append(epoch.loss))
    teacher_train(make_annotated(sources), recipe, run)
    assert losses[-1]["density"] < losses[0]["density"] - 1, "nats, summed over five maps"


def test_frames_without_a_density_map_are_not_learned_by_a_teacher(tmp_path: Path) -> None:
    from tinyhd_pipe.stages.training.labelled import learnable

    (annotated,) = make_data(tmp_path, videos=2, labelled=1)
    (annotated.folder / "maps" / "0020.png").unlink()
    fewer = {frame: file for frame, file in annotated.density_maps.items() if frame != 19}
    video: TrainingVideo = learnable([replace(annotated, density_maps=fewer)]).videos[0]
    assert video.usable is not None
    assert np.flatnonzero(~video.usable).tolist() == [19]
