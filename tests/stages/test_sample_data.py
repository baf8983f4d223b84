"""The sample data are what they claim: DHF1K's layout, made from a seed, and gaze goes where motion is."""

import hashlib
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from tinyhd_pipe.stages.gaze.annotated import read_density, read_fixations
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.metrics import cc, centre_prior
from tinyhd_pipe.stages.sample_data import (
    DELAYS,
    OBJECTS,
    SampleClip,
    SampleData,
    density_maps,
    make_sample_data,
    sample_clip,
)
from tinyhd_pipe.stages.settings.sample_data import SampleOptions
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.errors import DataError, SettingError

SIZE = (64, 96)
FRAMES = 60
SEEDS = (0, 1)
LAG = round(sum(DELAYS) / 2)


@lru_cache
def clips(split: str, seed: int) -> tuple[SampleClip, ...]:
    """Clips in memory: to train on half as many as the defaults make."""
    count = {"train": 12, "heldout": 8}[split]
    return tuple(sample_clip(seed, split, index, frames=FRAMES, size=SIZE) for index in range(count))


@lru_cache
def densities(split: str, seed: int) -> tuple[NDArray[np.float64], ...]:
    return tuple(density_maps(clip.fixations, SIZE) for clip in clips(split, seed))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SampleData:
    out = tmp_path_factory.mktemp("sample") / "data"
    return make_sample_data(out, SampleOptions(train=2, heldout=1, unlabelled=1, frames=40, seed=3))


