"""A video is cut off when its picture is: sound and subtitles that last longer say nothing about it."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest

from tests.small_dumps import SETTINGS, write_teacher
from tests.video_files import Picture, numbered, source_of
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.video.decoding import decode

RATE = 48_000
SOUND = {
    "a.avi": ("mpeg4", "mp2"),
    "a.flv": ("flv", "mp3"),
    "a.mkv": ("libx264", "mp2"),
    "a.mp4": ("libx264", "aac"),
    "a.mpg": ("mpeg2video", "mp2"),
    "a.ts": ("libx264", "mp2"),
    "a.webm": ("libvpx", "libopus"),
    "a.wmv": ("wmv2", "wmav2"),
}
"""Name -> codecs of picture and sound."""
PROMISE_NOTHING = ("a.ts", "a.mpg", "a.wmv")
"""Nothing says how long they are once they are cut (of WMV, FFmpeg drops what the header says): a shorter film."""


def write_with_sound(path: Path, pictures: list[Picture], seconds: float, *, tags: bool = True) -> Path:
    """Pictures at 25 a second beside so many seconds of noise, interleaved as a camera does it.

    Without `tags` a Matroska file says of no stream how long it is.
    """
    video_codec, audio_codec = SOUND[path.name]
    with av.open(str(path), "w") as container:
        video = cast(av.VideoStream, container.add_stream(video_codec, rate=25, options={"bf": "0"}))
        video.height, video.width, video.pix_fmt = *pictures[0].shape[:2], "yuv420p"
        audio = cast(av.AudioStream, container.add_stream(audio_codec, rate=RATE, layout="stereo"))
        audio.bit_rate = 384_000 if audio_codec == "mp2" else 192_000
        frames = [*_video_frames(pictures), *_audio_frames(seconds)]
        for frame in sorted(frames, key=lambda frame: cast(int, frame.pts) * cast(Fraction, frame.time_base)):
            stream = video if isinstance(frame, av.VideoFrame) else audio
            container.mux(stream.encode(frame))  # type: ignore[arg-type]
        for stream in (video, audio):
            container.mux(stream.encode(None))
    if not tags:
        path.write_bytes(path.read_bytes().replace(b"DURATION", b"WHATEVER"))
    return path


def _video_frames(pictures: list[Picture]) -> Iterator[av.VideoFrame]:
    for place, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = place, Fraction(1, 25)
        yield frame


def _audio_frames(seconds: float, samples: int = 960) -> Iterator[av.AudioFrame]:
    rng = np.random.default_rng(0)
    for place in range(round(seconds * RATE / samples)):
        noise = rng.normal(0, 0.1, (2, samples)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = RATE, place * samples, Fraction(1, RATE)
        yield frame


def problem_of(path: Path) -> tuple[int, str | None]:
    """Frames that decode, and what is said of the video then."""
    decoding = decode(source_of(path))
    return sum(1 for _ in decoding), decoding.problem


@pytest.mark.parametrize("name", SOUND)
@pytest.mark.parametrize("seconds", [0.4, 12.0])
@pytest.mark.parametrize("tags", [True, False])
def test_a_whole_picture_is_whole_however_long_the_sound_is(
    tmp_path: Path, name: str, seconds: float, tags: bool
) -> None:
    path = write_with_sound(tmp_path / name, [numbered(n) for n in range(20)], seconds, tags=tags)
    assert problem_of(path) == (20, None)


@pytest.mark.parametrize("name", [name for name in SOUND if name not in (*PROMISE_NOTHING, "a.mp4")])
@pytest.mark.parametrize("seconds", [1.0, 4.0, 12.0])
@pytest.mark.parametrize("tags", [True, False])
def test_a_picture_that_is_cut_off_is_reported_however_long_the_sound_is(
    tmp_path: Path, name: str, seconds: float, tags: bool
) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (48, 80, 3), dtype=np.uint8) for _ in range(100)]  # 4 seconds
    path = write_with_sound(tmp_path / name, pictures, seconds, tags=tags)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 10])
    frames, problem = problem_of(path)
    assert 5 < frames < 95
    assert problem is not None
    assert problem.startswith("ends a")


def test_a_tag_that_is_left_over_from_a_longer_film_is_not_believed(tmp_path: Path) -> None:
    path = write_with_sound(tmp_path / "a.mkv", [numbered(n) for n in range(20)], 0.8)
    tag = b"00:00:00.800000000"
    assert path.read_bytes().count(tag) >= 1
    path.write_bytes(path.read_bytes().replace(tag, b"00:59:00.800000000"))
    assert problem_of(path) == (20, None)


@pytest.mark.shared
def test_films_with_long_sound_are_dumped_without_a_problem(shared: Path, tmp_path: Path) -> None:
    weights = write_teacher(tmp_path / "teacher.safetensors")
    dump = f"teacher-dump --teacher tinyhd --weights {weights} --store {tmp_path / 'maps.zarr'}"
    assert run([*dump.split(), "--videos", str(shared / "data/cases/long_sound"), *SETTINGS]) == 0
