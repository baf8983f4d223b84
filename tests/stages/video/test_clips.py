"""Which frames feed which map: stated as properties over every length and step that can matter."""

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyhd_pipe.stages.video.clips import WINDOW, Clip, sliding_windows, student_window, teacher_window, training_clip
from tinyhd_pipe.store.errors import DataError

lengths = st.integers(1, 80)
steps = st.integers(1, 20)


class Picture:
    """A frame that a weak reference can watch."""


def clip_of(frames: int, outputs: int, seed: int, *, every: int = 1, target_lag: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    return training_clip(frames, outputs=outputs, rng=rng, every=every, target_lag=target_lag)


@given(lengths, st.data())
def test_a_teacher_window_ends_at_its_frame_and_stays_in_the_video(frames: int, data: st.DataObject) -> None:
    frame = data.draw(st.integers(0, frames - 1))
    window = teacher_window(frame, frames)
    assert window.shape == (WINDOW,)
    assert window.dtype == np.int64
    assert window[-1] == frame
    assert window.min() >= 0
    assert window.max() < frames
    assert set(np.abs(np.diff(window))) <= {0, 1}, "neighbours in a window are neighbours in the video"


@given(st.integers(15, 1000), st.integers(1, 50))
def test_past_the_head_a_teacher_window_is_the_16_frames_up_to_its_frame(frame: int, more: int) -> None:
    assert teacher_window(frame, frame + more).tolist() == list(range(frame - 15, frame + 1))


@given(st.integers(0, 14), st.integers(0, 50))
def test_at_the_head_a_teacher_window_is_the_next_16_frames_reversed_in_time(frame: int, more: int) -> None:
    assert teacher_window(frame, frame + 16 + more).tolist() == list(range(frame, frame + 16))[::-1]


def test_teacher_windows_of_short_videos_repeat_the_last_frame() -> None:
    assert teacher_window(0, 1).tolist() == [0] * 16
    assert teacher_window(2, 5).tolist() == [4] * 13 + [4, 3, 2]
    assert teacher_window(14, 15).tolist() == [14] * 16


@pytest.mark.parametrize("frame", [-1, 5])
def test_a_frame_outside_the_video_has_no_window(frame: int) -> None:
    with pytest.raises(ValueError, match=f"frame {frame} lies outside a video of 5 frames"):
        teacher_window(frame, 5)


@given(st.integers(0, 200))
def test_a_student_window_is_teacher_like_past_the_head_and_repeats_frame_0_before_it(frame: int) -> None:
    window = student_window(frame)
    assert window.tolist() == [max(frame - 15 + slot, 0) for slot in range(16)]
    if frame >= 15:
        assert (window == teacher_window(frame, frame + 1)).all()


def test_a_negative_frame_has_no_student_window() -> None:
    with pytest.raises(ValueError, match="-1"):
        student_window(-1)


@pytest.mark.parametrize("every", range(1, 21))
def test_a_stream_gives_the_windows_that_the_whole_video_gives(every: int) -> None:
    for frames in range(81):
        streamed = list(sliding_windows(iter(range(frames)), every=every))
        assert streamed == [(f, teacher_window(f, frames).tolist()) for f in range(0, frames, every)]


@given(lengths, steps, st.integers(1, 12))
def test_a_stream_gives_the_right_windows_of_any_size(frames: int, every: int, window: int) -> None:
    streamed = list(sliding_windows(range(frames), every=every, window=window))
    assert streamed == [(f, teacher_window(f, frames, window).tolist()) for f in range(0, frames, every)]


@pytest.mark.parametrize("every", [1, 4, 16, 40])
def test_a_stream_is_read_once_no_further_than_needed_and_30_frames_are_held_at_most(every: int) -> None:
    alive: weakref.WeakSet[Picture] = weakref.WeakSet()
    taken = 0
    most = 0

    def stream() -> Iterator[Picture]:
        nonlocal taken, most
        for _ in range(200):
            picture = Picture()
            alive.add(picture)
            taken += 1
            most = max(most, len(alive))
            yield picture
            del picture

    gc.disable()  # reference counts alone must free the frames
    try:
        for frame, window in sliding_windows(stream(), every=every):
            needed = frame + 16 if frame < 15 else frame + 1
            assert taken <= max(needed, 30), "a map is given as soon as its frames are there"
            del window
    finally:
        gc.enable()
    assert taken == 200
    # 30 held, and one more that a stream has made and that has not been let go yet.
    assert most <= 31


def test_frames_that_failed_to_decode_keep_their_place_in_the_windows() -> None:
    stream = [None if index == 17 else index for index in range(40)]
    broken = [frame for frame, window in sliding_windows(stream) if None in window]
    assert broken == [2, *range(3, 15), *range(17, 33)]


def test_steps_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="every=0"):
        next(sliding_windows([1], every=0))


