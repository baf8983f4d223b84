"""`store` on the command line: what is damaged is repaired with the store's own teacher, sampled, and looked at."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.small_dumps import LENGTHS, SIZE, dump_of, finished_shards, write_teacher, write_videos
from tests.store_tools import content_of
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump import map_source
from tinyhd_pipe.stages.networks.network import Network
from tinyhd_pipe.stages.networks.teacher_maps import window_batches
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import open_store
from tinyhd_pipe.store.lock import exclusive
from tinyhd_pipe.store.storage import open_storage

Files = dict[str, bytes]


@dataclass(frozen=True)
class Dumped:
    """A store, what it was made from, and its bytes as they should be."""

    store: Path
    videos: Path
    weights: Path
    before: Files

    @property
    def teacher(self) -> list[str]:
        """The options with which maps can be made again."""
        return ["--videos", str(self.videos), "--weights", str(self.weights), "--teacher", "tinyhd"]

    def flip(self, path: str, at: int = 40) -> None:
        """Flip one bit of a file."""
        stored = bytearray((self.store / path).read_bytes())
        stored[at] ^= 1
        (self.store / path).write_bytes(stored)

    def repair(self, *more: str) -> int:
        return run(["store", "verify", str(self.store), "--repair", "--json", *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Dumped:
    folder = tmp_path_factory.mktemp("made")
    videos = write_videos(folder / "videos", {**LENGTHS, "long.mp4": 40})
    (videos / "broken.mp4").write_text("no video")
    weights = write_teacher(folder / "teacher.safetensors")
    assert run(list(map(str, dump_of(videos, weights, folder / "maps.zarr")))) == 1, "one does not decode"
    return Dumped(folder / "maps.zarr", videos, weights, content_of(folder / "maps.zarr"))


@pytest.fixture
def dumped(made: Dumped, tmp_path: Path) -> Dumped:
    shutil.copytree(made.store, tmp_path / "maps.zarr")
    return Dumped(tmp_path / "maps.zarr", made.videos, made.weights, made.before)


def _delete_shard(dumped: Dumped) -> None:
    shutil.rmtree(dumped.store / "shards/00002")


def _delete_the_shard_of_the_broken_video(dumped: Dumped) -> None:
    (manifest,) = (path for path in finished_shards(dumped.store) if b"broken.mp4" in path.read_bytes())
    shutil.rmtree(manifest.parent)


def _truncate(dumped: Dumped) -> None:
    file = dumped.store / "shards/00001/final/c/0/0/0"
    file.write_bytes(file.read_bytes()[:-200])


def _flip_chunk(dumped: Dumped) -> None:
    dumped.flip("shards/00003/final/c/0/0/0")


def _flip_manifest(dumped: Dumped) -> None:
    dumped.flip("shards/00003/zarr.json", at=300)


def _flip_much(dumped: Dumped) -> None:
    _flip_chunk(dumped)
    _truncate(dumped)
    dumped.flip("zarr.json")
    dumped.flip("shards/00000/final/zarr.json")


@pytest.mark.parametrize(
    ("damage", "shards"),
    [
        (_delete_shard, {2}),
        (_delete_the_shard_of_the_broken_video, {6}),
        (_truncate, {1}),
        (_flip_chunk, {3}),
        (_flip_manifest, {3}),
        (_flip_much, {0, 1, 3}),
    ],
)
def test_a_repair_redoes_just_the_damaged_shards_and_ends_with_the_bytes_that_were_there(
    dumped: Dumped, capsys: pytest.CaptureFixture[str], damage: Callable[[Dumped], None], shards: set[int]
) -> None:
    times = {path: path.stat().st_mtime_ns for path in finished_shards(dumped.store)}
    damage(dumped)
    assert run(["store", "verify", str(dumped.store)]) == 1
    capsys.readouterr()
    assert dumped.repair(*dumped.teacher) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["damages"] == []
    assert result["repaired"]["shards"] == len(shards)
    assert content_of(dumped.store) == dumped.before
    touched = {path.parent.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert touched == {f"{shard:05d}" for shard in shards}


@pytest.mark.parametrize(
    "path",
    [
        "zarr.json",
        "shards/zarr.json",
        "plans/00000.json",
        "shards/00001/final/zarr.json",
        "shards/00001/final/c/0/0/0",
    ],
)
def test_what_needs_no_teacher_is_repaired_without_one(dumped: Dumped, path: str) -> None:
    dumped.flip(path, at=-20)  # of a data file: in its index
    assert run(["store", "verify", str(dumped.store)]) == 1
    assert dumped.repair() == 0
    assert content_of(dumped.store) == dumped.before


def _another_teacher(dumped: Dumped, folder: Path) -> list[str]:
    return [*dumped.teacher[:3], str(write_teacher(folder / "other.safetensors", seed=1)), *dumped.teacher[4:]]


def _without_the_video(dumped: Dumped, folder: Path) -> list[str]:
    return ["--videos", str(write_videos(folder / "v", {"other.mp4": 5})), *dumped.teacher[2:]]


def _with_another_video(dumped: Dumped, folder: Path) -> list[str]:
    return ["--videos", str(write_videos(folder / "v", {"3.mp4": 5})), *dumped.teacher[2:]]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (lambda dumped, folder: [], "maps of 3.mp4 are lost: give --weights and --videos"),
        (_another_teacher, "made with teacher.weights_sha256 = "),
        (_without_the_video, "3.mp4: its maps are lost, and it is not among the videos given: add it to --videos"),
        (_with_another_video, "3.mp4: changed since the teacher saw it"),
    ],
)
def test_a_repair_that_would_not_give_the_lost_maps_is_refused(
    dumped: Dumped,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: Callable[[Dumped, Path], list[str]],
    line: str,
) -> None:
    _flip_chunk(dumped)
    damaged = content_of(dumped.store)
    assert dumped.repair(*options(dumped, tmp_path)) == 1
    assert line in capsys.readouterr().err.strip().splitlines()[-1]
    assert content_of(dumped.store) == damaged


def test_reruns_and_repairs_see_windows_in_the_batches_of_the_first_dump(
    made: Dumped, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen = tmp_path / "maps.zarr", []
    monkeypatch.setattr(
        map_source, "window_batches", lambda teacher, *args, **options: _noted(seen, teacher, *args, **options)
    )

    def dump(*more: str) -> set[int]:
        seen.clear()
        run(list(map(str, dump_of(made.videos / "long.mp4", made.weights, store, *more))))
        return set(seen)

    assert dump("--set", "teacher_dump.batch=2") == {2}
    before = content_of(store)
    shutil.rmtree(store / "shards/00000")
    assert dump() == {2}
    damaged = Dumped(store, made.videos, made.weights, before)
    damaged.flip("shards/00000/final/c/0/0/0")
    seen.clear()
    assert damaged.repair(*damaged.teacher) == 0
    assert set(seen) == {2}
    assert content_of(store) == before


def _noted(seen: list[int], teacher: Network, *arguments: Any, **options: Any) -> Any:
    seen.append(teacher.batch)
    return window_batches(teacher, *arguments, **options)


def test_a_repair_waits_for_no_dump(dumped: Dumped, capsys: pytest.CaptureFixture[str]) -> None:
    with exclusive(open_storage(dumped.store)):
        assert dumped.repair() == 1
    assert "another dump is writing to it" in capsys.readouterr().err


def _sample(dumped: Dumped, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, Any]:
    code = run(["store", "verify", str(dumped.store), "--sample", "12", *dumped.teacher, "--json", *more])
    return code, json.loads(capsys.readouterr().out)["sampled"]


def test_sampled_frames_are_those_of_the_teacher(dumped: Dumped, capsys: pytest.CaptureFixture[str]) -> None:
    code, sampled = _sample(dumped, capsys)
    assert code == 0
    assert sampled["frames"] == 12
    assert all(level["kl"] <= 2 * sampled["budget"] for level in sampled["levels"].values())
    assert all(0 < level["max_difference"] < 0.5 for level in sampled["levels"].values())
    assert _sample(dumped, capsys, "--seed", "1")[1] != sampled, "another seed draws other frames"
    assert _sample(dumped, capsys)[1] == sampled


def test_info_can_be_pasted_and_says_what_plain_arrays_would_take(
    made: Dumped, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["store", "info", str(made.store), "--json"]) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    frames = sum(LENGTHS.values()) + 40
    assert facts["frames_with_maps"] == frames
    assert facts["bytes_as_float32"] == 2 * facts["bytes_as_float16"] == frames * 6 * SIZE[0] * SIZE[1] * 4, (
        "D1's, D2's and final"
    )
    for said in (
        facts["teacher"]["weights_sha256"][:16],
        "none stated",
        "every frame of the window",
        "123.675",
        "final",
    ):
        assert said in captured.err


def _picture(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.array(image)


def test_show_draws_the_frames_that_were_asked_for_beside_their_maps(
    made: Dumped, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sheets" / "long.png"
    show = [
        "store",
        "show",
        str(made.store),
        "long.mp4",
        "--frames",
        "10:31",
        "--rows",
        "3",
        "--out",
        str(out),
        "--json",
    ]
    assert run(show) == 0
    drawn = json.loads(capsys.readouterr().out)
    assert (drawn["frames"], drawn["pictures"], drawn["path"]) == ([10, 20, 30], False, str(out))
    width = _picture(out).shape[1]
    assert run([*show, "--videos", str(made.videos)]) == 0
    picture = _picture(out)
    assert picture.shape[1] > width, "one column more: the frame"
    panel = picture[30:140, 10:240].astype(float)
    (source,) = find_videos([made.videos / "long.mp4"])
    distances = {}
    for frame in (9, 10, 11, 20, 30):
        shown = Image.fromarray(read_frames(source, np.array([frame]))[0]).resize((240, 120))
        distances[frame] = np.abs(np.array(shown)[6:116, 4:234] - panel).mean()
    assert min(distances, key=lambda frame: distances[frame]) == 10
    assert not open_store(made.store).status("long.mp4", drawn["frames"]).any()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["none.mp4"], 1, "none.mp4: not in "),
        (["broken.mp4"], 1, "broken.mp4: gave no frame when it was dumped: not a video"),
        (["0.mp4", "--frames", "7"], 2, "--frames 7: expected A:B"),
        (["0.mp4", "--frames", "9:12"], 2, "--frames 9:12: no frame there; the video has frames 0 to 8"),
        (["0.mp4", "--videos", "changed"], 1, "0.mp4: changed since the teacher saw it"),
        (["1.mp4", "--videos", "changed"], 1, "1.mp4: not among the 1 videos given"),
    ],
)
def test_what_cannot_be_shown_is_one_line(
    made: Dumped,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "changed").mkdir()
    write_video(tmp_path / "changed" / "0.mp4", np.zeros((3, 32, 32, 3), np.uint8))
    assert run(["store", "show", str(made.store), *arguments]) == code
    assert line in capsys.readouterr().err.strip().splitlines()[-1]
    assert not list(tmp_path.glob("*.png"))
