"""The dump: what is stored is what the live teacher says of that very frame, whatever happens on the way."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tinyhd_pipe.stages.dump.fidelity import choose_levels, kl_of
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.network import Network, load_teacher, scaling_for
from tinyhd_pipe.stages.networks.teacher_maps import ahead, teacher_maps, window_batches
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions, StoredLevel
from tinyhd_pipe.stages.teacher_dump import DumpProgress, teacher_dump
from tinyhd_pipe.stages.video.clips import teacher_window
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import FrameStatus, StoreError, open_store
from tinyhd_pipe.store.errors import VideoError

SIZE = (32, 64)
BUDGET = 5e-4
SHARD = 30_000 / 2**20
"""Megabytes."""


def _teacher(folder: Path, seed: int = 0) -> Network:
    """A small HD2S whose maps follow what moves: norms settled on clips of that kind, projections drawn wide."""
    module = HD2S(width=0.0625, seed=seed).train()
    generator = torch.Generator().manual_seed(seed)
    pictures = [np.stack(list(_clip(40, number))) for number in range(6)]
    clips = torch.stack(
        [scaling_for("hd2s", SIZE).prepare(clip[start : start + 16]) for clip in pictures for start in (0, 5, 11, 24)]
    )
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, torch.nn.BatchNorm2d | torch.nn.BatchNorm3d):
                norm.momentum = None  # the mean over all that it sees
        for _ in range(2):
            module(clips)
        for level in (2, 3, 4, 5):
            projection = module.get_submodule(f"decoder{level}.last_conv{level}")
            weight = projection.get_parameter("weight").normal_(0, 3, generator=generator)
            weight -= weight.mean()
            projection.get_parameter("bias").fill_(-2)
    path = folder / f"teacher{seed}.safetensors"
    write_weights(path, module.state_dict(), {"kind": "hd2s", "size": list(SIZE)})
    return load_teacher("hd2s", weights=path)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return _teacher(tmp_path_factory.mktemp("weights"))


def _clip(frames: int, seed: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    background = rng.integers(0, 120, (48, 96, 3), dtype=np.uint8)
    for frame in range(frames):
        picture = background.copy()
        picture[8:40, 23 * frame % 80 : 23 * frame % 80 + 16] = 240
        yield picture


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    folder = tmp_path_factory.mktemp("videos")
    for number, frames in enumerate((40, 20, 7, 1, 33)):
        write_video(folder / f"{number}.mp4", _clip(frames, number))
    (folder / "broken.mp4").write_text("no video")
    return find_videos([folder])


def _live(teacher: Network, source: VideoSource, frame: int) -> dict[str, torch.Tensor]:
    """The live teacher's maps of one frame, computed by itself from its own window."""
    pictures = np.stack([picture for picture in decode(source) if picture is not None])
    window = pictures[teacher_window(frame, len(pictures))]
    return teacher(teacher.preprocess(window))


