"""One number, from the name of a file to the loss: frame 14 is the same frame wherever it is asked for.

Every picture shows its own number, as a dot at a place of its own; so does the density map of that number; and the
network shows what it last saw. So any two things that belong to one frame show the same number.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tinyhd_pipe.stages.dump.store_check import sample_store
from tinyhd_pipe.stages.evaluate import comparison, evaluate
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo, read_density
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.networks.network import PROVENANCE, Network, Scaling
from tinyhd_pipe.stages.networks.prediction import predict, predict_frame, predict_still
from tinyhd_pipe.stages.pictures.contact_sheet import contact_sheet, frames_of
from tinyhd_pipe.stages.predictions.contender import of_network
from tinyhd_pipe.stages.predictions.stores import of_store
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.student_train import stored_videos
from tinyhd_pipe.stages.teacher_dump import teacher_dump
from tinyhd_pipe.stages.training.dataset import ClipDataset, Sampling
from tinyhd_pipe.stages.training.labelled import learnable
from tinyhd_pipe.stages.training.live_targets import LiveTargets
from tinyhd_pipe.stages.training.losses import distillation_loss
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video import sources as video_sources
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.index import frame_numbers, read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store import FrameStatus, Store, open_store
from tinyhd_pipe.store.errors import VideoError
from tinyhd_pipe.store.numbering import AS_THEY_COME

SIZE = (32, 64)
WRITTEN = {
    "all": range(1, 25),
    "a gap": [*range(1, 4), *range(9, 33)],
    "every 5th": range(1, 101, 5),
    "from 10": range(10, 30),
    "shorter than a window": [90, 91, 95],
}
"""Numbers in the names of a folder's pictures; the frame is one less."""