@given(lengths, steps, st.sampled_from([1, 16]), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_targets_of_a_training_clip_were_dumped_and_meet_the_output_of_their_frame(
    frames: int, every: int, outputs: int, lag: int, seed: int
) -> None:
    clip = clip_of(frames, outputs, seed, every=every, target_lag=lag)
    assert clip.frames.shape == (WINDOW,)
    assert ((clip.frames >= 0) & (clip.frames < frames)).all()
    assert ((clip.targets >= 0) & (clip.targets < frames)).all()
    assert (clip.targets % every == 0).all()
    assert clip.targets.shape == clip.outputs.shape == (1 if outputs == 1 else 1 + 15 // every,)
    slots = clip.outputs if outputs == 16 else np.array([15])
    unpadded = clip.frames[-1] - 15 + slots
    assert (clip.targets == np.maximum(unpadded - lag, 0)).all()
    assert (clip.frames == np.maximum(np.arange(16) + clip.frames[-1] - 15, 0)).all()


@given(st.integers(50, 200), steps, st.sampled_from([1, 16]), st.integers(0, 3), st.integers(0, 2**32 - 1))
def test_clips_of_long_videos_are_not_padded(frames: int, every: int, outputs: int, lag: int, seed: int) -> None:
    clip = clip_of(frames, outputs, seed, every=every, target_lag=lag)
    assert (np.diff(clip.frames) == 1).all()
    assert (np.diff(clip.targets) == every).all() or outputs == 1
    assert clip.targets[-1] == clip.frames[-1] - lag


@pytest.mark.parametrize(("outputs", "every"), [(1, 1), (1, 7), (16, 1), (16, 5)])
def test_every_dumped_frame_that_can_end_a_clip_does_so_sooner_or_later(outputs: int, every: int) -> None:
    ends = {int(clip_of(60, outputs, seed, every=every).frames[-1]) for seed in range(1500)}
    assert ends == {frame for frame in range(15, 60) if frame % every == 0}


def test_short_videos_give_one_output_any_frame_and_16_outputs_all_of_them() -> None:
    assert {int(clip_of(6, 1, seed).targets[0]) for seed in range(200)} == set(range(6))
    assert {tuple(clip_of(6, 16, seed).targets) for seed in range(20)} == {(0,) * 11 + (1, 2, 3, 4, 5)}
    assert clip_of(1, 16, 0).frames.tolist() == [0] * 16


def test_the_published_lag_moves_targets_and_not_frames() -> None:
    aligned, lagging = (clip_of(16 + lag, 16, 0, target_lag=lag) for lag in (0, 1))
    assert aligned.frames.tolist() == aligned.targets.tolist() == list(range(16))
    assert lagging.frames.tolist() == list(range(1, 17))
    assert lagging.targets.tolist() == list(range(16))


def test_a_clip_is_a_function_of_the_generator_and_draws_one_number() -> None:
    first, second = np.random.default_rng(5), np.random.default_rng(5)
    one = training_clip(500, outputs=16, rng=first)
    two = training_clip(500, outputs=16, rng=second)
    assert (one.frames == two.frames).all()
    second = np.random.default_rng(5)
    second.integers(485)
    assert first.bit_generator.state == second.bit_generator.state


@pytest.mark.parametrize("outputs", [1, 16])
def test_maps_that_are_missing_never_become_targets(outputs: int) -> None:
    usable = np.ones(80, bool)
    usable[[30, 31]] = False
    for seed in range(300):
        clip = training_clip(80, outputs=outputs, rng=np.random.default_rng(seed), usable=usable)
        assert usable[clip.targets].all()


def test_a_video_without_any_map_is_named_as_such() -> None:
    with pytest.raises(DataError, match="leave the video out"):
        training_clip(9, outputs=1, rng=np.random.default_rng(0), usable=np.zeros(9, bool))


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"every": 0}, {"target_lag": -1}, {"outputs": 4}])
def test_arguments_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        clip_of(**{"frames": 40, "outputs": 1, "seed": 0, **wrong})
