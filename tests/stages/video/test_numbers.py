"""Names say which frame a picture is, by one rule; where they do not, pictures are numbered as they come."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.video_files import frame_folder, number_of, pictures_of, save, source_of
from tinyhd_pipe.stages.video.decoding import count_packets, decode, probe
from tinyhd_pipe.stages.video.index import frame_numbers, read_frames
from tinyhd_pipe.stages.video.numbers import numbered_names, spelled
from tinyhd_pipe.stages.video.sources import digest, find_videos, search_videos
from tinyhd_pipe.store.errors import VideoError


def numbers_of(*names: str) -> list[int]:
    found = numbered_names(names)
    return found.numbering.numbers(np.arange(len(found.names))).tolist()


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["0001.png", "0002.png", "0003.png"], [0, 1, 2]),
        (["0010.png", "0011.png"], [9, 10]),
        (["0000.png", "0005.png", "0010.png"], [0, 5, 10]),
        (["0001.png", "0006.png", "0011.png"], [0, 5, 10]),
        (["frame_2.jpg", "frame_10.jpg", "frame_1.jpg"], [0, 1, 9]),
        (["Diving-Side_001_003.png", "Diving-Side_001_004.png"], [2, 3]),
        (["v2-00007-left.png", "v2-00009-left.png"], [6, 8]),
        (["left.png", "right.png"], [0, 1]),
        (["1403636579763555584.png", "1403636579813555456.png"], [0, 1]),
        (["a_1.png", "a_9.png", "b_1.png", "b_9.png"], [0, 1, 2, 3]),
        (["7.png"], [6]),
    ],
)
def test_a_frame_s_number_is_the_last_one_in_its_name(names: list[str], frames: list[int]) -> None:
    assert numbers_of(*names) == frames
    assert numbers_of(*reversed(names)) == frames


@given(
    st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=60), st.integers(1, 8), st.sampled_from(("", "f"))
)
def test_whatever_the_numbers_they_are_kept_and_so_is_their_order(numbers: list[int], width: int, before: str) -> None:
    names = [f"{before}{number:0{width}d}.png" for number in numbers]
    found = numbered_names(names)
    base = 0 if 0 in numbers else 1
    assert numbers_of(*names) == sorted(number - base for number in numbers)
    assert list(found.names) == [f"{before}{number:0{width}d}.png" for number in sorted(numbers)]
    assert (found.numbered, found.base) == (True, base)


def test_a_few_pictures_that_are_named_otherwise_are_no_frames_and_are_said_to_be_left(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", [f"{n:03d}.png" for n in range(1, 19)])
    whole = digest(source)
    save(tmp_path / "clip/cover.png", pictures_of(source)[0])
    save(tmp_path / "clip/thumb_1.jpg", pictures_of(source)[0])
    assert [number_of(picture) for picture in pictures_of(source)] == list(range(18))
    assert (count_packets(source), probe(source).frames, digest(source)) == (18, 18, whole)
    (line,) = search_videos([tmp_path]).left_out
    assert str(line).endswith("2 files were not taken: 1 .jpg, 1 .png")


def test_many_pictures_that_are_named_otherwise_are_frames_in_natural_order(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", ["a_10.png", "a_2.png", "b_7.png", "b_30.png"])
    assert frame_numbers(source).tolist() == [0, 1, 2, 3]
    assert [number_of(picture) for picture in pictures_of(source)] == [1, 0, 2, 3]


def test_two_pictures_of_one_number_are_an_error_of_that_folder_alone(tmp_path: Path) -> None:
    frame_folder(tmp_path / "one", ["1.png", "01.png", "2.png"])
    frame_folder(tmp_path / "two", ["1.png", "2.png"])
    assert [source.id for source in find_videos([tmp_path])] == ["one", "two"]
    for use in (probe, count_packets, digest, frame_numbers, lambda source: list(decode(source))):
        with pytest.raises(VideoError, match=r"one: 0?1.png and 0?1.png are both number 1; keep one of them"):
            use(source_of(tmp_path / "one"))


def test_a_frame_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", ["0010.png", "0012.png", "0014.png"])
    assert [number_of(picture) for picture in read_frames(source, np.array([13, 9, 11, 9]))] == [2, 0, 1, 0]
    for missing in (0, 10, 14):
        with pytest.raises(
            VideoError, match=f"no frame {missing}; by the names of its pictures it has 3 frames between"
        ):
            read_frames(source, np.array([9, missing]))


def test_numbers_are_told_in_stretches() -> None:
    assert spelled([]) == ""
    assert spelled([3, 4, 5, 6, 7, 12]) == "3 to 7, 12"
    assert spelled([0, 2, 4, 6, 8, 10, 11]) == "0, 2, 4, 6, 8, ..."
