"""The challenges' layout: maps in videos of ten bits and points in lists meet the frames that they were made of."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.data_check import data_check
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density, read_fixations
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.label_videos import EachFrame
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import DataError, SettingError

SIZE = (48, 64)
FRAMES = 12


def place_of(frame: int) -> tuple[int, int]:
    """(y, x) where people look, another one in every frame."""
    return 10 + 2 * frame, 60 - 4 * frame


def density(frame: int) -> NDArray[np.float32]:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    at = place_of(frame)
    return np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 18).astype(np.float32)


def write_maps(path: Path, frames: int = FRAMES) -> None:
    """Grey in ten bits, as the organisers encode them; theirs lose a little (crf 0), these nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"qp": "0", "bf": "2"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p10le"
        for number in range(frames):
            frame = av.VideoFrame(SIZE[1], SIZE[0], "yuv420p10le")
            codes = [np.rint(64 + 876 * density(number)), *[np.full((SIZE[0] // 2, SIZE[1] // 2), 512)] * 2]
            for plane, code in zip(frame.planes, codes, strict=True):
                row = np.zeros((plane.height, plane.line_size // 2), np.uint16)
                row[:, : plane.width] = code
                plane.update(row.tobytes())
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def points(frames: int = FRAMES) -> list[list[list[int]]]:
    """For each frame a list of [y, x], its point twice: several people may look at one pixel."""
    return [[list(place_of(frame)), list(place_of(frame)), [3, frame]] for frame in range(frames)]


def make(root: Path, names: Sequence[str] = ("00001", "00002")) -> Path:
    (root / "Videos").mkdir(parents=True)
    for name in names:
        write_video(root / f"Videos/{name}.mp4", np.full((FRAMES, *SIZE, 3), 80, np.uint8))
        write_maps(root / f"SaliencyTrain/Train/{name}.mp4")
        folder = root / f"FixationsTrain/Train/{name}"
        (folder / "fixations").mkdir(parents=True)
        (folder / "fixations.json").write_text(json.dumps(points()))
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "fixations/001.png")  # lossy, and passed over
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("aim"))


def assert_meets(video: AnnotatedVideo, frames: Sequence[int], shift: int = 0, tolerance: float = 1 / 876) -> None:
    for frame in frames:
        read, looked_at = read_density(video, frame), read_fixations(video, frame)
        assert read is not None
        assert looked_at is not None
        np.testing.assert_allclose(read, density(frame + shift), atol=tolerance)
        assert sorted(np.argwhere(looked_at).tolist()) == sorted([list(place_of(frame)), [3, frame]])


def test_maps_and_points_are_those_of_their_own_frame_in_any_order(root: Path) -> None:
    found = find_annotated_videos(root)
    assert (found.layout, found.left_out) == ("aim", ())
    assert [video.source for video in found.videos] == find_videos([root / "Videos"]), "the same ids as in a dump"
    assert [source.path for source in find_videos([root])] == [video.source.path for video in found.videos]
    video = found.videos[0]
    assert list(video.density_maps) == list(video.fixations) == list(range(FRAMES))
    assert_meets(video, [*range(FRAMES), 3, 3, 7, 0, FRAMES - 1])
    assert read_density(video, FRAMES) is None
    with pytest.raises(AssertionError):
        assert_meets(video, [5], shift=1)


def test_pictures_of_maps_and_flat_folders_are_taken_too(tmp_path: Path) -> None:
    """As the evaluator writes the maps out, from 001.png on, and with points in a text."""
    make(tmp_path, ["a"])
    (tmp_path / "Saliency/a").mkdir(parents=True)
    for frame in range(FRAMES):
        grey = np.rint(255 * density(frame)).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / f"Saliency/a/{frame + 1:03d}.png")
    (tmp_path / "SaliencyTrain").rename(tmp_path / "elsewhere")
    (tmp_path / "FixationsTrain").rename(tmp_path / "gone")
    (tmp_path / "Fixations").mkdir()
    lines = ["; ".join(f"{y}, {x}" for y, x in of_frame) for of_frame in points()]
    (tmp_path / "Fixations/a.txt").write_text("\n".join(lines))
    (video,) = find_annotated_videos(tmp_path).videos
    assert not isinstance(video.density_maps, EachFrame)
    assert_meets(video, range(FRAMES), tolerance=1 / 255)


def test_what_does_not_pair_is_said_and_splits_are_those_of_the_file(tmp_path: Path) -> None:
    make(tmp_path, ["1", "2", "3"])
    (tmp_path / "Videos/2.mp4").unlink()
    (tmp_path / "SaliencyTrain/Train/3.mp4").unlink()
    write_maps(tmp_path / "SaliencyTest/Test/4.mp4")
    write_video(tmp_path / "Videos/4.mp4", np.full((FRAMES, *SIZE, 3), 80, np.uint8))
    found = find_annotated_videos(tmp_path)
    assert [video.source.id for video in found.videos] == ["1.mp4", "4.mp4"]
    assert found.left_out == ("1 annotation without a video: 2", "1 video without density maps: 3.mp4")
    assert not found.videos[1].fixations
    with pytest.raises(SettingError, match="has no splits of its own"):
        find_annotated_videos(tmp_path, split="train")
    (tmp_path / "TrainTestSplit.json").write_text(json.dumps({"train": ["1", "2"], "public_test": ["4"]}))
    assert [v.source.id for v in find_annotated_videos(tmp_path, split="public_test").videos] == ["4.mp4"]
    with pytest.raises(SettingError, match="expected train, public_test, or a file"):
        find_annotated_videos(tmp_path, split="val")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[[1, 2], [3]]]", "no list of points [y, x] for each frame"),
        ("{", "no list of points [y, x] for each frame"),
        ('{"0": [[1, 2]]}', "no list of points [y, x] for each frame"),
        ("[[[20, 900], [30, 800]]]", "frame 0: [20, 900] and most of 2 points lie outside of the 48x64 map"),
    ],
)
def test_wrong_points_are_one_line(root: Path, text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "fixations.json").write_text(text)
    video = find_annotated_videos(root).videos[0]
    wrong = AnnotatedVideo(video.source, tmp_path, video.density_maps, EachFrame("fixations.json", FRAMES, SIZE))
    (tmp_path / "SaliencyTrain").symlink_to(root / "SaliencyTrain")
    with pytest.raises(DataError) as refusal:
        read_fixations(wrong, 0)
    assert str(refusal.value).startswith(f"{tmp_path / 'fixations.json'}: ")
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_single_points_outside_are_left_out_and_a_short_list_is_said(root: Path, tmp_path: Path) -> None:
    (tmp_path / "fixations.json").write_text("[[[20, 30], [-1, 5], [21, 31]], []]")
    video = find_annotated_videos(root).videos[0]
    (tmp_path / "SaliencyTrain").symlink_to(root / "SaliencyTrain")
    short = AnnotatedVideo(video.source, tmp_path, video.density_maps, EachFrame("fixations.json", FRAMES, SIZE))
    first, second = read_fixations(short, 0), read_fixations(short, 1)
    assert first is not None
    assert second is not None
    assert np.argwhere(first).tolist() == [[20, 30], [21, 31]]
    assert not second.any()
    with pytest.raises(DataError, match="has points of 2 frames, and those of frame 2 are asked"):
        read_fixations(short, 2)


