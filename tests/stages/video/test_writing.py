"""Frames become videos: all of them, in order, at their rate, and the same bytes every time."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from tests.video_files import Picture, number_of, numbered, pictures_of, source_of
from tinyhd_pipe.stages.sample_data import sample_clip
from tinyhd_pipe.stages.video.decoding import probe
from tinyhd_pipe.stages.video.sources import digest
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import VideoError


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".AVI"])
@pytest.mark.parametrize("size", [(48, 80), (47, 79)])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    pictures = [numbered(n, *size) for n in range(30)]
    path = tmp_path / f"clip{suffix}"
    assert write_video(path, iter(pictures), fps=12.5) == 30
    back = pictures_of(source_of(path))
    assert [number_of(p) for p in back] == list(range(30))
    assert (
        np.abs(np.stack(back)[:, size[0] // 2 + 4 :].astype(int) - np.stack(pictures)[:, size[0] // 2 + 4 :]).mean() < 6
    )
    facts = probe(source_of(path))
    assert (facts.frames, facts.fps, facts.height, facts.width) == (30, 12.5, *size)
    with av.open(str(path)) as container:
        stamps = sorted(float(p.dts * p.time_base) for p in container.demux(video=0) if p.dts is not None)
    assert np.allclose(np.diff(stamps), 1 / 12.5)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_equal_frames_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    digests = set()
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}{suffix}", (numbered(n) for n in range(30)))
        digests.add(digest(source_of(tmp_path / f"{name}{suffix}")))
    write_video(tmp_path / f"c{suffix}", (numbered(n + 1) for n in range(30)))
    assert len(digests) == 1
    assert digest(source_of(tmp_path / f"c{suffix}")) not in digests


def test_equal_frames_give_equal_bytes_wherever_they_lie_in_memory(tmp_path: Path) -> None:
    """The clip of the example that came out in two ways, a few times in sixteen."""
    digests = set()
    for _ in range(16):
        clip = sample_clip(0, "train", 5, frames=90, size=(64, 96))  # moves what is in memory
        write_video(tmp_path / "a.mp4", clip.pictures)
        digests.add(digest(source_of(tmp_path / "a.mp4")))
    assert len(digests) == 1


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_colours_survive(tmp_path: Path, suffix: str) -> None:
    colours = np.random.default_rng(3).integers(0, 256, (12, 3), dtype=np.uint8)
    write_video(tmp_path / f"a{suffix}", [np.full((32, 48, 3), colour, np.uint8) for colour in colours])
    back = np.stack([picture[16, 24] for picture in pictures_of(source_of(tmp_path / f"a{suffix}"))])
    assert np.abs(back.astype(int) - colours).max() <= 10
    if suffix == ".mp4":  # the other format has no place for it
        with av.open(str(tmp_path / "a.mp4")) as container:
            frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (6, 1), "players are told: BT.601, limited range"


def test_nothing_of_the_machine_or_the_day_is_in_the_bytes(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", [numbered(n, 480, 640) for n in range(3)])
    content = (tmp_path / "a.mp4").read_bytes()
    assert b" threads=1 " in content, "x264 notes its settings: they must not follow the number of cores"
    assert b"Lavf" not in content


def test_a_video_is_written_in_full_or_not_at_all(tmp_path: Path) -> None:
    def fails() -> Iterator[Picture]:
        yield numbered(0)
        yield from map(numbered, range(1, 100))
        raise RuntimeError("the source of the frames failed")

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "a.mp4", fails())
    with pytest.raises(VideoError, match=r"frame 1 is \(20, 30, 3\)"):
        write_video(tmp_path / "a.mp4", [numbered(0), numbered(1, 20, 30)])
    with pytest.raises(VideoError, match="no frame to write"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(VideoError, match=r"a\.mov: cannot write .* use \.avi or \.mp4"):
        write_video(tmp_path / "a.mov", [numbered(0)])
    assert list(tmp_path.iterdir()) == []
