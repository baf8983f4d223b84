"""Whatever is done to a store in whatever order, it holds what a model in memory says: Hypothesis looks for the order.

Videos come, change and go; dumps are run, with and without pruning, to their end or killed at some file; bits flip,
files are cut short or lost, and are repaired. The teacher is a stub whose maps are a function of a video's content.
"""

import json
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.store_tools import assert_stored, describe, make_shard, sources_of, synthetic_logits
from tinyhd_pipe.store import ShardTask, StoreError, StoreWriter, create_or_open, open_store
from tinyhd_pipe.store.repair import repair
from tinyhd_pipe.store.storage import PARTIAL, LocalStorage
from tinyhd_pipe.store.verify import Damage, verify

VIDEOS = st.sampled_from(["a.avi", "b.avi", "c.avi", "d/e.avi"])
CONTENTS = st.sampled_from(["red", "green", "blue"])
SMALL = 3_000
"""Bytes of a shard: one or two videos."""
BOUNDED = settings(
    max_examples=300,
    stateful_step_count=20,
    derandomize=True,
    deadline=None,
    phases=[Phase.generate],  # an order is printed as it was found: shrinking one takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def frames_of(video: str, content: str) -> int:
    """How long a video is, a function of its content; some give no frame at all."""
    return max(0, zlib.crc32(f"{video} {content}".encode()) % 24 - 3)


def make(writer: StoreWriter, task: ShardTask) -> None:
    make_shard(writer, task, {member.id: frames_of(member.id, member.digest) for member in task.members})


class Killed(BaseException):
    """Nothing runs after it, for the store is put back as it was."""


class AnySequence(RuleBasedStateMachine):
    """The store on disk, and what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        room = Path("/dev/shm")
        self.place = tempfile.TemporaryDirectory(dir=room if os.access(room, os.W_OK) else None)
        self.store = Path(self.place.name) / "maps.zarr"
        self.videos: dict[str, str] = {}
        """What a dump would be given: id -> content."""
        self.held: dict[str, str] = {}
        """What the store should hold."""
        self.pruned: set[str] = set()
        """What a killed dump was told to prune: the next one may do it in its place."""
        self.settled = False
        """The last dump has ended."""
        self.damaged = False

    def teardown(self) -> None:
        self.place.cleanup()

    @rule(videos=st.dictionaries(VIDEOS, CONTENTS, min_size=1))
    def videos_come_or_change(self, videos: dict[str, str]) -> None:
        self.videos |= videos

    @rule(video=VIDEOS)
    def a_video_goes(self, video: str) -> None:
        self.videos.pop(video, None)

    @precondition(lambda self: not self.damaged)
    @rule(prune=st.booleans())
    def dump(self, prune: bool) -> None:
        self._write(prune)
        kept = {} if prune else self.held
        found = self._contents()
        expected = {**kept, **self.videos}
        for video in self.pruned - self.videos.keys() - found.keys():
            expected.pop(video, None)
        assert found == expected
        assert not [path for path in self.store.rglob("*") if path.name.endswith((PARTIAL, ".lock"))]
        self.held, self.pruned, self.settled = found, set(), True

    @precondition(lambda self: not self.damaged and self.videos.items() - self.held.items())
    @rule(prune=st.booleans(), files=st.integers(0, 12))
    def dump_and_be_killed(self, prune: bool, files: int) -> None:
        if not self._killed(prune, files):
            return self.dump(prune)
        found = self._contents()
        self.pruned |= (self.held.keys() - self.videos.keys()) if prune else set()
        for video, content in found.items():
            assert content in (self.held.get(video), self.videos.get(video))
        assert found.keys() >= self.held.keys() - self.pruned, "until a video is there anew it is there as it was"
        self.held, self.settled = found, False
        return None

    @precondition(lambda self: self.settled and not self.damaged and (self.store / "plans").exists())
    @rule(data=st.data(), how=st.sampled_from(["flipped", "cut", "lost"]))
    def a_file_is_damaged(self, data: st.DataObject, how: str) -> None:
        path = data.draw(st.sampled_from(sorted(path for path in self.store.rglob("*") if path.is_file())))
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        missed = how != "lost" or self._is_missed(path)
        if how == "lost":
            path.unlink()
        elif how == "cut":
            path.write_bytes(content[:place])
        else:
            content[place] ^= 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content)
        self.damaged = missed

    def _is_missed(self, path: Path) -> bool:
        """Whether anything depends on a file; nothing does on a plan of shards that were all replaced since."""
        if path.parent.name != "plans":
            return True
        shards = json.loads(path.read_text())["attributes"]["tinyhd"]["shards"]
        return any((self.store / f"shards/{shard['shard']:05d}").exists() for shard in shards)

    @precondition(lambda self: self.damaged)
    @rule()
    def repair(self) -> None:
        writer = create_or_open_known(self.store)
        with writer.exclusive():
            for task in repair(self.store, verify(self.store)):
                make(writer, task)
        self.damaged = False
        assert self._contents() == self.held

    @invariant()
    def what_is_read_is_right_and_damage_is_found(self) -> None:
        if not (self.store / "zarr.json").exists() and not self.damaged:
            assert not self.held
            return
        damages = verify(self.store).damages
        if self.damaged:
            self._read_right_or_not_at_all(damages)
        else:
            assert self._contents() == self.held
            assert all("was not finished" in damage.reason for damage in damages)
            assert not (self.settled and damages)

    def _write(self, prune: bool) -> None:
        writer = create_or_open(self.store, describe())
        lengths = {video: frames_of(video, content) for video, content in self.videos.items()}
        with writer.exclusive():
            for task in writer.plan(sources_of(lengths, self.videos), shard_bytes=SMALL, prune=prune).todo:
                make(writer, task)

    def _killed(self, prune: bool, files: int) -> bool:
        """Whether a dump that is killed when it renames or removes another file after so many was killed before its
        end."""
        rename, remove, left, as_it_was = Path.replace, LocalStorage.remove, files, self.store.with_name("killed")

        def count() -> None:
            nonlocal left
            if left == 0:
                shutil.copytree(self.store, as_it_was)
                raise Killed
            left -= 1

        def counted_rename(source: Path, target: Path) -> Path:
            count()
            return rename(source, target)

        def counted_removal(storage: LocalStorage, path: str) -> None:
            if not as_it_was.exists():  # else the exception's own tidying up, which a kill leaves undone
                count()
            remove(storage, path)

        before = self.store.with_name("before")
        if self.store.exists():
            shutil.copytree(self.store, before)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "replace", counted_rename)
            patch.setattr(LocalStorage, "remove", counted_removal)
            try:
                self._write(prune)
            except Killed:
                shutil.rmtree(before, ignore_errors=True)
                shutil.rmtree(self.store)
                as_it_was.rename(self.store)
                return True
        shutil.rmtree(self.store)
        if before.exists():
            before.rename(self.store)
        return False

    def _contents(self) -> dict[str, str]:
        """What the store holds; every map of it is looked at."""
        if not (self.store / "zarr.json").exists():
            return {}
        store = open_store(self.store)
        return {video: self._read(video) for video in store.videos}

    def _read(self, video: str) -> str:
        store = open_store(self.store)
        row = store.video(video)
        frames = frames_of(video, row.digest)
        assert (row.frames, row.rows) == (frames, frames)
        live = synthetic_logits(video + row.digest, frames)
        read = store.read_logits(video, range(frames))
        for level in store.description.levels:
            assert_stored(read[level.name], live[level.name], level.scale)
        return row.digest

    def _read_right_or_not_at_all(self, damages: tuple[Damage, ...]) -> None:
        assert damages, "damage is found"
        for video in self.held:
            try:
                assert self._read(video) == self.held[video]
            except StoreError:
                continue


def create_or_open_known(store: Path) -> StoreWriter:
    return StoreWriter(os.fspath(store), describe())


@pytest.mark.slow
def test_after_any_sequence_the_store_holds_what_the_model_says() -> None:
    run_state_machine_as_test(AnySequence, settings=BOUNDED)
