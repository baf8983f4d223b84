"""What a student learns from: which samples are drawn, with which targets, of videos however short."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.moving_dot import SIZE, STEP, column_of, make_data, make_store
from tests.stages.training.test_targets import store_of
from tests.stages.training.test_training import RECIPE, make_annotated
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.network import scaling_for
from tinyhd_pipe.stages.student_train import stored_videos, student_train
from tinyhd_pipe.stages.training.dataset import Batch, ClipDataset, Sampling
from tinyhd_pipe.stages.training.fitting import Objective, Run
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store import Store
from tinyhd_pipe.store.errors import DataError, SettingError

SHORT = replace(RECIPE, epochs=1, milestones=())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch, store: Store, sources: list[VideoSource], tmp_path: Path) -> Any:
    """The samples of an epoch, and the loss terms of one of them, as a recipe has them; nothing is fitted."""

    def samples(targets: Targets | None = None, **settings: Any) -> tuple[list[Batch], Mapping[str, Any]]:
        objectives: list[Objective] = []
        monkeypatch.setattr("tinyhd_pipe.stages.student_train.fit", lambda objective, *_: objectives.append(objective))
        recipe = replace(SHORT, validation_share=0.25, **settings)
        student_train(targets, sources, make_annotated(sources), recipe, Run(tmp_path))
        (objective,) = objectives
        batches = [objective.dataset[key] for key in objective.dataset.epoch_keys(0, 2)]
        return batches, objective.loss_terms(objective.module(batches[0].clip), batches[0])

    return samples


def test_maps_alone_use_no_label_even_where_there_are_some(drawn: Any, store: Store) -> None:
    batches, terms = drawn(Targets.of([store]), learn_from="maps")
    assert len(batches) == 6, "twice each of the videos that are not left out"
    assert not any(batch.labelled.any() for batch in batches)
    assert all(batch.maps for batch in batches)
    assert "density" not in terms
    assert "final" in terms


@pytest.mark.parametrize("with_store", [False, True])
def test_labels_alone_use_no_map_and_no_video_without_labels(drawn: Any, store: Store, with_store: bool) -> None:
    batches, terms = drawn(Targets.of([store]) if with_store else None, learn_from="labels")
    assert len(batches) == 2, "of two labelled videos one is left out"
    assert all(batch.labelled.all() for batch in batches)
    assert not any(batch.maps for batch in batches)
    assert terms.keys() == {"density"}


@pytest.mark.parametrize(("ratio", "unlabelled"), [(0.0, 0), (1.0, 2), (3.0, 6)])
def test_both_mix_unlabelled_clips_by_ratio(drawn: Any, store: Store, ratio: float, unlabelled: int) -> None:
    batches, _ = drawn(Targets.of([store]), unlabelled_per_labelled=ratio)
    assert [sum(bool(batch.labelled.all()) is is_labelled for batch in batches) for is_labelled in (True, False)] == [
        2,
        unlabelled,
    ]
    assert all(batch.maps for batch in batches)


def test_without_a_store_a_student_learns_from_labels_and_says_so(
    sources: list[VideoSource], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = sources[0].path.parent
    command = ["student-train", "--videos", str(videos), "--out", str(tmp_path)]
    small = ["size=[32,64]", "epochs=1", "reduction=4", "validation_share=0.5", "validation_clips=1"]
    sets = ["--set", *(f"student_train.{setting}" for setting in small)]
    labels = ["--labels", str(videos.parent)]
    assert run([*command, *labels, *sets]) == 0
    assert f"targets: density maps of {videos.parent} alone, no teacher's" in " ".join(capsys.readouterr().err.split())
    (epoch,) = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(epoch)["loss"].keys() == {"density"}
    for wrong, said in (
        ([*command, *sets], "nothing to learn from: add --store URL, --online, or --labels DIR"),
        ([*command, *labels, *sets, "student_train.learn_from=maps"], "learn_from: maps, and none are given"),
        ([*command, "--store", "s", *sets, "student_train.learn_from=labels"], "learn_from: labels, and none are"),
    ):
        assert run(wrong) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    with pytest.raises(DataError, match="none of the 4 videos given is labelled"):
        student_train(None, sources, [], SHORT, Run(tmp_path))
    with pytest.raises(SettingError, match="learn_from: maps"):
        student_train(None, sources, [], replace(SHORT, learn_from="maps"), Run(tmp_path))


@pytest.mark.parametrize("outputs", [1, 16])
@pytest.mark.parametrize("frames", [1, 10])
def test_a_video_shorter_than_a_clip_is_learned_from_with_frame_0_repeated_before_it(
    tmp_path: Path, frames: int, outputs: int
) -> None:
    annotated = make_data(tmp_path, videos=2, frames=frames)
    sources = find_videos([tmp_path / "video"])
    targets = Targets.of([make_store(tmp_path / "maps.zarr", sources, frames=frames)])
    recipe = replace(SHORT, outputs=outputs)
    data = ClipDataset(
        stored_videos(targets, sources, annotated),
        scaling=scaling_for("tinyhd", SIZE),
        sampling=Sampling(outputs=outputs, seed=0, flip=False),
        targets=targets,
    )
    ends = set()
    for epoch in range(12):
        batch = data[epoch, 0]
        shown = [(column_of(picture.numpy()) - 2) // STEP for picture in batch.clip[0, 0]]
        ends.add(shown[-1])
        assert shown == [max(shown[-1] - behind, 0) for behind in range(15, -1, -1)]
        met = [shown[output] for output in batch.outputs] if outputs > 1 else shown[-1:]
        for maps in (*batch.maps.values(), batch.density):
            assert [(column_of(one.numpy()) - 2) // STEP for one in maps[0]] == met
    assert ends == {frames - 1} if outputs > 1 or frames == 1 else len(ends) > 3, "M: the clip with the least padding"
    fitted = student_train(targets, sources, annotated, recipe, Run(tmp_path / "run"))
    assert np.isfinite(list(fitted.history[0].loss.values())).all()


def test_a_short_video_whose_only_clip_lacks_a_map_is_left_out_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path, videos=3, frames=10)
    shorts = find_videos([tmp_path / "video"])
    broken = Targets.of([store_of(tmp_path / "maps.zarr", shorts, {"final": 8}, failed=(0,), frames=10)])
    with pytest.raises(DataError, match="none of 3 videos has a clip with all its targets"):
        student_train(broken, shorts, [], replace(SHORT, outputs=16), Run(tmp_path / "m"))
    objectives: list[Objective] = []
    monkeypatch.setattr("tinyhd_pipe.stages.student_train.fit", lambda objective, *_: objectives.append(objective))
    student_train(broken, shorts, [], SHORT, Run(tmp_path / "s"))
    targets = {int(column_of(objectives[0].dataset[epoch, 0].maps["final"][0, 0].numpy())) for epoch in range(20)}
    assert 2 not in targets, "an S student takes the other frames"
