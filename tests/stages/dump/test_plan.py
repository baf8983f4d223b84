"""The plan of a dump: what it says comes true, and it writes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.small_dumps import LENGTHS, OPTIONS, clip, dump_of, write_teacher, write_videos
from tests.store_tools import content_of
from tests.video_files import COUNT, KINDS, numbered, source_of, write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.pipeline.console import duration, size
from tinyhd_pipe.stages.dump.plan import plan_dump
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import load_teacher, ready
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.teacher_dump import DumpProgress, teacher_dump
from tinyhd_pipe.stages.video.decoding import count_packets, decode, probe
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import open_store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_videos(tmp_path / "videos")
    write_teacher(tmp_path / "teacher.safetensors")
    return tmp_path


def _plan(place: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    command = dump_of(place / "videos", place / "teacher.safetensors", place / "maps.zarr", "--plan", *more)
    before = content_of(place)
    assert run([str(argument) for argument in command]) == 0
    assert content_of(place) == before, "a plan writes nothing"
    return json.loads(capsys.readouterr().out)


def test_a_plan_says_what_the_dump_then_does_and_afterwards_what_is_left(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = _plan(place, capsys)
    frames = sum(LENGTHS.values())
    assert (planned["videos_left"], planned["maps_left"], planned["frames"]) == (len(LENGTHS), frames, frames)
    assert planned["seconds_left"] == pytest.approx(planned["seconds_a_map"] * frames)
    assert planned["seconds_a_map"] > 0
    assert not (place / "maps.zarr").exists()

    dump = [str(argument) for argument in dump_of(place / "videos", place / "teacher.safetensors", place / "maps.zarr")]
    assert run(dump) == 0
    capsys.readouterr()
    facts = open_store(place / "maps.zarr").info()
    assert facts["shards"] == planned["shards_left"]
    assert facts["bytes"] == pytest.approx(planned["bytes_left"], rel=0.5)

    done = _plan(place, capsys)
    assert (done["videos_left"], done["maps_left"], done["shards_left"], done["seconds_left"]) == (0, 0, 0, 0)
    write_video(place / "videos" / "1.mp4", clip(17, seed=50))
    write_videos(place / "videos" / "more", {"a.mp4": 6})
    left = _plan(place, capsys)
    assert (left["videos_left"], left["maps_left"], left["frames"]) == (2, 23, frames - LENGTHS["1.mp4"] + 23)
    assert left["bytes_left"] == pytest.approx(23 * facts["bytes"] / facts["frames_with_maps"])


def test_a_killed_dumps_plan_says_what_is_left_of_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = load_teacher("tinyhd", weights=place / "teacher.safetensors")

    def kill(at: DumpProgress) -> None:
        if at.videos == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        teacher_dump(
            find_videos([place / "videos"]),
            str(place / "maps.zarr"),
            teacher,
            OPTIONS,
            report=kill,
        )
    finished = open_store(place / "maps.zarr").videos
    assert 0 < len(finished) < len(LENGTHS)
    planned = _plan(place, capsys)
    assert planned["videos_left"] == len(LENGTHS) - len(finished)
    assert planned["maps_left"] == sum(LENGTHS.values()) - sum(LENGTHS[video] for video in finished)


def test_a_dump_has_paid_for_itself_when_training_would_have_run_as_many_windows(place: Path) -> None:
    sources, frames = find_videos([place / "videos"]), sum(LENGTHS.values())
    single = ready("hd2s", HD2S(width=0.0625), size=(32, 32))

    def epochs(labelled: int, every: int = 1) -> tuple[int, float, float]:
        url = str(place / "none.zarr")
        even = plan_dump(sources, url, single, DumpOptions(fidelity=0.05, every=every), labelled=labelled).break_even
        return even.clips_an_epoch, even.epochs_single, even.epochs_multi

    assert epochs(labelled=0) == (6, pytest.approx(frames / 6), pytest.approx(frames / 6 / 16))
    assert epochs(labelled=2) == (4, pytest.approx(frames / 4), pytest.approx(frames / 4 / 16))
    assert epochs(labelled=6) == (6, pytest.approx(frames / 6), pytest.approx(frames / 6 / 16))
    assert epochs(labelled=6, every=3)[1] == pytest.approx(frames / 6 / 3, rel=0.1)


def test_what_is_no_video_is_named_and_the_rest_planned(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "videos" / "broken.mp4").write_text("no video")
    planned = _plan(place, capsys)
    assert planned["maps_left"] == sum(LENGTHS.values())
    assert "not a video" in planned["problems"]["broken.mp4"]


@pytest.mark.parametrize("name", KINDS)
def test_packets_are_as_many_as_frames_or_nearly(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    write(path, [numbered(number) for number in range(COUNT)], **KINDS[name])
    assert COUNT <= count_packets(source_of(path)) <= COUNT * 1.1


@pytest.mark.shared
def test_a_header_that_claims_100_times_its_frames_is_not_believed(shared: Path) -> None:
    (source,) = find_videos([shared / "data/dhf1k/video/300.AVI"])
    assert probe(source).frames > 20_000
    assert count_packets(source) == sum(1 for _ in decode(source)) == 217


def test_spans_and_sizes_are_said_as_one_would() -> None:
    assert [duration(seconds) for seconds in (7.4, 150, 19_200)] == ["7 s", "2 min", "5 h 20 min"]
    assert [size(count) for count in (812, 3_960, 26_400_000_000)] == ["812 bytes", "3.96 kB", "26.4 GB"]