def hashes(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_one_seed_gives_the_same_bytes_twice_and_another_seed_gives_others(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("again", 5), ("other", 6)):
        make_sample_data(tmp_path / name, SampleOptions(train=1, heldout=1, unlabelled=1, frames=32, seed=seed))
    one, again, other = (hashes(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert one.keys() == other.keys()
    assert not any(one[file] == other[file] for file in one)


def test_no_two_clips_are_alike(made: SampleData) -> None:
    videos = [file for file in hashes(made.train.parent).items() if file[0].endswith(".mp4")]
    assert len(videos) == len({content for _, content in videos}) == 4


def test_the_heldout_clips_stay_when_there_are_more_to_train_on(tmp_path: Path) -> None:
    for train in (1, 2):
        make_sample_data(tmp_path / str(train), SampleOptions(train=train, heldout=1, unlabelled=0, frames=32))
    few, many = (hashes(tmp_path / str(train) / "heldout") for train in (1, 2))
    assert list(few.values()) == list(many.values())


def test_a_second_run_leaves_the_same_files(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    for _ in range(2):
        make_sample_data(
            tmp_path, SampleOptions(train=1, heldout=0, unlabelled=1, frames=32), progress=lambda *n: heard.append(n)
        )
        if len(heard) == 2:
            before = hashes(tmp_path)
    assert hashes(tmp_path) == before
    assert heard == [(1, 2), (2, 2)] * 2


def test_the_labelled_clips_are_in_the_dhf1k_layout(made: SampleData) -> None:
    train, heldout = find_annotated_videos(made.train).videos, find_annotated_videos(made.heldout).videos
    assert [video.source.id for video in train + heldout] == ["001.mp4", "002.mp4", "003.mp4"]
    assert made.clips == (2, 1, 1)
    for video in train + heldout:
        assert list(video.density_maps) == list(video.fixations) == list(range(made.frames))


def test_the_unlabelled_clips_are_videos_alone_and_no_id_occurs_twice(made: SampleData) -> None:
    assert {path.suffix for path in made.unlabelled.rglob("*")} == {".mp4"}
    ids = [source.id for source in find_videos([made.train / "video", made.heldout / "video", made.unlabelled])]
    assert ids == ["001.mp4", "002.mp4", "003.mp4", "004.mp4"]


def test_maps_are_8_bit_pictures_of_the_frames_size(made: SampleData) -> None:
    for video in find_annotated_videos(made.train).videos:
        for frame in (0, 17, 39):
            density = np.asarray(Image.open(video.folder / video.density_maps[frame]))
            fixations = np.asarray(Image.open(video.folder / video.fixations[frame]))
            assert density.shape == fixations.shape == made.size
            assert density.dtype == fixations.dtype == np.uint8
            assert density.max() == 255
            assert set(np.unique(fixations)) == {0, 255}


def test_the_files_hold_what_the_clip_is_frame_by_frame(made: SampleData) -> None:
    for index, video in enumerate(find_annotated_videos(made.train).videos):
        clip = sample_clip(3, "train", index, frames=40, size=SIZE)
        for frame, density in enumerate(density_maps(clip.fixations, SIZE)):
            read, looked_at = read_density(video, frame), read_fixations(video, frame)
            assert read is not None
            assert looked_at is not None
            assert np.abs(read - density).max() < 0.51 / 255
            assert {(y, x) for y, x in np.argwhere(looked_at)} == {(y, x) for y, x in clip.fixations[frame]}


def test_every_decoded_frame_is_the_drawn_one_and_not_its_neighbour(made: SampleData) -> None:
    for index, video in enumerate(find_annotated_videos(made.train).videos):
        clip = sample_clip(3, "train", index, frames=40, size=SIZE)
        decoded = decoded_frames(video.source)
        assert decoded.shape == clip.pictures.shape
        for frame, picture in enumerate(decoded):
            error = ((clip.pictures.astype(float) - picture) ** 2).mean(axis=(1, 2, 3))
            same = [f for f in range(40) if np.array_equal(clip.pictures[f], clip.pictures[frame])]
            assert error.argmin() in same, "while an object blinks, some frames are equal"


def test_textures_survive_the_video_coding(made: SampleData) -> None:
    clip = sample_clip(3, "heldout", 0, frames=40, size=SIZE)
    decoded = decoded_frames(find_annotated_videos(made.heldout).videos[0].source)
    error = decoded - clip.pictures.astype(float)
    assert clip.pictures.std() > 5 * error.std()
    assert clip.pictures.mean(axis=-1).std() > 10 * error.mean(axis=-1).std(), "brightness, where most of it is"


def decoded_frames(source: VideoSource) -> NDArray[np.uint8]:
    return np.stack([picture for picture in decode(source) if picture is not None])


def test_one_object_at_a_time_moves_or_blinks_and_later_it_is_another_one() -> None:
    for seed in SEEDS:
        for clip in clips("train", seed):
            changed = (np.diff(clip.centres, axis=0) != 0).any(axis=-1) | np.diff(clip.visible, axis=0)
            frame, which = np.nonzero(changed)
            switches = np.flatnonzero(np.diff(clip.mover)) + 1
            assert len(switches) >= 1
            # What a blinking object leaves is seen at the switch: it comes back as the next one starts.
            started = ~np.isin(frame + 1, switches)
            assert np.array_equal(which[started], clip.mover[frame + 1][started])
            assert np.diff([0, *switches, FRAMES]).min() >= 12


def test_even_the_shortest_clip_has_two_movers() -> None:
    shortest = [sample_clip(seed, "train", 0, frames=32, size=(32, 32)) for seed in range(20)]
    assert min(len(np.unique(clip.mover)) for clip in shortest) == 2


def test_objects_stay_in_the_frame_and_move_so_that_16_frames_show_it() -> None:
    still = 0
    for clip in clips("train", 0):
        assert clip.centres.min() > 5
        assert (np.array(SIZE) - clip.centres).min() > 5
        steps = np.linalg.norm(np.diff(clip.centres, axis=0), axis=-1)
        assert steps.max() <= 1.3 + 1e-9
        for window in range(FRAMES - 16):
            travelled = steps[window : window + 15].sum()
            blinked = (~clip.visible[window : window + 16]).any()
            still += travelled < 5 and not blinked
    assert still == 0


def test_every_object_may_be_the_mover() -> None:
    first = np.bincount([clip.mover[0] for seed in SEEDS for clip in clips("train", seed)], minlength=OBJECTS)
    assert first.min() > 0
    assert any(not clip.visible.all() for clip in clips("train", 0)), "some blink"
    assert any(clip.visible.all() for clip in clips("train", 0)), "some only move"


def map_of(points: NDArray[np.float64], sigma: float = 5.0) -> NDArray[np.float64]:
    """Equal blobs at points (object, 2)."""
    counts = np.zeros(SIZE)
    np.add.at(counts, tuple(np.rint(points).astype(int).T), 1.0)
    return np.asarray(gaussian_filter(counts, sigma, mode="constant"))


def baselines(seed: int) -> dict[str, float]:
    """Mean CC of maps made without a network on the held-out frames; only `mover` knows more than a frame."""
    scores = defaultdict(list)
    mean_map = np.mean([density.mean(axis=0) for density in densities("train", seed)], axis=0)
    for clip, truth in zip(clips("heldout", seed), densities("heldout", seed), strict=True):
        for frame in range(0, FRAMES, 3):
            then = max(frame - LAG, 0)
            objects = map_of(clip.centres[frame][clip.visible[frame]])
            maps = {
                "centre": centre_prior(SIZE),
                "mean map": mean_map,
                "still": objects,
                "still and mean map": objects / objects.max() + mean_map / mean_map.max(),
                "mover": map_of(clip.centres[then, clip.mover[then]][None]),
            }
            for name, prediction in maps.items():
                scores[name].append(cc(prediction, truth[frame]))
    return {name: float(np.mean(values)) for name, values in scores.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_only_motion_tells_where_people_look(seed: int) -> None:
    """The centre, the mean training map and all objects of a frame stay far below the mover alone."""
    score = baselines(seed)
    assert score["mover"] > 0.9
    assert score["still"] < 0.5
    assert score["still and mean map"] < 0.5
    assert score["centre"] < 0.35
    assert 0.05 < score["mean map"] < 0.35


def test_the_look_of_an_object_does_not_give_the_mover_away() -> None:
    """Drawing between pixels blurs, but all alike: the mover's rank in sharpness is chance."""
    ranks = []
    for clip in (clip for seed in SEEDS for clip in clips("train", seed)):
        for frame in range(8, FRAMES, 13):
            sharp = [sharpness(clip.pictures[frame], centre) for centre in clip.centres[frame]]
            if clip.visible[frame].all():
                ranks.append(np.argsort(np.argsort(sharp))[clip.mover[frame]])
    assert np.mean(ranks) == pytest.approx((OBJECTS - 1) / 2, abs=0.25)


def patch_at(picture: NDArray[np.uint8], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brightness of the 9x9 pixels at the centre of an object."""
    y, x = (int(at) for at in centre)
    return np.asarray(picture[y - 4 : y + 5, x - 4 : x + 5].mean(axis=-1))


def sharpness(picture: NDArray[np.uint8], centre: NDArray[np.float64]) -> float:
    patch = patch_at(picture, centre)
    return float(np.abs(np.diff(patch, n=2, axis=0)).mean() + np.abs(np.diff(patch, n=2, axis=1)).mean())


def test_objects_are_textured_so_that_motion_shows_inside_them_too() -> None:
    spread = [patch_at(clip.pictures[0], centre).std() for clip in clips("heldout", 0) for centre in clip.centres[0]]
    assert np.mean(spread) > 15


def test_gaze_follows_what_moves_with_the_delay_that_is_stated() -> None:
    distance = np.zeros(12)
    for seed in SEEDS:
        for clip, truth in zip(clips("train", seed), densities("train", seed), strict=True):
            peak = np.array([np.unravel_index(density.argmax(), SIZE) for density in truth])
            for lag in range(12):
                then = np.arange(12, FRAMES) - lag
                target = clip.centres[then, clip.mover[then]]
                distance[lag] += np.linalg.norm(peak[12:] - target, axis=-1).mean()
    assert DELAYS[0] < distance.argmin() < DELAYS[1]
    assert distance.min() / 48 < 4, "pixels from the peak to the mover then"
    assert distance[0] > 1.5 * distance.min()


def test_some_of_the_gaze_rests_near_the_middle() -> None:
    away, where = [], []
    for clip in clips("train", 0):
        then = np.arange(FRAMES) - LAG
        target = clip.centres[then, clip.mover[then]][:, None]
        far = np.linalg.norm(clip.fixations - target, axis=-1)[LAG + 3 :] > 15
        away.append(far.mean())
        where.append(clip.fixations[LAG + 3 :][far])
    assert 0.1 < np.mean(away) < 0.3
    assert np.concatenate(where).mean(axis=0) == pytest.approx(np.array(SIZE) / 2, abs=6)


def test_an_object_is_drawn_where_it_is_said_to_be() -> None:
    """What changes when an object goes away in a blink lies about its centre, to a fraction of a pixel."""
    offsets = []
    for clip in (clip for seed in SEEDS for clip in clips("train", seed)):
        for frame, index in np.argwhere(clip.visible[:-1] & ~clip.visible[1:]):
            changed = (clip.pictures[frame] != clip.pictures[frame + 1]).any(axis=-1)
            if clip.mover[frame] == clip.mover[frame + 1] == index and changed.any():
                offsets.append(np.argwhere(changed).mean(axis=0) - clip.centres[frame, index])
    assert len(offsets) > 5
    assert np.median(offsets, axis=0) == pytest.approx(0, abs=0.3)


def test_density_is_pooled_over_the_frames_around_and_not_shifted_in_time() -> None:
    fixations = np.full((20, 1, 2), 8)
    fixations[10] = (40, 60)
    density = density_maps(fixations, SIZE)
    assert [bool(frame[40, 60] > 0.2) for frame in density] == [8 <= frame <= 12 for frame in range(20)]
    assert density.max(axis=(1, 2)) == pytest.approx(1)


def test_a_larger_frame_shows_the_same_kind_of_scene() -> None:
    clip = sample_clip(0, "train", 0, frames=32, size=(128, 160))
    assert clip.pictures.shape == (32, 128, 160, 3)
    steps = np.linalg.norm(np.diff(clip.centres, axis=0), axis=-1)
    assert 1.3 < steps.max() <= 2.6 + 1e-9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames": 31}, "frames 31"),
        ({"size": (64, 31)}, "size 64x31"),
        ({"seed": -1}, "seed -1"),
        ({"train": -1}, "clips"),
        ({"train": 0, "heldout": 0, "unlabelled": 0}, "at least one"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        make_sample_data(tmp_path / "new", SampleOptions(**settings))
    assert not (tmp_path / "new").exists()


def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DataError, match="not an empty folder"):
        make_sample_data(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_sample_data_of_other_settings_is_not_mixed_with_new(made: SampleData) -> None:
    before = hashes(made.train.parent)
    with pytest.raises(DataError, match="other settings"):
        make_sample_data(made.train.parent, SampleOptions(train=2, heldout=1, unlabelled=1, frames=40, seed=4))
    assert hashes(made.train.parent) == before
