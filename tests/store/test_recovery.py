"""Killed at any instant, a rerun ends with the bytes of a run that was never killed; two dumps never mix."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.store_tools import (
    assert_stored,
    content_of,
    describe,
    live_logits,
    make_shard,
    sources_of,
    write_store,
)
from tinyhd_pipe.store import StoreError, create_or_open, open_store
from tinyhd_pipe.store.storage import PARTIAL
from tinyhd_pipe.store.verify import verify

LENGTHS = {f"{place:02}.avi": 5 + 3 * place for place in range(12)}
SMALL = 12_000
DUMP = f"""
import sys
from tests.store_tools import write_store
write_store(sys.argv[1], {LENGTHS!r}, shard_bytes={SMALL}, changed=eval(sys.argv[2]))
"""
ROOT = Path(__file__).resolve().parents[2]


def dump_in_subprocess(path: Path, changed: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DUMP, str(path), repr(changed)], cwd=ROOT)


def test_a_dump_killed_anywhere_ends_after_a_rerun_with_the_bytes_of_one_never_killed(tmp_path: Path) -> None:
    changed = {"03.avi": "new", "07.avi": "new"}
    write_store(tmp_path / "whole", LENGTHS, shard_bytes=SMALL)
    first = content_of(tmp_path / "whole")
    write_store(tmp_path / "whole", LENGTHS, shard_bytes=SMALL, changed=changed)
    second = content_of(tmp_path / "whole")
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    cut_short = 0
    for attempt in range(5):  # each is killed after some number of new files: a fast machine changes nothing
        path = tmp_path / f"killed{attempt}"
        for content, now in ((first, None), (second, changed)):
            new = len(content.keys() - (content_of(path) if path.exists() else {}).keys())
            process = dump_in_subprocess(path, now)
            _wait_for_files(path, process, int(rng.integers(1, new * 2 // 3)))
            process.send_signal(signal.SIGKILL)
            process.wait()
            cut_short += content_of(path) != content
            if (path / "zarr.json").exists():
                assert set(open_store(path).videos) <= set(LENGTHS)
            write_store(path, LENGTHS, shard_bytes=SMALL, changed=now)
            assert content_of(path) == content, (attempt, now)
    assert cut_short > 5


@pytest.mark.parametrize("change", [{}, {"03.avi": "new"}])
def test_whatever_file_comes_last_only_whole_shards_are_read_and_a_rerun_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, str]
) -> None:
    lengths = {video: LENGTHS[video] for video in ("02.avi", "03.avi", "09.avi")}
    write_store(tmp_path / "start", lengths if change else {}, shard_bytes=SMALL)
    shutil.copytree(tmp_path / "start", tmp_path / "whole")
    write_store(tmp_path / "whole", lengths, shard_bytes=SMALL, changed=change)
    rename = Path.replace
    last = 0
    while True:
        path = tmp_path / f"cut{last}"
        shutil.copytree(tmp_path / "start", path)
        renamed = []

        def replace(source: Path, target: Path, renamed: list[Path] = renamed, last: int = last) -> Path:
            renamed.append(target)
            if len(renamed) > last:
                raise KeyboardInterrupt
            return rename(source, target)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "replace", replace)
            write_store(path, lengths, shard_bytes=SMALL, changed=change)
        if len(renamed) <= last:
            break
        store = open_store(path)
        for video in store.videos:
            digest = store.video(video).digest
            live = live_logits(video, lengths[video], digest)["final"]
            read = store.read_logits(video, range(lengths[video]))["final"]
            assert_stored(read, live, store.description.levels[0].scale)
        write_store(path, lengths, shard_bytes=SMALL, changed=change)
        assert content_of(path) == content_of(tmp_path / "whole"), renamed[-1]
        last += 1
    assert last > 5


def _wait_for_files(path: Path, process: subprocess.Popen[bytes], number: int) -> None:
    """Until the dump has given so many new files their names, or has ended."""
    before, seen = _names(path), set()
    while process.poll() is None and len(seen) < number:
        time.sleep(0.001)
        seen |= _names(path) - before


def _names(path: Path) -> set[str]:
    """The files of a store while they come and go."""
    found = {str(Path(folder, name)) for folder, _, names in os.walk(path) for name in names}
    return {name for name in found if not name.endswith((PARTIAL, ".lock"))}


def test_only_the_open_shard_is_made_again(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    tasks = writer.plan(sources_of(LENGTHS), shard_bytes=SMALL).todo
    for task in tasks[1::2]:  # workers finish in any order
        make_shard(writer, task, LENGTHS)
    made = write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    assert made == [member.id for task in tasks[::2] for member in task.members]
    write_store(tmp_path / "whole", LENGTHS, shard_bytes=SMALL)
    assert content_of(tmp_path / "s") == content_of(tmp_path / "whole")


def test_what_a_kill_leaves_behind_is_never_read_and_is_swept(tmp_path: Path) -> None:
    write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    before = content_of(tmp_path / "s")
    for leftover in ("shards/00077/final/c/0/0/0", "shards/00000/final/c/0/0/0.1234.partial"):
        (tmp_path / "s" / leftover).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / leftover).write_bytes(b"half")
    store = open_store(tmp_path / "s")
    assert store.videos == sorted(LENGTHS)
    assert verify(tmp_path / "s").sound
    write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    assert content_of(tmp_path / "s") == before


def test_an_exception_in_a_shard_leaves_nothing_behind(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan(sources_of({"a": 40})).todo
    before = content_of(tmp_path / "s")
    with suppress(KeyboardInterrupt), writer.shard(task) as shard, shard.video("a") as video:
        video.append(live_logits("a", 20))
        raise KeyboardInterrupt
    assert content_of(tmp_path / "s") == before
    assert not (tmp_path / "s/shards/00000").exists()


def test_an_interrupt_while_a_shard_is_sealed_drops_it_whole_and_one_right_after_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path / "whole", {"a": 40})
    rename = Path.replace
    kept = []
    for step in range(6):
        path = tmp_path / f"cut{step}"
        writer = create_or_open(path, describe())
        (task,) = writer.plan(sources_of({"a": 40})).todo
        renamed = iter(range(100))

        def interrupted(source: Path, target: Path, renamed: Iterator[int] = renamed, step: int = step) -> None:
            rename(source, target)
            if next(renamed) == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            patch.setattr(Path, "replace", interrupted)
            make_shard(writer, task, {"a": 40})
        kept.append((path / "shards/00000").exists())
        assert open_store(path).videos == ["a"] * kept[-1]
        assert verify(path).sound == kept[-1]
        write_store(path, {"a": 40})
        assert content_of(path) == content_of(tmp_path / "whole")
    assert kept == [False] * 4 + [True] * 2, "two data files, two of metadata, the manifest; then nothing interrupts"


def test_a_full_disk_is_one_line_and_a_rerun_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device: free some") as raised:
        write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    assert verify(tmp_path / "s").sound


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_store(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan(sources_of({"a": 40})).todo
    with pytest.raises(OSError, match=r"the camera is gone"), writer.shard(task):
        raise OSError(5, "the camera is gone")


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot be written: Not a directory"):
        write_store(tmp_path / "file/s", LENGTHS)


def test_a_root_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "s/zarr.json").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"cannot be read: Is a directory: check path and rights"):
        open_store(tmp_path / "s")


def test_a_writer_and_its_tasks_can_be_sent_to_workers(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    plan = writer.plan(sources_of(LENGTHS), shard_bytes=SMALL)
    for task in plan.todo:
        worker, order = pickle.loads(pickle.dumps((writer, task)))
        assert not worker.is_sealed(order)
        make_shard(worker, order, LENGTHS)
        assert worker.is_sealed(order)
    write_store(tmp_path / "whole", LENGTHS, shard_bytes=SMALL)
    assert content_of(tmp_path / "s") == content_of(tmp_path / "whole")


def test_two_workers_on_one_shard_at_once_leave_one_whole_shard(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    (task,) = writer.plan(sources_of({"a": 40})).todo
    live = live_logits("a", 40)
    with writer.shard(task) as one, one.video("a") as first:
        first.append(live)
        make_shard(writer, task, {"a": 40})
        first.finish(40)
    assert verify(tmp_path / "s").sound
    store = open_store(tmp_path / "s")
    assert_stored(store.read_logits("a", range(40))["final"], live["final"], store.description.levels[0].scale)


def test_without_its_plan_a_killed_dump_still_ends_whole(tmp_path: Path) -> None:
    writer = create_or_open(tmp_path / "s", describe())
    tasks = writer.plan(sources_of(LENGTHS), shard_bytes=SMALL).todo
    make_shard(writer, tasks[2], LENGTHS)
    (tmp_path / "s/plans/00000.json").unlink()
    made = write_store(tmp_path / "s", LENGTHS, shard_bytes=SMALL)
    assert sorted([*made, *(member.id for member in tasks[2].members)]) == sorted(LENGTHS)
    assert open_store(tmp_path / "s").videos == sorted(LENGTHS)
