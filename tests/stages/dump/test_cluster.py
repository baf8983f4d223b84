"""Many workers, one store: the bytes of a single process, whoever dies, and nothing is made twice."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from distributed import Client

from tests.stages.test_teacher_dump import BUDGET, _clip, _files, _teacher
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump import cluster_work
from tinyhd_pipe.stages.dump.cluster import Cluster, _Tally
from tinyhd_pipe.stages.dump.cluster_work import Order, TeacherFile, make_shard_once
from tinyhd_pipe.stages.dump.identity import describe
from tinyhd_pipe.stages.networks.network import Network, load_teacher
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.teacher_dump import DumpProgress, teacher_dump
from tinyhd_pipe.stages.video.sources import VideoSource, digest, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import ShardTask, Source, StoreError, StoreWriter, create_or_open, open_store
from tinyhd_pipe.store.errors import SettingError, TinyHDError
from tinyhd_pipe.store.plan import Member
from tinyhd_pipe.store.verify import verify

SHARD_BYTES = 30_000
OPTIONS = DumpOptions(fidelity=BUDGET, shard_megabytes=SHARD_BYTES / 2**20)
LENGTHS = (40, 20, 7, 1, 33, 30)
MAPS = sum(LENGTHS)
WEIGHTS = "teacher0.safetensors"
BIN = Path(sys.executable).parent


# The small teacher gains nothing from a second thread; workers take their number from here.
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """Videos, one of them broken, and the weights of a small teacher."""
    root = tmp_path_factory.mktemp("place")
    (root / "videos").mkdir()
    for number, frames in enumerate(LENGTHS):
        write_video(root / "videos" / f"{number}.mp4", _clip(frames, number))
    (root / "videos" / "broken.mp4").write_text("no video")
    _teacher(root)
    return root


@pytest.fixture(scope="module")
def teacher(place: Path) -> Network:
    return load_teacher("hd2s", weights=place / WEIGHTS)


@pytest.fixture(scope="module")
def videos(place: Path) -> list[VideoSource]:
    return find_videos([place / "videos"])


@pytest.fixture(scope="module")
def whole(teacher: Network, videos: list[VideoSource], place: Path) -> Path:
    """The store as one process makes it."""
    teacher_dump(videos, str(place / "whole.zarr"), teacher, OPTIONS)
    return place / "whole.zarr"


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real scheduler with two real workers, in processes of their own."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", file]
    commands = [
        [BIN / "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", *common],
        *[[BIN / "dask", "worker", "--no-nanny", "--nthreads", "1", *common]] * 2,
    ]
    with (folder / "log").open("w") as log:
        processes = [subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) for command in commands]
        while not file.exists():
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _workers_of(process: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it ended meanwhile
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_two_workers_leave_the_bytes_of_one_process_also_when_one_is_killed_at_work(
    teacher: Network, videos: list[VideoSource], place: Path, whole: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "maps.zarr")
    told: list[DumpProgress] = []
    killed: list[int] = []

    def kill_one(at: DumpProgress) -> None:
        told.append(at)
        if at.frames >= MAPS // 4 and not killed:
            with pytest.raises(StoreError, match="another dump is writing to it"):
                teacher_dump(videos, store, teacher, DumpOptions(fidelity=BUDGET))
            victim = max(_workers_of(psutil.Process()), key=lambda worker: worker.pid)
            killed.append(victim.pid)
            victim.kill()

    cluster = Cluster(TeacherFile.of(teacher, place / WEIGHTS), workers=2)
    dumped = teacher_dump(
        videos,
        store,
        teacher,
        OPTIONS,
        cluster=cluster,
        report=kill_one,
    )
    assert killed
    assert _files(Path(store)) == _files(whole)
    assert (told[-1].frames, told[-1].videos) == (MAPS, len(videos)) == (dumped.frames, told[-1].videos_in_all)
    assert max(at.frames for at in told) == MAPS
    assert list(dumped.problems) == ["broken.mp4"]
    assert not _workers_of(psutil.Process())


def test_an_existing_cluster_gives_the_same_bytes_and_loads_the_teacher_once_a_worker(
    place: Path, whole: Path, scheduler: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "maps.zarr"
    assert run([*_command(place, store), "--scheduler", scheduler, "--json"]) == 1  # one video is broken
    shown = capfd.readouterr()
    assert json.loads(shown.out)["frames"] == MAPS
    assert "distributed" not in shown.err
    assert _files(store) == _files(whole)
    loads = _on_workers(scheduler, lambda: cluster_work._loaded.cache_info().misses)
    assert sum(loads) >= 1
    assert max(loads) <= 1


def _order(store: Path, teacher: Network, videos: list[VideoSource], file: TeacherFile) -> tuple[Order, ShardTask]:
    """A store that is begun, and the order and the task of its first shard."""
    writer = create_or_open(store, describe(teacher, videos[:1], DumpOptions(fidelity=BUDGET)))
    task = writer.plan([Source(video.id, digest(video), 1) for video in videos]).todo[0]
    return Order(writer, file, threads=3, topic="test", spread=False), task


def test_a_task_that_runs_on_two_workers_at_once_is_made_by_one_of_them(
    teacher: Network, videos: list[VideoSource], place: Path, scheduler: str, tmp_path: Path
) -> None:
    order, task = _order(tmp_path / "s", teacher, videos, TeacherFile.of(teacher, place / WEIGHTS))
    by_id = {video.id: video for video in videos}
    with Client(scheduler, set_as_default=False) as client:
        workers = list(client.scheduler_info()["workers"])
        twice = [client.submit(make_shard_once, order, task, by_id, workers=[worker], key=worker) for worker in workers]
        assert [future.result()[0] for future in twice] == [MAPS, MAPS]
        began = {message[1] for _, message in client.get_events("test")}
        threads = [client.submit(torch.get_num_threads, workers=[worker], pure=False) for worker in workers]
        assert [future.result() for future in threads] == [order.threads] * 2, "its share of the cores"
    assert len(workers) == 2
    assert len(began) == 1, "one attempt only"
    assert verify(tmp_path / "s").sound


def test_a_worker_with_another_teacher_or_other_files_than_ours_says_so_in_one_line(
    teacher: Network, videos: list[VideoSource], place: Path, scheduler: str, tmp_path: Path
) -> None:
    _teacher(tmp_path, seed=1)
    good = TeacherFile.of(teacher, place / WEIGHTS)
    order, task = _order(tmp_path / "s", teacher, videos, good)
    by_id = {video.id: video for video in videos}
    elsewhere = {**by_id, "0.mp4": replace(videos[0], path=tmp_path / "hidden.mp4")}
    no_store = replace(order, writer=StoreWriter(str(tmp_path / "none"), order.writer.description))
    for wrong, sources, reason in (
        (
            replace(order, teacher=replace(good, weights=str(tmp_path / "teacher1.safetensors"))),
            by_id,
            "weights_sha256",
        ),
        (replace(order, teacher=replace(good, weights="/gone.pt")), by_id, "gone.pt"),
        (order, elsewhere, "hidden.mp4: not seen by the worker at tcp://"),
        (no_store, by_id, "none: no store seen by the worker at tcp://"),
    ):
        with Client(scheduler, set_as_default=False) as client, pytest.raises(TinyHDError, match=reason) as raised:
            client.submit(make_shard_once, wrong, task, sources).result()
        assert "\n" not in str(raised.value)
    assert open_store(tmp_path / "s").videos == []
    assert not (tmp_path / "none").exists()


def test_an_error_in_a_worker_is_the_commands_one_line(
    place: Path, scheduler: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _teacher(tmp_path, seed=1)  # as if the file had been changed since it was read
    changed = TeacherFile("hd2s", str(tmp_path / "teacher1.safetensors"), (32, 64), "float32", 8)
    monkeypatch.setattr(TeacherFile, "of", lambda teacher, weights: changed)
    assert run([*_command(place, tmp_path / "maps.zarr"), "--scheduler", scheduler]) == 1
    said = capfd.readouterr().err.strip().splitlines()
    assert said[-1].startswith("tinyhd-pipe: ")
    assert "made with teacher.weights_sha256 = " in said[-1]
    assert not [line for line in said if "Traceback" in line or "distributed" in line]


def test_where_no_cluster_can_be_had_it_is_one_line(
    place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinyhd_pipe.stages.dump.cluster.SECONDS_TO_CONNECT", 0.5)
    command = _command(place, tmp_path / "maps.zarr")
    in_memory = [word.replace(str(tmp_path / "maps.zarr"), "memory://maps.zarr") for word in command]
    for wrong, code, reason in (
        ([*command, "--scheduler", "tcp://127.0.0.1:1"], 1, "tcp://127.0.0.1:1: no Dask scheduler answers there"),
        ([*command, "--scheduler", "nonsense"], 1, "nonsense: no Dask scheduler answers there"),
        ([*command, "--workers", "2", "--scheduler", "tcp://127.0.0.1:1"], 2, "give one of them"),
        ([*command, "--workers", "0"], 2, "--workers"),
        ([*in_memory, "--workers", "2"], 2, "memory://maps.zarr: lives in one process"),
    ):
        assert run(wrong) == code
        said = capfd.readouterr().err.strip().splitlines()
        assert reason in said[-1]
        assert not [line for line in said if "Traceback" in line or "distributed" in line]


TERMINAL, SCHEDULER, CONTAINER, DEATH = "Ctrl-C", "SIGTERM to all", "SIGTERM to the command", "SIGKILL"
ENDS = {TERMINAL: (signal.SIGINT, 130), SCHEDULER: (signal.SIGTERM, 143), CONTAINER: (signal.SIGTERM, 143)}


@pytest.mark.slow
def test_interrupted_or_killed_it_leaves_no_process_and_a_rerun_ends_with_the_same_bytes(
    place: Path, whole: Path, tmp_path: Path
) -> None:
    store = tmp_path / "maps.zarr"
    command = [str(BIN / "tinyhd-pipe"), *_command(place, store)]
    for way, (kill, code) in {**ENDS, DEATH: (signal.SIGKILL, -signal.SIGKILL)}.items():
        with subprocess.Popen(
            [*command, "--workers", "2"],
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as dump:
            workers: list[psutil.Process] = []
            while not list(store.glob("shards/*/*/c/0/0/*.partial")):
                workers = _workers_of(psutil.Process(dump.pid))
                assert dump.poll() is None
                time.sleep(0.02)
            if way in (TERMINAL, SCHEDULER):
                os.killpg(dump.pid, kill)  # the workers get it, too
            else:
                dump.send_signal(kill)
            said = dump.communicate()[1]
        assert dump.returncode == code
        gone, alive = psutil.wait_procs(workers, timeout=10)
        assert len(gone) == 2
        assert not alive
        assert not [line for line in said.splitlines() if "Traceback" in line or "distributed" in line], said
        finished = len(list(store.glob("shards/*/zarr.json")))
        assert finished < len(list(whole.glob("shards/*/zarr.json")))
        if way != DEATH:
            assert not list(store.rglob("*.partial"))
    assert run(_command(place, store)) == 1
    assert _files(store) == _files(whole)


def test_progress_counts_a_shard_that_is_made_again_once() -> None:
    told: list[tuple[int, int, int]] = []
    tally = _Tally(lambda frames, videos, written: told.append((frames, videos, written)))
    for shard, attempt, frames in ((0, "a", 10), (1, "b", 5), (0, "c", 2), (0, "a", 12), (0, "c", 20)):
        tally.told(shard, attempt, frames, 0, 100 * frames)
    tally.finished(ShardTask(0, (Member("x", ""), Member("y", ""))), 30, 3_100)
    tally.told(0, "c", 29, 1, 2_900)  # came late
    assert told == [(10, 0, 1_000), (15, 0, 1_500), (7, 0, 700), (25, 0, 2_500), (35, 2, 3_600)]


def test_a_cluster_is_ours_or_an_existing_one(teacher: Network, place: Path) -> None:
    file = TeacherFile.of(teacher, place / WEIGHTS)
    for workers, address in ((None, None), (2, "tcp://127.0.0.1:1"), (0, None)):
        with pytest.raises(SettingError, match="workers"):
            Cluster(file, workers, address)


def _on_workers(scheduler: str, function: object) -> list[int]:
    with Client(scheduler, set_as_default=False) as client:
        return list(client.run(function).values())


def _command(place: Path, store: Path) -> list[str]:
    settings = {"fidelity": BUDGET, "shard_megabytes": SHARD_BYTES / 2**20, "precision": "float32"}
    return [
        *("teacher-dump", "--videos", str(place / "videos"), "--store", str(store)),
        *("--weights", str(place / WEIGHTS)),
        *(word for name, value in settings.items() for word in ("--set", f"teacher_dump.{name}={value}")),
    ]
