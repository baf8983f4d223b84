"""Real dumps on the command line that are killed, interrupted, doubled, or left without room: a rerun mends it all."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.small_dumps import LENGTHS, dump_of, finished_shards, write_teacher, write_videos
from tests.store_tools import content_of
from tests.warm_command import WarmCommand
from tinyhd_pipe.store import open_store
from tinyhd_pipe.store.storage import PARTIAL

KILLS = int(os.environ.get("KILLS", "30"))


@dataclass(frozen=True)
class Place:
    """What all of these dumps are made from, and what they must end with."""

    warm: WarmCommand
    videos: Path
    weights: Path
    whole: dict[str, bytes]
    seconds: float
    """What one of these dumps takes."""

    def dump(self, store: Path, *more: str) -> list[object]:
        return dump_of(self.videos, self.weights, store, *more)

    def rerun(self, store: Path) -> int:
        """Run the dump to its end; returns how many frames it made."""
        code, output = self.warm.run(self.dump(store), store.with_suffix(".log"))
        assert code == 0, output
        return int(json.loads(output[output.index("{\n") :])["frames"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("killed")
    videos, weights = write_videos(folder / "videos"), write_teacher(folder / "teacher.safetensors")
    with WarmCommand() as warm:
        for name in ("first", "whole"):
            started = time.monotonic()
            code, output = warm.run(dump_of(videos, weights, folder / name), folder / "log")
            assert code == 0, output
        yield Place(warm, videos, weights, content_of(folder / "whole"), time.monotonic() - started)


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: dumps wait for the disk most of their time, and a kill loses no page."""
    room = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=room if os.access(room, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def _files(store: Path) -> int:
    """How many files there are that have their name."""
    return sum(not name.endswith(PARTIAL) for _, _, names in os.walk(store) for name in names)


def _frames(manifests: list[Path], store: Path) -> int:
    held = [store / path for path in manifests]
    return sum(sum(json.loads(path.read_text())["attributes"]["tinyhd"]["videos"]["rows"]) for path in held)


@pytest.mark.slow
def test_a_dump_killed_at_any_instant_ends_after_a_rerun_as_if_it_never_was_and_redoes_only_the_open_shard(
    place: Place, memory: Path
) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    alive, shards = 0, set()
    # Instants are even over the work, not over time, so that a busy machine changes nothing: so many files, and then
    # what it takes to make a few.
    instants = np.linspace(0, 0.9 * len(place.whole), KILLS) + rng.random(KILLS)
    for kill, files in enumerate(instants.tolist()):
        store = memory / f"{kill}.zarr"
        running = place.warm.start(place.dump(store), memory / "killed.log")
        running.until(lambda store=store, files=int(files): _files(store) >= files)  # type: ignore[misc]
        time.sleep(rng.random() * place.seconds * 3 / len(place.whole))
        running.signal(signal.SIGKILL)
        alive += running.wait() == -signal.SIGKILL
        manifests = finished_shards(store)
        shards.add(len(manifests))
        kept = {file: file.stat().st_mtime_ns for path in manifests for file in path.parent.rglob("*")}
        finished = _frames(manifests, store)
        made = place.rerun(store)
        told = f"seed {seed}, kill {kill} after {len(manifests)} shards"
        assert content_of(store) == place.whole, told
        assert {file: file.stat().st_mtime_ns for file in kept} == kept, told
        assert made == sum(LENGTHS.values()) - finished, told
        shutil.rmtree(store)
    assert alive > KILLS / 2
    assert len(shards) > 3, "they were spread over the dump's life"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_termination_drop_the_open_shard_and_exit_with_their_codes(
    place: Place, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    store = tmp_path / "maps.zarr"
    command = Path(sys.executable).with_name("tinyhd-pipe")
    arguments = [str(argument) for argument in place.dump(store)]
    process = subprocess.Popen([command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not finished_shards(store) and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(sent)
    _, said = process.communicate()
    assert process.returncode == code, said
    assert "what was finished is kept" in said.splitlines()[-1]
    assert "Traceback" not in said
    finished = finished_shards(store)
    assert 0 < len(finished) < len(LENGTHS)
    assert [path.parent for path in finished] == sorted(path for path in (store / "shards").iterdir() if path.is_dir())
    assert content_of(store).items() < place.whole.items(), "no lock, nothing half-written"
    assert place.rerun(store) == sum(LENGTHS.values()) - _frames(finished, store)
    assert content_of(store) == place.whole


@pytest.mark.parametrize("shards", [0, 2])
def test_of_two_dumps_at_once_the_second_says_so_and_stops_and_a_dead_one_blocks_nobody(
    place: Place, tmp_path: Path, shards: int
) -> None:
    store = tmp_path / "maps.zarr"
    other = write_teacher(tmp_path / "other.safetensors", seed=1)
    first = place.warm.start(place.dump(store), tmp_path / "first.log")
    first.until(lambda: (store / ".lock").exists() and len(finished_shards(store)) >= shards)
    first.signal(signal.SIGSTOP)
    before = content_of(store)
    for weights in (place.weights, other):
        code, said = place.warm.run(dump_of(place.videos, weights, store), tmp_path / "second.log")
        assert code == 1
        assert "another dump is writing to it: wait for it" in said.splitlines()[-1]
    assert content_of(store) == before
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    assert (store / ".lock").exists(), "the dead one has left its lock"
    place.rerun(store)
    assert content_of(store) == place.whole


def _mount(*arguments: object) -> bool:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode == 0


@contextmanager
def _small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of that size; only the superuser may mount one."""
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", folder):
        pytest.skip("cannot mount a file system here; a full disk is also simulated in test_store_recovery.py")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_with_room_a_rerun_goes_on(place: Place, tmp_path: Path) -> None:
    with _small_disk(tmp_path / "disk", kilobytes=160) as disk:
        store = disk / "maps.zarr"
        code, said = place.warm.run(place.dump(store), tmp_path / "full.log")
        assert code == 1
        assert "No space left on device: free some and run again" in said.splitlines()[-1]
        assert "Traceback" not in said
        finished = finished_shards(store)
        times = {path: path.stat().st_mtime_ns for path in finished}
        assert 0 < len(finished) < len(LENGTHS)
        assert open_store(store).videos == [name for name, _ in zip(LENGTHS, finished, strict=False)]
        assert _mount("-o", "remount,size=10m", disk)
        code, said = place.warm.run(place.dump(store), tmp_path / "room.log")
        assert code == 0, said
        assert content_of(store) == place.whole
        assert {path: path.stat().st_mtime_ns for path in finished} == times


@contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    """Let nobody write below a folder."""
    if os.geteuid() == 0:  # whom no mode stops
        if not (_mount("--bind", folder, folder) and _mount("-o", "remount,ro,bind", folder)):
            pytest.skip("the superuser cannot make a folder read-only here")
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)
    else:
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for each in folders:
            each.chmod(0o555)
        yield
        for each in folders:
            each.chmod(0o755)


def test_a_read_only_store_can_be_read_and_refuses_a_dump_in_one_line(place: Place, tmp_path: Path) -> None:
    store = tmp_path / "maps.zarr"
    place.rerun(store)
    with _read_only(store):
        sheet = ["store", "show", store, "0.mp4", "--out", tmp_path / "sheet.png"]
        for command in (["store", "info", store], ["store", "verify", store], sheet, place.dump(store, "--plan")):
            code, said = place.warm.run(command, tmp_path / "read.log")
            assert code == 0, said
        code, said = place.warm.run(place.dump(store), tmp_path / "refused.log")
        assert code == 1
        assert "cannot be written" in said.splitlines()[-1]
    assert content_of(store) == place.whole
