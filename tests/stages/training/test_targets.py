"""Several teachers: their maps are fused as distributions, by weight, over the stores that have the level."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import rel_entr

from tests.moving_dot import LEVELS, SIZE, dot, make_data, make_store
from tests.stages.training.test_training import RECIPE, make_annotated
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.levels import CONSPICUITY
from tinyhd_pipe.stages.networks.network import scaling_for
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.student_train import stored_videos, student_train
from tinyhd_pipe.stages.training.dataset import ClipDataset, Sampling
from tinyhd_pipe.stages.training.fitting import Run
from tinyhd_pipe.stages.training.targets import Targets, stood_for
from tinyhd_pipe.stages.video.sources import VideoSource, digest, find_videos
from tinyhd_pipe.store import Description, Level, Source, Store, create_or_open, open_store
from tinyhd_pipe.store.errors import DataError, SettingError

FRAMES = 24
Logits = NDArray[np.float32]


def store_of(
    path: Path,
    sources: list[VideoSource],
    maps: Mapping[str, float],
    *,
    every: int = 1,
    failed: tuple[int, ...] = (),
    frames: int = FRAMES,
) -> Store:
    """A store whose every map is a dot in the row that is given for its level."""
    levels = tuple(Level.at_budget(level, SIZE) for level in maps)
    temporal = replace(Description(levels=levels, teacher_grid=SIZE, teacher={}).temporal, every=every)
    description = Description(levels=levels, teacher_grid=SIZE, teacher={"kind": path.name}, temporal=temporal)
    writer = create_or_open(path, description)
    with writer.exclusive():
        for task in writer.plan([Source(source.id, digest(source), frames) for source in sources]).todo:
            with writer.shard(task) as shard:
                for member in shard.to_make:
                    with shard.video(member.id) as video:
                        video.append(
                            {
                                level: np.stack(
                                    [-5 + 8 * dot(frame, row=int(row)) for frame in range(0, frames, every)]
                                )
                                for level, row in maps.items()
                            }
                        )
                        for frame in failed:
                            video.mark_failed(frame)
                        video.finish(frames)
    return open_store(path)


@pytest.fixture(scope="module")
def stores(sources: list[VideoSource], tmp_path_factory: pytest.TempPathFactory) -> list[Store]:
    """A hierarchical teacher that looks up, and one with a single map that looks down."""
    folder = tmp_path_factory.mktemp("stores")
    whole = store_of(folder / "hierarchical", sources, dict.fromkeys(LEVELS, 8), failed=(5,))
    return [whole, store_of(folder / "single", sources[1:], {"final": 24}, every=2)]


def normalised(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    return maps / maps.sum(axis=(-2, -1), keepdims=True)


@given(first=st.floats(0.1, 10), second=st.floats(0.1, 10))
def test_fused_maps_are_the_weighted_mean_of_distributions_and_only_ratios_count(
    stores: list[Store], first: float, second: float
) -> None:
    video, frames = stores[1].videos[0], [0, 4, 8]
    fused = Targets.of(stores, (first, second)).read(video, frames, size=SIZE)
    parts = [normalised(store.read(video, frames, size=SIZE)["final"]) for store in stores]
    np.testing.assert_allclose(
        fused["final"], (first * parts[0] + second * parts[1]) / (first + second), rtol=1e-4, atol=1e-9
    )
    np.testing.assert_allclose(fused["final"].sum(axis=(-2, -1)), 1, rtol=1e-5)
    again = Targets.of(stores, (2 * first, 2 * second)).read(video, frames, size=SIZE)
    np.testing.assert_allclose(again["final"], fused["final"], rtol=1e-5)
    swapped = Targets.of(stores[::-1], (second, first)).read(video, frames, size=SIZE)
    np.testing.assert_allclose(swapped["final"], fused["final"], rtol=1e-5)


def test_a_level_that_only_some_teachers_have_is_fused_over_those(stores: list[Store]) -> None:
    video = stores[1].videos[0]
    fused = Targets.of(stores).read(video, [4], size=SIZE)
    alone = stores[0].read(video, [4], size=SIZE)
    assert set(fused) == set(LEVELS)
    np.testing.assert_allclose(fused["conspicuity_3"], normalised(alone["conspicuity_3"]), rtol=1e-5)
    assert np.abs(fused["final"] - normalised(alone["final"])).max() > 1e-3, "the other teacher has a say there"


def test_a_teacher_that_disagrees_with_the_density_map_weighs_less_by_the_formula_and_only_where_there_is_one(
    sources: list[VideoSource], tmp_path: Path
) -> None:
    annotated = make_annotated(sources)
    stores = [store_of(tmp_path / name, sources, {"final": row}) for name, row in (("good", 12), ("bad", 24))]
    fixed, confident = (Targets.of(stores, (1, 3), confidence=nats) for nats in (None, 2.0))
    density = np.stack([dot(frame, row=12) for frame in (4, 5)])
    parts = [normalised(store.read("001", [4, 5], size=SIZE)["final"]) for store in stores]
    kl = [rel_entr(normalised(density), part).sum(axis=(1, 2)).mean() for part in parts]
    good, bad = np.array([1, 3]) * np.exp(-np.array(kl) / 2)
    assert good > bad, "though its store weighs three times as much"
    fused = confident.read("001", [4, 5], size=SIZE, density=density)["final"]
    np.testing.assert_allclose(fused, (good * parts[0] + bad * parts[1]) / (good + bad), rtol=1e-3, atol=1e-9)
    for targets, truth in ((fixed, density), (confident, None), (confident, 0 * density)):
        blind = targets.read("001", [4, 5], size=SIZE, density=truth)["final"]
        np.testing.assert_allclose(blind, (parts[0] + 3 * parts[1]) / 4, rtol=1e-3, atol=1e-9)

    samples = [
        ClipDataset(
            stored_videos(targets, sources, annotated),
            scaling=scaling_for("tinyhd", SIZE),
            sampling=Sampling(outputs=1, seed=0),
            targets=targets,
        )
        for targets in (fixed, confident)
    ]
    for video, is_labelled in ((0, True), (3, False)):
        before, after = (data[0, video].maps["final"].numpy() for data in samples)
        assert (np.abs(before - after).max() > 1e-3) == is_labelled


def test_one_store_gives_its_maps_as_they_are(stores: list[Store]) -> None:
    video = stores[0].videos[0]
    for level, maps in Targets.of(stores[:1]).read(video, [0, 3], size=SIZE).items():
        np.testing.assert_array_equal(maps, stores[0].read(video, [0, 3], size=SIZE)[level])


def test_a_sample_has_only_frames_and_videos_that_every_store_has(
    stores: list[Store], sources: list[VideoSource]
) -> None:
    targets = Targets.of(stores)
    assert targets.every == 2
    assert targets.videos == stores[1].videos == [source.id for source in sources[1:]]
    assert targets.video(targets.videos[0]).failed == (5,)
    learned = stored_videos(targets, sources, [])
    assert [video.source.id for video in learned] == targets.videos
    data = ClipDataset(
        learned, scaling=scaling_for("tinyhd", SIZE), sampling=Sampling(outputs=16, seed=0), targets=targets
    )
    for epoch in range(3):
        batch = data[epoch, 0]
        assert batch.maps["final"].shape[1] == 8, "every second frame of 16"
        assert np.isfinite(batch.maps["final"].numpy()).all()


def test_the_final_map_stands_in_for_conspicuity_only_where_it_is_asked_to(stores: list[Store]) -> None:
    single, video = stores[1:], stores[1].videos[0]
    assert Targets.of(single).lacking(("d1", "d2")) == [
        "conspicuity_2",
        "conspicuity_3",
        "conspicuity_4",
        "conspicuity_5",
        "d2",
    ]
    stands_in = Targets.of(single, stood_for=CONSPICUITY)
    maps = stands_in.read(video, [2], size=SIZE)
    assert stands_in.lacking(("d1", "d2")) == ["d2"]
    np.testing.assert_array_equal(maps["conspicuity_4"], maps["final"])
    assert Targets.of(stores, stood_for=CONSPICUITY).read(video, [2], size=SIZE)["conspicuity_4"] is not None
    both = Targets.of(stores, stood_for=CONSPICUITY).read(video, [2], size=SIZE)
    assert np.abs(both["conspicuity_4"] - both["final"]).max() > 1e-3, "a teacher has conspicuity maps"


def test_the_final_map_stands_in_for_decoders_that_no_teacher_has_maps_of(
    stores: list[Store], sources: list[VideoSource], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, missing_decoders="final")
    levels = {"final": 4, "conspicuity_2": 8, "d2": 6}

    def read(*kept: str) -> dict[str, NDArray[np.float32]]:
        store = store_of(tmp_path / "-".join(kept), sources, {level: levels[level] for level in kept})
        targets = Targets.of([store], stood_for=stood_for(recipe))
        assert targets.lacking(("d2", "d3")) == []
        return targets.read(store.videos[0], [2], size=SIZE)

    maps = read("final", "conspicuity_2")
    np.testing.assert_array_equal(maps["d2"], maps["final"])
    assert np.abs(maps["conspicuity_2"] - maps["final"]).max() > 1e-3, "D1's maps have targets of their own"
    maps = read("final", "d2")
    np.testing.assert_array_equal(maps["d3"], maps["final"])
    assert np.abs(maps["d2"] - maps["final"]).max() > 1e-3, "and D2's here"


def test_a_student_of_two_teachers_learns_and_says_whose_it_is(
    stores: list[Store], sources: list[VideoSource], tmp_path: Path
) -> None:
    fitted = student_train(Targets.of(stores, (3, 1)), sources, [], replace(RECIPE, epochs=1), Run(tmp_path))
    assert {"final", "conspicuity_2"} <= fitted.history[0].loss.keys()
    facts = read_weights(fitted.best).facts
    assert facts["teacher"] == {"fused": [{"kind": "hierarchical"}, {"kind": "single"}]}
    assert facts["store_weights"] == [3, 1]
    with pytest.raises(SettingError, match=r"other settings: .*store_weights"):
        student_train(Targets.of(stores, (1, 1)), sources, [], replace(RECIPE, epochs=1), Run(tmp_path, resume=True))


def test_stores_that_cannot_be_fused_are_refused_in_one_line(
    stores: list[Store], sources: list[VideoSource], tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="store_weights: 1 for 2 stores"):
        Targets.of(stores, (1,))
    with pytest.raises(DataError, match=r"has no final maps, only d2"):
        Targets.of([store_of(tmp_path / "d2", sources, {"d2": 8})])
    make_data(tmp_path / "others", videos=2, frames=FRAMES, labelled=1)
    others = find_videos([tmp_path / "others/video"])
    (others[0].path / "0001.png").write_bytes((others[0].path / "0002.png").read_bytes())
    targets = Targets.of([stores[0], make_store(tmp_path / "changed", others)])
    with pytest.raises(DataError, match=r"001: .* saw different videos of that name"):
        targets.video("001")


def test_the_command_fuses_the_stores_that_it_is_given_and_says_what_has_no_target(
    stores: list[Store], sources: list[VideoSource], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = str(sources[0].path.parent)
    small = ["size=[32,64]", "epochs=1", "reduction=4", "validation_share=0.5", "validation_clips=1"]
    sets = ["--set", *(f"student_train.{setting}" for setting in small)]
    fused = ["student-train", "--videos", videos, "--store", *(store.url for store in stores)]
    assert run([*fused, "--out", str(tmp_path / "fused"), *sets, "student_train.store_weights=[3,1]"]) == 0
    said = capsys.readouterr().err
    assert "targets: 3 videos that all of 2 stores hold, fused: " in said
    assert "(75%)" in said
    assert "no target" not in said
    single = ["student-train", "--videos", videos, "--store", stores[1].url]
    assert run([*single, "--out", str(tmp_path / "single"), *sets]) == 0
    assert (
        f"no target for conspicuity_2, conspicuity_3, conspicuity_4, conspicuity_5: {stores[1].url} has final"
        in " ".join(capsys.readouterr().err.split())
    )
    standing = "student_train.missing_conspicuity=final"
    assert run([*single, "--out", str(tmp_path / "stands in"), *sets, standing]) == 0
    assert "no target" not in capsys.readouterr().err


def test_an_assistants_store_that_lacks_maps_of_its_decoders_is_said_so(
    sources: list[VideoSource], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "tinyhd", sources, dict.fromkeys((*LEVELS, "d2"), 8))
    arguments = ["student-train", "--videos", str(sources[0].path.parent), "--out", str(tmp_path / "run")]
    size = ["--set", "student_train.size=[32,64]", "student_train.validation_share=0.5", "student_train.epochs=1"]
    assert run([*arguments, "--store", store.url, *size, "student_train.reduction=4"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"no target for d3: {store.url} has conspicuity_2" in said
    assert "no target for conspicuity" not in said
    (epoch,) = (tmp_path / "run" / "history.jsonl").read_text().splitlines()
    assert {"d2", "final"} <= json.loads(epoch)["loss"].keys()
    assert "d3" not in json.loads(epoch)["loss"]


def test_settings_are_taken_from_the_group_that_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["student-train", "--store", "none", "--videos", "none", "--out", str(tmp_path)]
    assert run([*arguments, "--settings", "teacher_train"]) == 2
    assert "--settings teacher_train: expected assistant_train or student_train" in capsys.readouterr().err