def test_a_video_of_maps_that_ends_early_is_one_line(root: Path, tmp_path: Path) -> None:
    make(tmp_path, ["a"])
    write_maps(tmp_path / "SaliencyTrain/Train/a.mp4", frames=4)
    video = find_annotated_videos(tmp_path).videos[0]
    assert len(video.density_maps) == 4
    longer = AnnotatedVideo(video.source, video.folder, EachFrame("SaliencyTrain/Train/a.mp4", 9), {})
    with pytest.raises(DataError, match="ends after 4 maps, and one is asked of frame 6"):
        read_density(longer, 6)


def test_it_is_checked_and_evaluated_as_any_data_set(root: Path, tmp_path: Path) -> None:
    checked = data_check(root, decode_all=True)
    assert (checked.layout, checked.broken, len(checked.videos)) == ("aim", 0, 2)
    write_maps(tmp_path / "maps/00001.mp4")
    (tmp_path / "one.txt").write_text("00001.mp4")
    where = ["--data", root, "--split", tmp_path / "one.txt", "--maps", tmp_path / "maps", "--out", tmp_path / "out"]
    assert run(["evaluate", *map(str, where), "--set", "evaluate.every=4"]) == 0
    (figures,) = (tmp_path / "out/metrics").glob("*maps*.json")
    assert json.loads(figures.read_text())["CC"] > 0.999, "the maps themselves, each on its own frame"