def dot(number: int) -> NDArray[np.float32]:
    """A Gaussian of peak 1 at the place of a number below 120, float32 (y, x)."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    row, column = 4 + 8 * (number // 30), 2 + 2 * (number % 30)
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / 8).astype(np.float32)


def shown_by(picture: NDArray[Any] | Tensor) -> int:
    """The number that a picture or map (y, x) shows."""
    pixels = np.asarray(picture)
    row, column = np.unravel_index(int(pixels.argmax()), pixels.shape)
    return int(round((row - 4) / 8) * 30 + round((column - 2) / 2))


class Shows(nn.Module):
    """Answers with what the last frame of a window shows."""

    outputs = 1

    def forward(self, clip: Tensor) -> dict[str, Tensor]:
        return {"final": 8 * (clip[:, 0, -1] - 40 / 255) / (200 / 255) - 5}  # (B, H, W)

    native_logits = forward


def network_that_shows() -> Network:
    scaling = Scaling(mean=(0.0,) * 3, std=(255.0,) * 3, size=SIZE)
    facts = {"kind": "tinyhd", **dict.fromkeys(PROVENANCE, "none")}
    return Network("tinyhd", cast(Any, Shows()), scaling, "float32", torch.device("cpu"), facts=facts)


def write_folder(folder: Path, pictures: dict[str, NDArray[Any]]) -> Path:
    folder.mkdir(parents=True)
    for name, grey in pictures.items():
        Image.fromarray(grey.astype(np.uint8)).save(folder / name)
    return folder


def write_data(root: Path, written: Sequence[int]) -> AnnotatedVideo:
    """A folder of frames in the DHF1K layout with the map of every number, whether its frame is there or not."""
    frames = {f"{number:04d}.png": np.repeat(40 + 200 * dot(number - 1)[..., None], 3, axis=2) for number in written}
    write_folder(root / "video/001", frames)
    mapped = range(min(written), max(written) + 4)
    write_folder(root / "annotation/0001/maps", {f"{number:04d}.png": 255 * dot(number - 1) for number in mapped})
    (video,) = find_annotated_videos(root).videos
    return video


@pytest.fixture(params=WRITTEN)
def written(request: pytest.FixtureRequest) -> Sequence[int]:
    return WRITTEN[request.param]


@pytest.fixture
def video(tmp_path: Path, written: Sequence[int]) -> AnnotatedVideo:
    return write_data(tmp_path, written)


def dump(source: VideoSource, url: Path) -> Store:
    teacher_dump([source], str(url), network_that_shows(), DumpOptions(fidelity=0.01))
    return open_store(url)


def test_frames_are_read_and_predicted_by_the_numbers_of_their_files(
    video: AnnotatedVideo, written: Sequence[int]
) -> None:
    numbers = [number - 1 for number in written]
    assert frame_numbers(video.source).tolist() == numbers
    assert [shown_by(picture[..., 0]) for picture in read_frames(video.source, np.array(numbers))] == numbers
    network = network_that_shows()
    for way in (predict, predict_still):
        predictions = list(way(network, video.source, range(200)))
        assert [frame for frame, _ in predictions] == [shown_by(one) for _, one in predictions] == numbers
        assert [frame for frame, _ in way(network, video.source, numbers[1::2])] == numbers[1::2]
    assert [shown_by(predict_frame(network, video.source, number)) for number in numbers[-3:]] == numbers[-3:]
    missing = next(number for number in range(numbers[-1] + 2) if number not in numbers)
    with pytest.raises(VideoError, match=f"no frame {missing}; "):
        read_frames(video.source, np.array([missing]))
    with pytest.raises(VideoError, match=f"no frame {missing}; "):
        predict_frame(network, video.source, missing)


def test_a_store_has_maps_of_those_numbers_and_of_no_others(
    video: AnnotatedVideo, written: Sequence[int], tmp_path: Path
) -> None:
    numbers = [number - 1 for number in written]
    store = dump(video.source, tmp_path / "maps.zarr")
    assert store.frames(video.source.id).tolist() == numbers
    assert [shown_by(one) for one in store.read(video.source.id, numbers, size=SIZE)["final"]] == numbers
    asked = np.arange(-1, numbers[-1] + 3)
    there = store.status(video.source.id, asked) == FrameStatus.VALID
    assert asked[there].tolist() == numbers
    drawn = contact_sheet(store, video.source.id, tmp_path / "sheet.png", frames=range(numbers[-1] + 1), rows=3)
    assert drawn.frames == (numbers[0], numbers[(len(numbers) - 1 + 1) // 2], numbers[-1])
    assert frames_of(store, video.source.id) == numbers[-1] + 1
    assert sample_store(str(tmp_path / "maps.zarr"), network_that_shows(), [video.source], frames=4).kept


@pytest.mark.parametrize("way", ["store", "live", "labels alone"])
def test_a_sample_s_last_frame_its_map_and_its_label_are_of_one_number(
    video: AnnotatedVideo, written: Sequence[int], tmp_path: Path, way: str
) -> None:
    targets: Targets | LiveTargets | None = None
    if way == "store":
        targets = Targets.of([dump(video.source, tmp_path / "maps.zarr")])
    elif way == "live":
        targets = LiveTargets.of(network_that_shows(), [video.source])
    videos = stored_videos(targets, [video.source], [video]) if targets else learnable([video]).videos
    data = ClipDataset(
        videos, scaling=network_that_shows().scaling, sampling=Sampling(1, seed=1, flip=False), targets=targets
    )
    seen = set()
    for epoch in range(6):
        sample = data[epoch, 0]
        number = shown_by(sample.clip[0, 0, -1])
        seen.add(number)
        assert number + 1 in written
        assert bool(sample.labelled.all())
        assert shown_by(sample.density[0, 0]) == number
        assert f"to {number}" in data.describe((epoch, 0))
        if targets:
            assert shown_by(sample.maps["final"][0, 0]) == number
        answered = Shows()(sample.clip)
        loss = distillation_loss(answered, sample.maps, sample.density, sample.labelled)
        slipped = distillation_loss(answered, {}, sample.density.roll(2, dims=-1), sample.labelled)
        assert loss["density"] < slipped["density"] - 0.3, "the label of the next frame would cost more"
    assert len(seen) > 1


def test_an_evaluation_meets_each_frame_with_the_map_of_its_number(
    video: AnnotatedVideo, written: Sequence[int], tmp_path: Path
) -> None:
    network = network_that_shows()
    stored = of_store("stored", dump(video.source, tmp_path / "maps.zarr").url)
    scored = evaluate([video], [of_network("shows", network), stored])
    assert scored.frames == len(written)
    assert min(scored.mean[name]["CC"] for name in ("shows", "stored")) > 0.9
    (left_out,) = scored.left_out
    assert left_out.count == len(video.density_maps) - len(written)
    places = len(range(1, len(written), 2))
    every = evaluate([video], [of_network("shows", network)], EvaluateOptions(first=1, every=2))
    assert (every.frames, every.mean["shows"]["CC"] > 0.9) == (places, True)
    still, moving = comparison([video], {"shows": network}, tmp_path)
    with Image.open(still) as sheet, Image.open(moving) as loop:
        assert sheet.size[0] > loop.size[0]
        assert loop.n_frames == len(written[len(written) // 2 % 2 :: 2]), (
            "every second frame, the middle one among them"
        )


def test_a_frame_that_does_not_decode_fails_by_its_number_and_one_that_is_not_there_does_not(tmp_path: Path) -> None:
    video = write_data(tmp_path, WRITTEN["a gap"])
    (video.source.path / "0012.png").write_bytes(b"no picture")
    store = dump(video.source, tmp_path / "maps.zarr")
    row = store.video(video.source.id)
    assert row.failed == (11,)
    assert row.problem == "1 of 27 pictures are broken or of another size, 0012.png the first"
    kinds = store.status(video.source.id, [2, 3, 8, 11]).tolist()
    assert kinds == [FrameStatus.VALID, FrameStatus.NEVER_DUMPED, FrameStatus.VALID, FrameStatus.FAILED]
    live = LiveTargets.of(network_that_shows(), [video.source])
    assert live.video(video.source.id).failed == (11,)
    (learned,) = stored_videos(Targets.of([store]), [video.source], [video])
    assert learned.usable is not None
    assert np.flatnonzero(~learned.usable).tolist() == [6], "frame 11 is in place 6"


def test_numbers_are_part_of_a_video_so_a_store_from_before_they_counted_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, gap = (write_data(tmp_path / name, WRITTEN[name]) for name in ("all", "a gap"))
    now = [digest(video.source) for video in (whole, gap)]
    monkeypatch.setattr(video_sources, "numbering_of", lambda source: AS_THEY_COME)
    before = [digest(video.source) for video in (whole, gap)]
    assert now[0] == before[0], "of folders that hold all frames nothing changes"
    assert now[1] != before[1]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("case", "frames"),
    [
        ("gap_in_numbers_reference", range(20)),
        ("gap_in_numbers", [*range(3), *range(8, 20)]),
        ("every_5th_frame", range(0, 20, 5)),
        ("numbers_from_10", range(9, 20)),
    ],
)
def test_in_the_folders_that_people_have_frames_meet_the_maps_of_their_numbers(
    shared: Path, case: str, frames: Sequence[int]
) -> None:
    (video,) = find_annotated_videos(shared / "data/cases" / case).videos
    (whole,) = find_annotated_videos(shared / "data/cases/gap_in_numbers_reference").videos
    assert frame_numbers(video.source).tolist() == list(video.density_maps) == list(video.fixations) == list(frames)
    if case.startswith("gap"):
        for frame in frames:
            wanted = np.array([frame])
            assert (read_frames(video.source, wanted) == read_frames(whole.source, wanted)).all()
            assert np.array_equal(read_density(video, frame), read_density(whole, frame))
    decoding = decode(video.source)
    assert len([picture for picture in decoding if picture is not None]) == len(frames)
    assert decoding.numbering.numbers(np.arange(len(frames))).tolist() == list(frames)
