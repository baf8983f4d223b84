"""What FFmpeg and PyAV do not expect of a video costs that video a line, and no other video anything."""

import io
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
from PIL import Image

from tests.small_dumps import SETTINGS, write_teacher
from tests.video_files import number_of, numbered, pictures_of, source_of, write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump import shard_work
from tinyhd_pipe.stages.video import decoding as video_decoding
from tinyhd_pipe.stages.video.decoding import RgbConverter, VideoFacts, count_packets, decode, probe
from tinyhd_pipe.stages.video.index import index_frames, read_frames
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.store import open_store
from tinyhd_pipe.store.errors import VideoError

_TURNED_BACK = {1: 0, 3: 2, 6: 1, 8: 3}
"""EXIF orientation -> quarter turns, counterclockwise, of the picture as it is filmed; mirrored ones aside."""


def camera_film(path: Path, frames: int, orientation: int = 1) -> Path:
    """A Motion JPEG film whose pictures carry EXIF, as cameras write them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    filmed = [np.ascontiguousarray(np.rot90(numbered(n), _TURNED_BACK[orientation])) for n in range(frames)]
    with av.open(str(path), "w") as container:
        stream = cast(av.VideoStream, container.add_stream("mjpeg", rate=25))
        stream.height, stream.width = filmed[0].shape[:2]
        stream.pix_fmt = "yuvj420p"
        for place, picture in enumerate(filmed):
            jpeg = io.BytesIO()
            Image.fromarray(picture).save(jpeg, "JPEG", exif=exif, quality=95)
            packet = av.Packet(jpeg.getvalue())
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            packet.pts = packet.dts = place
            container.mux(packet)
    return path


@pytest.mark.parametrize("orientation", _TURNED_BACK)
def test_pictures_with_exif_come_out_upright(tmp_path: Path, orientation: int) -> None:
    source = source_of(camera_film(tmp_path / "MVI_0001.AVI", 6, orientation))
    pictures = pictures_of(source)
    assert [number_of(picture) for picture in pictures] == list(range(6))
    assert pictures[0].shape == (48, 80, 3)
    assert (read_frames(source, np.array([4, 2])) == np.stack([pictures[4], pictures[2]])).all()


@pytest.mark.shared
def test_a_film_of_a_camera_and_the_good_one_beside_it_are_dumped(shared: Path, tmp_path: Path) -> None:
    weights, store = write_teacher(tmp_path / "teacher.safetensors"), tmp_path / "maps.zarr"
    videos = shared / "data/cases/pictures_with_exif"
    dump = f"teacher-dump --teacher tinyhd --weights {weights} --videos {videos} --store {store}"
    assert run([*dump.split(), *SETTINGS]) == 0
    maps = open_store(store)
    assert {video: maps.video(video).rows for video in maps.videos} == {"MVI_0001.AVI": 20, "good.mp4": 20}


def _raise_at(monkeypatch: pytest.MonkeyPatch, name: str, number: int, error: Exception) -> None:
    """Let the library fail at one frame of the videos whose first frame shows `number`, or later."""

    class Failing(RgbConverter):
        def __call__(self, frame: av.VideoFrame) -> video_decoding.Picture:
            picture = super().__call__(frame)
            if number_of(picture) == number:
                raise error
            return picture

    monkeypatch.setattr(video_decoding, name, Failing)


@pytest.mark.parametrize("error", [ValueError("31 is not\na valid Type"), RuntimeError("odd"), KeyError(31)])
def test_whatever_a_library_raises_ends_the_video_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    source = source_of(write(tmp_path / "a.mp4", [numbered(n) for n in range(20)]))
    _raise_at(monkeypatch, "RgbConverter", 7, error)
    decoding = decode(source)
    assert [number_of(picture) for picture in decoding if picture is not None] == list(range(7))
    assert decoding.problem is not None
    assert decoding.problem.startswith(f"ends after 7 frames, the next one does not decode ({type(error).__name__}: ")
    assert "\n" not in decoding.problem
    _raise_at(monkeypatch, "RgbConverter", 0, error)
    for use in (probe, index_frames):
        with pytest.raises(VideoError, match=r"a\.mp4: ends after 0 frames"):
            use(source)


def test_a_video_that_a_library_fails_on_is_listed_and_the_rest_is_dumped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, store = write_teacher(tmp_path / "teacher.safetensors"), tmp_path / "maps.zarr"
    for name, first in (("videos/a.mp4", 0), ("videos/b.mp4", 100), ("videos/c.mp4", 200)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, [numbered(first + n) for n in range(20)])
    _raise_at(monkeypatch, "RgbConverter", 105, RuntimeError("odd"))
    dump = f"teacher-dump --teacher tinyhd --weights {weights} --videos {tmp_path / 'videos'} --store {store}"
    assert run([*dump.split(), *SETTINGS]) == 1
    assert "Traceback" not in capsys.readouterr().err
    maps = open_store(store)
    assert {video: maps.video(video).rows for video in maps.videos} == {"a.mp4": 20, "b.mp4": 5, "c.mp4": 20}
    assert maps.video("b.mp4").problem == "ends after 5 frames, the next one does not decode (RuntimeError: odd)"


def test_a_video_that_is_lost_while_it_is_dumped_is_listed_and_the_rest_is_dumped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, store = write_teacher(tmp_path / "teacher.safetensors"), tmp_path / "maps.zarr"
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write(tmp_path / name, [numbered(n) for n in range(20)])

    def then_lost(source: VideoSource) -> VideoFacts:
        facts = probe(source)
        if source.id == "b.mp4":
            source.path.write_bytes(b"")
        return facts

    monkeypatch.setattr(shard_work, "probe", then_lost)
    videos = " ".join(f"--videos {tmp_path / name}" for name in ("a.mp4", "b.mp4", "c.mp4"))
    dump = f"teacher-dump --teacher tinyhd --weights {weights} {videos} --store {store}"
    assert run([*dump.split(), *SETTINGS]) == 1
    maps = open_store(store)
    assert {video: maps.video(video).rows for video in maps.videos} == {"a.mp4": 20, "b.mp4": 0, "c.mp4": 20}
    assert maps.video("b.mp4").problem.startswith("the file is empty")


def test_a_codec_that_ffmpeg_lacks_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", [numbered(n) for n in range(5)], codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"QQQQ"))
    for use in (probe, index_frames):
        with pytest.raises(VideoError, match=r"a\.avi: .*(no decoder for its codec)"):
            use(source_of(path))


def _write_streams(path: Path, streams: list[list[video_decoding.Picture]]) -> Path:
    """One file with several video streams."""
    with av.open(str(path), "w") as container:
        added = []
        for pictures in streams:
            stream = cast(av.VideoStream, container.add_stream("libx264", rate=25))
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            added.append(stream)
        for stream, pictures in zip(added, streams, strict=True):
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_of_several_video_streams_the_largest_is_the_film_and_of_equal_ones_the_first(
    tmp_path: Path, name: str
) -> None:
    preview = [numbered(500 + n, 24, 40) for n in range(10)]
    film, second = ([numbered(first + n) for n in range(20)] for first in (0, 100))
    source = source_of(_write_streams(tmp_path / name, [preview, film, second]))
    pictures = pictures_of(source)
    assert [number_of(picture) for picture in pictures] == list(range(20))
    assert (read_frames(source, np.array([13])) == pictures[13]).all()
    assert (probe(source).height, count_packets(source)) == (48, 20)


def test_a_large_picture_beside_a_film_is_not_the_film(tmp_path: Path) -> None:
    source = source_of(_write_streams(tmp_path / "a.mp4", [[numbered(500, 96, 160)], [numbered(n) for n in range(20)]]))
    assert [number_of(picture) for picture in pictures_of(source)] == list(range(20))
