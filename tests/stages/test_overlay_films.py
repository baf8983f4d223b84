"""An overlay is the original with its maps over it: upright, in step, with its sound, and whole."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.interrupting import interrupted_once_there
from tests.small_dumps import clip, write_teacher
from tests.video_files import number_of, numbered, pictures_of, source_of, write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.pictures.overlay import Overlay
from tinyhd_pipe.stages.predict import predict
from tinyhd_pipe.stages.predictions.products import Wanted
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.writing import write_video

FAINT = Overlay(strength=0.01)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("weights") / "m.safetensors")


def _overlay(video: Path, weights: Path, how: Overlay = FAINT) -> Path:
    out = video.parent / "maps"
    predicted = predict(find_videos([video]), load_student(weights), out, Wanted(overlay=how))
    assert predicted.problems == {}
    return out / f"{video.name}.overlay.mp4"


def _times(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds from the first one."""
    decoding = decode(source_of(path))
    shown = [decoding.shown for _ in decoding]
    assert shown[0] is not None
    return [time - shown[0] for time in shown if time is not None]


def _sound(path: Path) -> list[tuple[bytes, float]]:
    """The packets of the sound, and when each is heard, in seconds from the first frame."""
    with av.open(str(path)) as container:
        (sound,) = container.streams.audio
        start = float(next(container.decode(video=0)).time or 0)
        container.seek(0)
        packets = [packet for packet in container.demux(sound) if packet.size]
        return [(bytes(packet), float((packet.pts or 0) * sound.time_base) - start) for packet in packets]


@pytest.mark.parametrize(
    "how", [{}, {"timestamps": [place**2 for place in range(40)]}, {"options": {"g": "10", "bf": "3"}}]
)
def test_every_frame_is_shown_when_it_was(tmp_path: Path, weights: Path, how: dict[str, Any]) -> None:
    video = write(tmp_path / "film.mp4", [numbered(place) for place in range(40)], **how)
    overlay = _overlay(video, weights)
    assert [number_of(picture) for picture in pictures_of(source_of(overlay))] == list(range(40))
    assert _times(overlay) == _times(video)


def test_what_was_filmed_upright_and_lies_in_the_file_is_upright(tmp_path: Path, weights: Path) -> None:
    quarter = [0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30]
    video = write(tmp_path / "phone.mp4", [numbered(place) for place in range(3)], matrix=quarter)
    (seen, *_), (drawn, *_) = pictures_of(source_of(video)), pictures_of(source_of(_overlay(video, weights)))
    assert seen.shape == drawn.shape == (80, 48, 3)
    assert np.abs(seen.astype(int) - drawn).mean() < 8


def test_a_map_is_seen_where_it_is_bright_and_the_frame_where_it_is_dark() -> None:
    frame = np.full((33, 47, 3), 100, np.uint8)
    saliency = np.zeros((16, 24), np.uint8)
    saliency[:, 16:] = 255
    for colours, dark, bright in (
        ("heat", 100, (255, 255, 164)),
        ("rainbow", 100, (255, 0, 0)),
        ("light", 0, (100,) * 3),
    ):
        drawn = Overlay(colours, strength=1.0).drawn(frame, saliency)  # type: ignore[arg-type]
        assert drawn.shape == (34, 48, 3)
        np.testing.assert_allclose(drawn[:, :24], dark, atol=1)
        np.testing.assert_allclose(drawn[:, 40:], np.broadcast_to(bright, (34, 8, 3)), atol=4)
    beside = Overlay(strength=1.0, side_by_side=True).drawn(frame, saliency)
    assert beside.shape == (34, 94, 3)
    np.testing.assert_array_equal(beside[:33, :47], frame)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["awkward/nasa_13013_mkv_duration_tag.mkv", "natural/flipping_a_pancake.mkv"])