def _files(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def dumped(teacher: Network, videos: list[VideoSource], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("dumped") / "maps.zarr"
    teacher_dump(videos, str(store), teacher, DumpOptions(fidelity=BUDGET, shard_megabytes=SHARD))
    return store


def test_a_stored_map_is_the_live_map_of_its_own_frame(
    teacher: Network, videos: list[VideoSource], dumped: Path
) -> None:
    store = open_store(dumped)
    costs: dict[str, list[float]] = {}
    for source in videos[:4]:
        for frame in range(0, store.video(source.id).frames, 6):
            read = store.read(source.id, [frame], size=SIZE)
            for level, live in _live(teacher, source, frame).items():
                costs.setdefault(level, []).append(kl_of(live.logit(), torch.from_numpy(read[level]).logit(), SIZE))
    assert {level: np.mean(kl) < 2 * BUDGET for level, kl in costs.items()} == dict.fromkeys(store.levels, True)


def test_maps_one_frame_late_or_of_another_teacher_would_be_noticed(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    store, source = open_store(dumped), videos[0]
    read = torch.from_numpy(store.read(source.id, [30], size=SIZE)["final"]).logit()
    late = kl_of(_live(teacher, source, 29)["final"].logit(), read, SIZE)
    other = kl_of(_live(_teacher(tmp_path, seed=1), source, 30)["final"].logit(), read, SIZE)
    assert min(late, other) > 4 * BUDGET


def test_every_video_is_there_or_listed_with_its_reason(dumped: Path, videos: list[VideoSource]) -> None:
    store = open_store(dumped)
    assert {video: store.video(video).frames for video in store.videos} == {
        "0.mp4": 40,
        "1.mp4": 20,
        "2.mp4": 7,
        "3.mp4": 1,
        "4.mp4": 33,
        "broken.mp4": 0,
    }
    assert "not a video" in store.video("broken.mp4").problem
    assert str(videos[0].path.parent) not in store.video("broken.mp4").problem, "no path of this machine is stored"


class _KilledError(Exception):
    pass


def test_interrupted_anywhere_it_ends_with_the_same_bytes(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    for kill_at in (3, 45, 90):
        store = tmp_path / f"{kill_at}.zarr"

        def kill(at: DumpProgress, kill_at: int = kill_at) -> None:
            if at.frames >= kill_at:
                raise _KilledError

        with pytest.raises(_KilledError):
            teacher_dump(videos, str(store), teacher, DumpOptions(fidelity=BUDGET, shard_megabytes=SHARD), report=kill)
        teacher_dump(videos, str(store), teacher, DumpOptions(fidelity=BUDGET, shard_megabytes=SHARD))
        assert _files(store) == _files(dumped)


def test_a_second_dump_has_nothing_to_do_and_another_teacher_is_refused(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    before = _files(dumped)
    again = teacher_dump(videos, str(dumped), teacher, DumpOptions(fidelity=BUDGET, shard_megabytes=SHARD))
    assert (again.frames, again.already_there) == (0, len(videos))
    with pytest.raises(StoreError, match="weights_sha256"):
        teacher_dump(videos, str(dumped), _teacher(tmp_path, seed=1), DumpOptions(fidelity=BUDGET))
    with pytest.raises(StoreError, match="every"):
        teacher_dump(videos, str(dumped), teacher, DumpOptions(fidelity=BUDGET, every=2))
    assert _files(dumped) == before


def test_a_given_grid_and_step_are_stored_and_others_do_not_join(
    teacher: Network, videos: list[VideoSource], tmp_path: Path
) -> None:
    store, final = str(tmp_path / "maps.zarr"), StoredLevel(SIZE, 0.07)
    for _ in range(2):  # the second time there is a store
        teacher_dump(videos[:1], store, teacher, DumpOptions(fidelity=BUDGET, levels={"final": final}))
    description = open_store(store).description
    assert final.level("final") in description.levels
    assert 0 < description.measured["final"]["kl"] < BUDGET
    finer = {"final": StoredLevel(SIZE, 0.06)}
    with pytest.raises(StoreError, match=r"made with levels.final.add_offset = -11.96, not -10.68"):
        teacher_dump(videos[:1], store, teacher, DumpOptions(fidelity=BUDGET, levels=finer))


def test_only_a_changed_video_is_done_again(teacher: Network, videos: list[VideoSource], tmp_path: Path) -> None:
    folder, store = tmp_path / "videos", tmp_path / "maps.zarr"
    shutil.copytree(videos[0].path.parent, folder)
    teacher_dump(find_videos([folder]), str(store), teacher, DumpOptions(fidelity=BUDGET))
    write_video(folder / "1.mp4", _clip(20, seed=9))
    before = open_store(store).read("0.mp4", [5])["final"]
    redone = teacher_dump(find_videos([folder]), str(store), teacher, DumpOptions(fidelity=BUDGET))
    assert redone.frames == 20
    np.testing.assert_array_equal(open_store(store).read("0.mp4", [5])["final"], before)


def test_every_third_frame_is_the_same_map_as_in_a_full_dump(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    teacher_dump(videos, str(tmp_path / "third.zarr"), teacher, DumpOptions(fidelity=BUDGET, every=3))
    third, full = open_store(tmp_path / "third.zarr"), open_store(dumped)
    kept = third.read("0.mp4", range(0, 40, 3), size=SIZE)["final"]
    whole = full.read("0.mp4", range(0, 40, 3), size=SIZE)["final"]
    assert kl_of(torch.from_numpy(kept).logit(), torch.from_numpy(whole).logit(), SIZE) < 4 * BUDGET
    assert third.status("0.mp4", [0, 1])[1] == FrameStatus.NEVER_DUMPED


def test_a_frame_that_does_not_decode_is_marked_and_its_neighbours_are_not(teacher: Network, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, picture in enumerate(_clip(20, seed=0)):
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
    (folder / "004.png").write_text("broken")
    dumped = teacher_dump(find_videos([folder]), str(tmp_path / "maps.zarr"), teacher, DumpOptions(fidelity=BUDGET))
    store = open_store(tmp_path / "maps.zarr")
    assert store.status("frames", range(20)).tolist() == [int(frame == 4) for frame in range(20)]
    assert list(dumped.problems) == ["frames"]
    with pytest.raises(StoreError, match="frames 4 failed"):
        store.read("frames", [4])


@pytest.mark.parametrize("every", [1, 2])
def test_batches_and_runs_give_the_same_maps_as_single_windows(
    teacher: Network, videos: list[VideoSource], every: int
) -> None:
    single = _final_maps(teacher, videos[0], every=every, batch=1)
    for batch in (6, 8):
        batched = _final_maps(teacher, videos[0], every=every, batch=batch)
        assert kl_of(single, batched, SIZE) < 1e-6
        assert kl_of(single, batched.roll(1, 0), SIZE) > 1e-3, "one window late is seen"


def _final_maps(teacher: Network, video: VideoSource, *, every: int, batch: int) -> torch.Tensor:
    several = replace(teacher, batch=batch)
    return torch.cat([logits["final"] for _, logits in teacher_maps(several, decode(video), every=every)])


def test_runs_end_where_the_head_turns_and_hold_each_frame_once(teacher: Network, videos: list[VideoSource]) -> None:
    batches = list(window_batches(teacher, decode(videos[0])))
    assert [len(batch.frames) for batch in batches] == [8, 7, 8, 8, 8, 1]
    assert [batch.clip.shape[2] for batch in batches] == [23, 22, 23, 23, 23, 16]
    assert [frame.number for batch in batches for frame in batch.frames] == list(range(40))
    lasts = [batch.frames[0] for batch in batches[:2]] + [batch.frames[-1] for batch in batches[2:]]
    for batch, last in zip(batches, lasts, strict=True):
        assert torch.equal(batch.clip[0, :, -1], last.pixels), "a reversed run ends with its first frame"


def test_runs_of_short_videos_answer_for_every_frame_in_order(teacher: Network, videos: list[VideoSource]) -> None:
    for source, frames in zip(videos, (40, 20, 7, 1, 33), strict=False):
        for every, batch in [(1, 8), (1, 3), (2, 4), (3, 8)]:
            coming = window_batches(replace(teacher, batch=batch), decode(source), every=every)
            assert [frame.number for one in coming for frame in one.frames] == list(range(0, frames, every))


def test_a_network_of_many_outputs_answers_for_each_frame_once(videos: list[VideoSource], tmp_path: Path) -> None:
    write_weights(tmp_path / "m.safetensors", TinyHD(reduction=4, outputs=16).state_dict(), {"size": list(SIZE)})
    teacher = load_teacher("tinyhd", weights=tmp_path / "m.safetensors")
    for source, frames in zip(videos[:4], (40, 20, 7, 1), strict=True):
        answered = [frame.number for several, _ in teacher_maps(teacher, decode(source)) for frame in several]
        assert answered == list(range(frames))


def test_nothing_that_decodes_is_an_error(teacher: Network, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_text("no video")
    with pytest.raises(VideoError, match="none of 2 videos decodes"):
        teacher_dump(find_videos([tmp_path]), str(tmp_path / "maps.zarr"), teacher)


def test_reading_ahead_keeps_order_and_passes_errors_on() -> None:
    assert list(ahead(iter(range(100)), depth=7)) == list(range(100))

    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(ahead(failing(), depth=4))


def test_the_chosen_grids_and_steps_keep_the_budget_and_smooth_maps_take_less_room() -> None:
    y, x = np.mgrid[:64, :96] / 32
    time = np.arange(32)[:, None, None] / 20
    smooth = torch.from_numpy((3 * np.sin(y + time) * np.cos(x) - 4).astype(np.float32))
    rough = smooth + torch.randn(smooth.shape, generator=torch.Generator().manual_seed(0))
    for budget in (2e-4, 2e-3):
        chosen = choose_levels({"smooth": smooth, "rough": rough}, size=(64, 96), budget=budget)
        assert all(choice.kl <= budget for choice in chosen)
        assert chosen[0].bytes_per_map < chosen[1].bytes_per_map
        assert chosen[0].level.grid < chosen[1].level.grid == (64, 96)


def test_a_teacher_without_d1_stores_the_maps_that_it_has(tmp_path: Path, videos: list[VideoSource]) -> None:
    module = TinyHD(decoders=("d2", "d2"), reduction=4)
    write_weights(tmp_path / "d2.safetensors", module.state_dict(), {"kind": "tinyhd", "size": list(SIZE)})
    assistant = load_teacher("tinyhd", weights=tmp_path / "d2.safetensors")
    teacher_dump(videos[:1], str(tmp_path / "d2.zarr"), assistant, DumpOptions(fidelity=BUDGET))
    store = open_store(tmp_path / "d2.zarr")
    assert set(store.read(store.videos[0], [0])) == {"d2", "final"}
