"""Times find the frame that is on the screen, also where frames are shown for different times."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tinyhd_pipe.stages.video.frame_times import shown_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.stages.video.writing import write_video


def _of_variable_rate(path: Path, stamps: list[int]) -> VideoSource:
    """Frames that are shown at these tenths of a second; B-frames put their packets out of order."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 10)
        rng = np.random.default_rng(0)
        for stamp in stamps:
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return VideoSource(path.name, path)


def test_a_frame_that_is_shown_for_long_is_found_at_all_its_times(tmp_path: Path) -> None:
    shown = shown_frames(_of_variable_rate(tmp_path / "v.mkv", [0, 1, 2, 12, 13]))
    assert shown.frames == 5
    assert shown.size == (48, 64)
    times = np.array([-0.01, 0.0, 0.15, 0.5, 1.19, 1.21, 1.31, 9.0])
    assert shown.at(times).tolist() == [-1, 0, 1, 2, 2, 3, 4, 5]
    by_rate = shown_frames(_of_variable_rate(tmp_path / "v.mkv", [0, 1, 2, 12, 13]), fps=10)
    assert by_rate.at(np.array([0.25])) == [2], "a rate that is given goes before what packets say"
    assert by_rate.at(np.array([0.45])) == [4]


@pytest.mark.parametrize("name", ["v.mp4", "v.avi"])
def test_at_a_constant_rate_frames_follow_each_other(name: str, tmp_path: Path) -> None:
    write_video(tmp_path / name, np.zeros((7, 32, 48, 3), np.uint8), fps=25)
    shown = shown_frames(VideoSource(name, tmp_path / name))
    np.testing.assert_allclose(shown.starts, np.arange(8) / 25, atol=1e-6)