def test_the_sound_is_the_originals(tmp_path: Path, shared: Path, weights: Path, name: str) -> None:
    video = tmp_path / Path(name).name  # AAC that begins before the picture; Opus
    video.symlink_to(shared / "data/videos" / name)
    overlay = _overlay(video, weights)
    original, sound = _sound(video), _sound(overlay)
    assert [content for content, _ in sound] == [content for content, _ in original]
    gaps = [abs(heard - time) for (_, heard), (_, time) in zip(sound, original, strict=True)]
    assert max(gaps) < 0.002, "seconds out of step with the picture"
    assert abs(_times(overlay)[-1] - _times(video)[-1]) < 0.002
    assert not list(overlay.parent.glob("*.partial*"))


def test_sound_that_mp4_does_not_take_is_encoded_again(tmp_path: Path, weights: Path) -> None:
    with av.open(str(tmp_path / "camera.avi"), "w") as container:
        film = container.add_stream("mpeg4", rate=25)
        sound = container.add_stream("pcm_u8", rate=8000, layout="mono")
        film.width, film.height, film.pix_fmt = 80, 48, "yuv420p"
        for place in range(25):
            container.mux(film.encode(av.VideoFrame.from_ndarray(numbered(place), format="rgb24")))
        wave = (128 + 100 * np.sin(np.arange(8000) / 3)).astype(np.uint8)
        frame = av.AudioFrame.from_ndarray(wave[None], format="u8", layout="mono")
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))
        container.mux(film.encode(None))
    with av.open(str(_overlay(tmp_path / "camera.avi", weights))) as container:
        heard = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
        assert container.streams.audio[0].codec_context.name == "aac"
    assert 7000 < heard.shape[1] < 10_500
    assert 0.3 < heard[:, 2000:6000].std() < 0.7, "a sine of amplitude 100 / 128"


def test_ctrl_c_leaves_what_there_is_of_an_overlay_to_be_played(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "film.mp4", clip(600, 0))
    map_ = tmp_path / "maps/film.mp4/0101.png"  # each frame's picture comes before its place in the film
    command = f"predict {tmp_path / 'film.mp4'} --weights {weights} --out {tmp_path / 'maps'} --overlay".split()
    with interrupted_once_there(map_):
        assert run(command) == 130
    partial = tmp_path / "maps/film.mp4.overlay.partial.mp4"
    decoding = decode(source_of(partial))
    assert 100 <= len(list(decoding)) < 600
    assert decoding.problem is None
    assert not (tmp_path / "maps/film.mp4.overlay.mp4").exists()
    assert run(command) == 0
    assert len(pictures_of(source_of(tmp_path / "maps/film.mp4.overlay.mp4"))) == 600
    assert not partial.exists()


def test_a_grey_video_holds_the_bits_of_the_pictures(tmp_path: Path, weights: Path) -> None:
    video = write(tmp_path / "film.mp4", [numbered(place) for place in range(20)], timestamps=[p**2 for p in range(20)])
    network, out = load_student(weights), tmp_path / "maps"
    predict(find_videos([video]), network, out, Wanted())
    predict(find_videos([video]), network, out, Wanted(format="video"))
    grey, pictures = source_of(out / "film.mp4.mkv"), source_of(out / "film.mp4")
    for read, expected in zip(pictures_of(grey), pictures_of(pictures), strict=True):
        np.testing.assert_array_equal(read, expected)
    assert [float(time) for time in _times(grey.path)] == pytest.approx([float(t) for t in _times(video)], abs=0.001)


def test_an_overlay_of_a_folder_of_frames_runs_at_the_rate_that_is_set(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "frames").mkdir()
    for place in range(5):
        Image.fromarray(numbered(place)).save(tmp_path / "frames" / f"{place + 1:04d}.png")
    (tmp_path / "frames/0001.png").write_bytes(b"broken")
    command = f"predict {tmp_path / 'frames'} --weights {weights} --out {tmp_path / 'maps'} --overlay"
    assert run([*command.split(), "--set", "predict.fps=10", "predict.strength=0.01"]) == 1
    overlay = tmp_path / "maps/frames.overlay.mp4"
    assert _times(overlay) == [Fraction(place, 10) for place in range(5)]
    assert [number_of(picture) for picture in pictures_of(source_of(overlay))] == [0, 1, 2, 3, 4]
