"""Decoding, teacher and writing overlap: bytes stay what they were, and whatever fails anywhere fails in the caller."""

import errno
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.stages.test_teacher_dump import BUDGET, SIZE, _clip, _files, _teacher
from tests.stages.training.test_training import RECIPE
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump import map_source, shard_work
from tinyhd_pipe.stages.networks.network import Network, scaling_for
from tinyhd_pipe.stages.networks.overlap import ahead, cores, in_parallel, one_thread
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.student_train import stored_videos, student_train
from tinyhd_pipe.stages.teacher_dump import DumpProgress, teacher_dump
from tinyhd_pipe.stages.training.dataset import ClipDataset, Sampling
from tinyhd_pipe.stages.training.fitting import Fitted, Run
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import Store, StoreError, open_store, storage


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return _teacher(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[VideoSource]:
    folder = tmp_path_factory.mktemp("videos")
    for number, frames in enumerate((34, 18, 3)):
        write_video(folder / f"{number}.mp4", _clip(frames, number))
    return find_videos([folder])


def _dump(videos: list[VideoSource], store: Path, teacher: Network, **options: Any) -> None:
    teacher_dump(videos, str(store), teacher, DumpOptions(fidelity=BUDGET, shard_megabytes=30_000 / 2**20), **options)


@pytest.fixture(scope="module")
def dumped(teacher: Network, videos: list[VideoSource], tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("dumped") / "maps.zarr"
    _dump(videos, store, teacher)
    return store


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same_bytes(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _dump(videos, tmp_path / "maps.zarr", teacher)
        assert torch.get_num_threads() == threads, "what the caller set is left alone"
    finally:
        torch.set_num_threads(before)
    assert _files(tmp_path / "maps.zarr") == _files(dumped)


class _FullDisk:
    """A file on a disk that is full after two chunks."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, 2

    def write(self, payload: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.write(payload)


def _full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    guarded = storage._guarded
    monkeypatch.setattr(storage, "_guarded", lambda file, path: guarded(_FullDisk(file), path))  # type: ignore[arg-type]


def _failing_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, calls = map_source.batch_logits, iter(range(3))

    def failing(*arguments: Any) -> Any:
        if next(calls, None) is None:
            raise MemoryError("a teacher's thread")
        return answer(*arguments)

    monkeypatch.setattr(map_source, "batch_logits", failing)


def _failing_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    decode = shard_work.decode

    def failing(source: VideoSource) -> Iterator[Any]:
        for number, picture in enumerate(decode(source)):
            if number == 20:
                raise OSError("the decoder's thread")
            yield picture

    monkeypatch.setattr(shard_work, "decode", failing)


FAILURES: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], type[BaseException], str]] = {
    "the disk is full": (_full_disk, StoreError, "free some and run again"),
    "the teacher fails": (_failing_teacher, MemoryError, "a teacher's thread"),
    "decoding fails": (_failing_decoder, OSError, "the decoder's thread"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_in_any_thread_reaches_the_caller_and_leaves_no_open_shard(
    failure: str, teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    fail, error, message = FAILURES[failure]
    threads = threading.active_count()
    store = tmp_path / "maps.zarr"
    with pytest.MonkeyPatch.context() as patch:
        fail(patch)
        with pytest.raises(error, match=message):
            _dump(videos, store, teacher)
    assert threading.active_count() == threads, "every thread has ended"
    assert not list(store.rglob("*.partial"))
    assert not list(store.rglob("c/0/0/0"))
    _dump(videos, store, teacher)
    assert _files(store) == _files(dumped)


def test_an_interruption_ends_every_thread_and_a_rerun_ends_with_the_same_bytes(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    threads = threading.active_count()

    def interrupt(at: DumpProgress) -> None:
        if at.frames >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _dump(videos, tmp_path / "maps.zarr", teacher, report=interrupt)
    assert threading.active_count() == threads
    assert not list((tmp_path / "maps.zarr").rglob("*.partial"))
    _dump(videos, tmp_path / "maps.zarr", teacher)
    assert _files(tmp_path / "maps.zarr") == _files(dumped)


def test_progress_tells_what_was_done(
    teacher: Network, videos: list[VideoSource], dumped: Path, tmp_path: Path
) -> None:
    told: list[DumpProgress] = []
    _dump(videos, tmp_path / "maps.zarr", teacher, report=told.append)
    written = [path.stat().st_size for path in (tmp_path / "maps.zarr").rglob("c/0/0/0")]
    assert (told[0].frames, told[0].bytes_written, told[0].frames_a_second) == (0, 0, 0)
    assert (told[-1].frames, told[-1].videos, told[-1].bytes_written) == (34 + 18 + 3, 3, sum(written))
    assert told[-1].frames_in_all == 34 + 18 + 3
    for before, after in pairwise(told):
        assert before.frames <= after.frames
        assert before.seconds <= after.seconds
        assert before.bytes_written <= after.bytes_written
    assert told[-1].frames_a_second == told[-1].frames / told[-1].seconds


def test_items_are_worked_on_side_by_side_given_in_order_and_never_taken_far_ahead() -> None:
    together = threading.Barrier(3, timeout=20)
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in range(1, 31):
            taken = item
            yield item

    def work(item: int) -> tuple[int, int]:
        together.wait()  # breaks unless three are here at once
        return item, torch.get_num_threads()

    for done, answer in enumerate(in_parallel(work, items(), 3), start=1):
        assert answer == (done, 1)
        assert taken <= done + 6
    assert done == 30


def test_a_slow_caller_finds_items_made_ahead() -> None:
    made = threading.Semaphore(0)

    def items() -> Iterator[int]:
        for item in range(6):
            made.release()
            yield item

    coming = ahead(items(), depth=4)
    assert next(coming) == 0
    assert [made.acquire(timeout=20) for _ in range(5)] == [True] * 5, "made while nobody asks"
    assert list(coming) == [1, 2, 3, 4, 5]


def test_a_student_learns_from_a_dump_of_every_fifth_frame_and_asks_for_no_other(
    videos: list[VideoSource], tmp_path: Path
) -> None:
    url, weights = tmp_path / "fifth.zarr", tmp_path / "teacher0.safetensors"
    _teacher(tmp_path)
    command = f"teacher-dump --weights {weights} --store {url} --every 5 --set teacher_dump.every=2"
    settings = ["--set", f"teacher_dump.fidelity={BUDGET}", "--set", "teacher_dump.precision=float32"]
    assert run([*command.split(), *settings, "--videos", str(videos[0].path.parent)]) == 0
    store = open_store(url)
    there = {video: set(range(0, store.video(video).frames, 5)) for video in store.videos}
    assert {video: store.video(video).rows for video in there} == {"0.mp4": 7, "1.mp4": 4, "2.mp4": 1}
    asked: list[tuple[str, list[int]]] = []
    read = Store.read

    def recorded(self: Store, video: str, frames: Any, **options: Any) -> Any:
        asked.append((video, list(frames)))
        return read(self, video, frames, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "read", recorded)
        fitted = _trained(store, videos, tmp_path / "run")
        multiple = ClipDataset(
            stored_videos(Targets.of([store]), videos, []),
            scaling=scaling_for("tinyhd", SIZE),
            sampling=Sampling(outputs=16, seed=0),
            targets=Targets.of([store]),
        )
        assert all(np.isfinite(multiple[epoch, 0].maps["final"].numpy()).all() for epoch in range(5))
    assert all(np.isfinite(value) for value in fitted.history[0].loss.values())
    assert {video for video, _ in asked} == set(there)
    assert {len(frames) for _, frames in asked} >= {1, 4}, "one target for S, those of 16 frames for M"
    assert all(there[video].issuperset(frames) for video, frames in asked)


def _trained(store: Store, videos: list[VideoSource], out: Path) -> Fitted:
    return student_train(Targets.of([store]), videos, [], replace(RECIPE, epochs=1, validation_share=0.34), Run(out))


def test_of_two_that_need_one_thread_the_first_to_end_does_not_give_the_other_one_more() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first, second = one_thread(), one_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert (torch.get_num_threads(), cores()) == (1, 2)
        second.__exit__(None, None, None)
        assert (torch.get_num_threads(), cores()) == (2, 2)
    finally:
        torch.set_num_threads(before)
