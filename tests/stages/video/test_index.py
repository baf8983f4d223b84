"""Frames read at random are the frames decoded in order, whatever a container says and wherever it seeks."""

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.video_files import (
    COUNT,
    KINDS,
    Made,
    frame_folder,
    number_of,
    numbered,
    source_of,
    write,
    write_kinds,
)
from tinyhd_pipe.stages.video import index as video_index
from tinyhd_pipe.stages.video.decoding import decoded_frames
from tinyhd_pipe.stages.video.index import index_frames, read_frames
from tinyhd_pipe.store.errors import VideoError


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """One video of every kind."""
    return write_kinds(tmp_path_factory.mktemp("videos"))


def decoded_count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose only number grows with every frame that random access decodes."""
    counted = [0]

    def counting(*args: object) -> Iterator[av.VideoFrame]:
        for frame in decoded_frames(*args):  # type: ignore[arg-type]
            counted[0] += 1
            yield frame

    monkeypatch.setattr(video_index, "decoded_frames", counting)
    return counted


# Reading at random


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(list(KINDS)), st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=20), st.booleans())
def test_frames_read_at_random_are_bit_for_bit_those_decoded_in_order(
    made: dict[str, Made], name: str, frames: list[int], with_index: bool
) -> None:
    video = made[name]
    got = read_frames(video.source, np.array(frames), index=video.index if with_index else None)
    assert (got == np.stack([video.pictures[frame] for frame in frames])).all()


@pytest.mark.parametrize(
    "name",
    [
        *("h264_b_frames.mp4", "h264_open_groups.mkv", "h264_no_timestamps.avi", "h264.ts"),
        *("vp9.webm", "mpeg4_b_frames.avi"),
    ],
)
def test_a_clip_far_in_costs_its_group_of_pictures_and_not_the_video(
    made: dict[str, Made], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = decoded_count(monkeypatch)
    read_frames(made[name].source, np.arange(36, 40), index=made[name].index)
    assert 4 <= counted[0] <= 12, "frames 24 to 35 stayed undecoded"


@pytest.mark.parametrize("change", ["frame", "timestamp", "position"])
def test_an_index_that_leads_astray_costs_time_and_not_pixels(
    made: dict[str, Made], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = made["h264_b_frames.mp4"]
    wrong = {"frame": {"frame": 13}, "timestamp": {"timestamp": 0}, "position": {"position": 7}}[change]
    entries = tuple(video_index.Entry(**{**vars(entry), **wrong}) for entry in video.index.entries[1:2])
    astray = replace(video.index, entries=entries)
    counted = decoded_count(monkeypatch)
    got = read_frames(video.source, np.arange(20, 24), index=astray)
    assert (got == np.stack(video.pictures[20:24])).all()
    assert counted[0] > 24, "the seek was tried, and the start taken after it"


def test_a_file_that_changed_is_noticed_by_an_old_index_and_indexed_anew_without_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [numbered(n) for n in range(30)], options={"g": "5"})
    index = index_frames(source_of(path))
    assert number_of(read_frames(source_of(path), np.array([20]))[0]) == 20
    write(path, [numbered(n + 100) for n in range(40)], options={"g": "5"})
    os.utime(path, ns=(1, 1))
    with pytest.raises(VideoError, match=r"a\.mp4: changed since it was indexed"):
        read_frames(source_of(path), np.array([20]), index=index)
    assert number_of(read_frames(source_of(path), np.array([39]))[0]) == 139


def test_an_index_travels_to_other_processes(made: dict[str, Made]) -> None:
    video = made["vp9.webm"]
    travelled = pickle.loads(pickle.dumps(video.index))
    assert (read_frames(video.source, np.array([33]), index=travelled)[0] == video.pictures[33]).all()


@pytest.mark.parametrize("frames", [[-1, 3], [3, COUNT]])
def test_frames_outside_the_video_are_refused(made: dict[str, Made], frames: list[int], tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"h264\.mp4: no frame (-1|40); expected 0 to 39"):
        read_frames(made["h264.mp4"].source, np.array(frames))
    with pytest.raises(VideoError, match="no frame"):
        read_frames(frame_folder(tmp_path / "clip", ["1.png", "2.png"]), np.array(frames))
