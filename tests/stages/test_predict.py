"""Maps of any video: one for every frame, found again by the number of the frame, made once, never mixed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from tests.moving_dot import make_data
from tests.small_dumps import SIZE, clip, write_teacher, write_videos
from tests.warm_command import ROOT
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.evaluate import evaluate
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.figures import Evaluation
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.prediction import predict as predicted_maps
from tinyhd_pipe.stages.predict import predict
from tinyhd_pipe.stages.predictions.contender import of_network
from tinyhd_pipe.stages.predictions.pictures import of_pictures
from tinyhd_pipe.stages.predictions.products import Wanted
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import SettingError

COMMAND = Path(sys.executable).with_name("tinyhd-pipe")
LENGTHS = {"a.mp4": 21, "b.mp4": 5, "c.mp4": 1}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("weights") / "m.safetensors")


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return write_videos(tmp_path / "videos", LENGTHS)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_every_frame_has_its_map_the_first_ones_too(tmp_path: Path, videos: Path, weights: Path) -> None:
    network = load_student(weights)
    predicted = predict(find_videos([videos]), network, tmp_path / "maps", Wanted(brightness="absolute"))
    assert (predicted.frames, predicted.videos, predicted.problems) == (27, 3, {})
    for name, frames in LENGTHS.items():
        made = sorted(path.name for path in (tmp_path / "maps" / name).iterdir())
        assert made == [f"{frame + 1:04d}.png" for frame in range(frames)]
        for frame, saliency in network.predict(videos / name):
            picture = np.asarray(Image.open(tmp_path / "maps" / name / f"{frame + 1:04d}.png"))
            assert picture.shape == SIZE
            np.testing.assert_allclose(picture / 255, saliency, atol=0.501 / 255)


def test_by_default_the_brightest_pixel_of_each_map_is_255(tmp_path: Path, videos: Path, weights: Path) -> None:
    network = load_student(weights)
    predict(find_videos([videos / "b.mp4"]), network, tmp_path / "maps")
    for frame, saliency in network.predict(videos / "b.mp4"):
        picture = np.asarray(Image.open(tmp_path / "maps/b.mp4" / f"{frame + 1:04d}.png"))
        assert saliency.max() < 0.99
        np.testing.assert_allclose(picture / 255, saliency / saliency.max(), atol=0.501 / 255)


@pytest.mark.parametrize("names", ["0010 0011 0013 0020", "0 5 10"])
def test_maps_of_a_folder_of_frames_have_the_names_of_its_frames(tmp_path: Path, weights: Path, names: str) -> None:
    (tmp_path / "frames").mkdir()
    for name, picture in zip(names.split(), clip(9, 0), strict=False):
        Image.fromarray(picture).save(tmp_path / "frames" / f"shot_{name}.jpg")
    predict(find_videos([tmp_path / "frames"]), load_student(weights), tmp_path / "maps")
    made = sorted(path.stem for path in (tmp_path / "maps/frames").iterdir())
    assert made == [f"{int(name):04d}" for name in names.split()]


def _labelled_videos(root: Path, first_label: int) -> list[AnnotatedVideo]:
    """Two video files whose labels count from `first_label`."""
    dots = make_data(root / "dots", videos=2)
    found = []
    for video in dots:
        pictures = [np.asarray(Image.open(path)) for path in sorted(video.source.path.iterdir())]
        write_video(root / "films" / f"{video.source.id}.mp4", pictures)
        folder = root / "labels" / video.source.id
        folder.mkdir(parents=True)
        labels = {frame: f"{frame + first_label:04d}.png" for frame in video.density_maps}
        for frame, name in labels.items():
            (video.folder / video.density_maps[frame]).rename(folder / name)
        source = VideoSource(f"{video.source.id}.mp4", root / "films" / f"{video.source.id}.mp4")
        found.append(AnnotatedVideo(source, folder, labels, {}))
    return found


@pytest.mark.parametrize("first_label", [0, 1])
def test_an_evaluation_reads_what_was_predicted_as_the_maps_of_the_same_frames(
    tmp_path: Path, weights: Path, first_label: int
) -> None:
    (tmp_path / "films").mkdir()
    labelled = _labelled_videos(tmp_path, first_label)
    network = load_student(weights)
    predict([video.source for video in labelled], network, tmp_path / "maps")
    live = evaluate(labelled, [of_network("it", network)], EvaluateOptions(postprocessing="png"))
    kept = evaluate(labelled, [of_pictures("it", tmp_path / "maps")], EvaluateOptions(postprocessing="none"))
    assert live.frames == kept.frames == 48
    assert _means(kept) == pytest.approx(_means(live), rel=1e-6, nan_ok=True)
    for path in sorted((tmp_path / "maps/001.mp4").iterdir()):  # one frame late, and the figures are others
        path.rename(path.with_name(f"{int(path.stem) - 1:04d}.png"))
    late = evaluate(labelled, [of_pictures("it", tmp_path / "maps")], EvaluateOptions(postprocessing="none"))
    assert _means(late) != pytest.approx(_means(live), rel=1e-6, nan_ok=True)


def _means(scored: Evaluation) -> dict[str, float]:
    """All figures but how many pixels are at the maximum, which rounding to 8 bits adds to."""
    return {metric: figure for metric, figure in scored.mean["it"].items() if metric != "saturated"}


def test_a_rerun_makes_what_is_missing_and_nothing_else(tmp_path: Path, videos: Path, weights: Path) -> None:
    network, out = load_student(weights), tmp_path / "maps"
    predict(find_videos([videos / "a.mp4"]), network, out)
    before, times = _contents(out), _times(out)
    again = predict(find_videos([videos / "a.mp4"]), network, out)
    assert (again.frames, again.already_there) == (0, 1)
    assert _times(out) == times
    for name in ("0001.png", "0009.png", "0021.png"):
        (out / "a.mp4" / name).unlink()
    mended = predict(find_videos([videos]), network, out)
    assert (mended.frames, mended.already_there) == (3 + 5 + 1, 0)
    assert {name: content for name, content in _contents(out).items() if name.startswith("a.mp4")} == before
    kept = [path for path in times if _times(out)[path] == times[path]]
    assert len(kept) == 18, "and the record is written anew"


def test_a_killed_prediction_goes_on_and_ends_as_one_that_was_never_killed(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = write_videos(tmp_path / "videos", {"long.mp4": 400, "short.mp4": 3})
    command = ["predict", str(videos), "--weights", str(weights), "--json", "--out"]
    assert run([*command, str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    half = tmp_path / "half" / "long.mp4" / "0040.png"
    with subprocess.Popen([COMMAND, *command, str(tmp_path / "half")], stdout=subprocess.DEVNULL) as running:
        while not half.exists() and running.poll() is None:
            time.sleep(0.001)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    there = len(list(half.parent.glob("*.png")))
    assert 40 <= there < 400
    assert run([*command, str(tmp_path / "half")]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 403 - there
    assert _contents(tmp_path / "half") == _contents(tmp_path / "whole")


def test_maps_by_other_weights_or_of_another_brightness_are_not_mixed(
    tmp_path: Path, videos: Path, weights: Path
) -> None:
    out, sources = tmp_path / "maps", find_videos([videos])
    predict(sources[1:], load_student(weights), out)
    before = _contents(out)
    other = load_student(write_teacher(tmp_path / "other.safetensors", seed=1))
    with pytest.raises(SettingError, match=r"b\.mp4: made with weights_sha256 = \w+, not \w+; give another --out"):
        predict(sources, other, out)
    with pytest.raises(SettingError, match="made with brightness = peak, not absolute"):
        predict(sources, load_student(weights), out, Wanted(brightness="absolute"))
    assert _contents(out) == before, "nothing was made of the first video, either"
    assert predict(sources, other, out, overwrite=True).frames == 27
    assert not {name for name, content in _contents(out).items() if before.get(name) == content}


def test_a_video_that_has_changed_is_made_anew(tmp_path: Path, videos: Path, weights: Path) -> None:
    out, network = tmp_path / "maps", load_student(weights)
    predict(find_videos([videos]), network, out)
    write_video(videos / "a.mp4", clip(7, seed=9))
    assert predict(find_videos([videos]), network, out).frames == 7
    assert len(list((out / "a.mp4").glob("*.png"))) == 7


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_was_not_made_by_predict_is_never_written_over(tmp_path: Path, weights: Path, overwrite: bool) -> None:
    mine = tmp_path / "clips" / "mine"
    mine.mkdir(parents=True)
    for place, picture in enumerate(clip(3, 0)):
        Image.fromarray(picture).save(mine / f"{place + 1:04d}.png")
    before = _contents(mine)
    with pytest.raises(SettingError, match="mine: is there and was not made by predict"):
        predict(find_videos([tmp_path / "clips"]), load_student(weights), tmp_path / "clips", overwrite=overwrite)
    assert _contents(mine) == before


def test_a_video_that_fails_is_listed_and_the_others_are_done(
    tmp_path: Path, videos: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (videos / "broken.mp4").write_text("not a video")
    write_video(videos / "cut.avi", clip(30, 0))
    os.truncate(videos / "cut.avi", (videos / "cut.avi").stat().st_size // 2)
    command = f"predict {videos}/* --weights {weights} --out {tmp_path / 'maps'} --json".split()
    for made in (True, False):
        assert run(command) == 1
        result = json.loads(capsys.readouterr().out)
        assert sorted(result["problems"]) == ["broken.mp4", "cut.avi"]
        assert result["videos"] == 4
        assert 27 < result["frames"] < 27 + 30 if made else result["frames"] == 0
    assert not (tmp_path / "maps/broken.mp4").exists()


@pytest.mark.parametrize("format", ["npz", "zarr"])
def test_one_file_for_a_video_holds_all_maps_and_their_numbers(
    tmp_path: Path, videos: Path, weights: Path, format: str
) -> None:
    out = tmp_path / "maps"
    command = f"predict {videos} --weights {weights} --out {out} --format {format}".split()
    assert run(command) == 0
    times = _times(out)
    assert run(command) == 0
    assert _times(out) == times
    for name in LENGTHS:
        expected = list(load_student(weights).predict(videos / name))
        path = out / f"{name}.{format}"
        read = np.load(path) if format == "npz" else zarr.open_group(str(path), mode="r")
        assert np.array(read["frames"]).tolist() == [frame for frame, _ in expected]
        maps = np.array(read["maps"])
        assert maps.dtype == np.float16
        np.testing.assert_allclose(maps, [saliency for _, saliency in expected], rtol=1e-3, atol=1e-6)
    assert sorted(os.listdir(out)) == sorted(f"{name}.{end}" for name in LENGTHS for end in (format, "json"))  # noqa: PTH208


def test_the_lines_of_the_readme_give_every_frame_and_its_map(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = re.search(
        r"```python\n(from tinyhd_pipe.stages import load_student.*?)```", (ROOT / "README.md").read_text(), re.S
    )
    assert lines
    write_video(tmp_path / "video.mp4", clip(18, 0))
    (tmp_path / "student.safetensors").write_bytes(weights.read_bytes())
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(
        lines[1].replace("...", "seen.append((frame, saliency.shape, saliency.dtype.name))"),
        {"seen": (seen := [])},
        names,
    )
    assert seen == [(frame, SIZE, "float32") for frame in range(18)]


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path, weights: Path) -> None:
    write_video(tmp_path / "long.avi", (picture.repeat(4, 0).repeat(4, 1) for picture in clip(1000, 0)))
    network, held = load_student(weights), []
    page = os.sysconf("SC_PAGE_SIZE")
    for frame, _ in predicted_maps(network, *find_videos([tmp_path / "long.avi"])):
        if frame in (300, 999):
            held.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
    assert held[1] - held[0] < 50e6, "the pictures of these 700 frames are 155 MB"
