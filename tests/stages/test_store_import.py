"""Maps that others have made: whatever file they lie in, each is stored for its own frame, or said to be missing."""

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from scipy.stats import entropy

from tests.given_maps import CREDIT, KINDS, OPTIONS, SIZE, dots, grey, imported, pictures, shown
from tests.small_dumps import write_teacher, write_videos
from tests.store_tools import content_of
from tests.warm_command import WarmCommand
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump.fidelity import choose_levels
from tinyhd_pipe.stages.dump.map_files import prepared
from tinyhd_pipe.stages.dump.store_check import repair_store, sample_store
from tinyhd_pipe.stages.networks.divergence import kl_divergence
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.predict import predict
from tinyhd_pipe.stages.predictions.products import Wanted
from tinyhd_pipe.stages.settings.predict import Format
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.store_import import find_given_maps
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store import FrameStatus, StoreError, open_store
from tinyhd_pipe.store.errors import DataError, SettingError, VideoError

FRAMES = 14


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    return write_videos(tmp_path / "videos", {"001.mp4": FRAMES, "002.mp4": 9})


@pytest.mark.parametrize("kind", KINDS)
def test_every_map_is_stored_for_its_own_frame_whatever_file_it_lies_in(
    videos: Path, tmp_path: Path, kind: str
) -> None:
    for name, frames in (("001", FRAMES), ("002", 9)):
        KINDS[kind](tmp_path / "maps" / name, dots(frames))
    result = imported(tmp_path / "maps", [videos], tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    lost = 3 if kind == "npz with frames" else 0
    assert result.maps == FRAMES + 9 - 2 * lost
    for video in store.videos:
        there = [frame for frame in store.frames(video).tolist() if frame >= lost]
        assert shown(store, video, there) == there
        assert (store.status(video, range(lost)) == FrameStatus.FAILED).all()


def test_maps_that_are_named_one_too_high_are_seen_one_frame_late_and_first_says_how_names_count(
    videos: Path, tmp_path: Path
) -> None:
    pictures(tmp_path / "maps/001", dots(FRAMES), first=2)
    imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "late.zarr")
    assert shown(open_store(tmp_path / "late.zarr"), "001.mp4", [1, 2, 3]) == [0, 1, 2]
    imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "s.zarr", first=2)
    assert shown(open_store(tmp_path / "s.zarr"), "001.mp4", [0, 1, 2, 3]) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "place",
    ["001.mp4", "001", "1", "0001/maps", "training/001/saliency", "results/001_", "."],
)
def test_a_video_finds_its_maps_by_id_name_number_or_path(videos: Path, tmp_path: Path, place: str) -> None:
    pictures(tmp_path / "maps" / place, dots(FRAMES))
    sources = find_videos([videos / "001.mp4"] if place in ("results/001_", ".") else [videos])
    if place == "results/001_":
        with pytest.raises(DataError, match="no maps of the 1 videos given; expected maps by video and frame"):
            find_given_maps(tmp_path / "maps", sources, CREDIT)
        return
    given = find_given_maps(tmp_path / "maps", sources, CREDIT)
    assert given.maps.places == {"001.mp4": tmp_path / "maps" / place}
    assert given.without_maps == (() if place == "." else ("002.mp4",))


def test_a_name_that_fits_two_videos_fits_none_and_two_places_of_one_video_are_refused(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos/a", {"1.mp4": 3}).parent
    write_videos(tmp_path / "videos/b", {"1.mp4": 3})
    pictures(tmp_path / "maps/1", dots(3))
    pictures(tmp_path / "maps/b/01", dots(3))
    given = find_given_maps(tmp_path / "maps", find_videos([videos]), CREDIT)
    assert given.maps.places == {"b/1.mp4": tmp_path / "maps/b/01"}
    assert (given.without_maps, given.without_video) == (("a/1.mp4",), ("1",))
    KINDS["npy"](tmp_path / "maps/b/1", dots(3))
    with pytest.raises(DataError, match=r"b/1.mp4: maps of it are .*01 and .*1.npy; keep one of them"):
        find_given_maps(tmp_path / "maps", find_videos([videos]), CREDIT)


def test_what_there_is_no_map_of_is_failed_and_said(videos: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "maps/001", dots(FRAMES))
    for number in (1, 2, 3, 7):
        (tmp_path / f"maps/001/{number:04d}.png").unlink()
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / "maps/001/0010.png")
    (tmp_path / "maps/001/0012.png").write_bytes(b"none")
    result = imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "s.zarr")
    store = open_store(tmp_path / "s.zarr")
    failed = np.flatnonzero(store.status("001.mp4", range(FRAMES)) == FrameStatus.FAILED).tolist()
    assert failed == [0, 1, 2, 6, 9, 11]
    line = result.dumped.problems["001.mp4"]
    assert line.startswith("no maps of frames 0 to 2, 6; the map of frame 9 is 0 everywhere, and 1 more like it")
    there = [frame for frame in range(FRAMES) if frame not in failed]
    assert shown(store, "001.mp4", there) == there


def test_maps_of_frames_that_the_video_does_not_have_are_left_over_and_said(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "maps/001", dots(FRAMES + 5))
    assert imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "s.zarr").left_over == {"001.mp4": 5}
    command = ["store", "import", "--videos", str(videos / "001.mp4"), "--maps", str(tmp_path / "maps")]
    assert run([*command, "--teacher-name", "X", "--store", str(tmp_path / "t.zarr")]) == 0
    assert "5 maps are of frames that 001.mp4 does not have: are they of that video" in capsys.readouterr().err


def test_changed_maps_are_imported_again_and_nothing_else_is(videos: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    for name, frames in (("001", FRAMES), ("002", 9)):
        pictures(maps / name, dots(frames))
    options = replace(OPTIONS, shard_megabytes=1e-4)
    assert imported(maps, [videos], tmp_path / "s.zarr", options).dumped.frames == FRAMES + 9
    before = content_of(tmp_path / "s.zarr")
    assert imported(maps, [videos], tmp_path / "s.zarr", options).dumped.frames == 0
    assert content_of(tmp_path / "s.zarr") == before
    Image.fromarray(grey(dots(1, first=20))[0]).save(maps / "002/0004.png")
    assert imported(maps, [videos], tmp_path / "s.zarr", options).dumped.frames == 9
    assert shown(open_store(tmp_path / "s.zarr"), "002.mp4", range(6)) == [0, 1, 2, 20, 4, 5]
    assert shown(open_store(tmp_path / "s.zarr"), "001.mp4", range(6)) == list(range(6))


def test_another_teacher_another_kind_of_file_and_another_size_are_refused(videos: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "maps/001", dots(FRAMES))
    one = [videos / "001.mp4"]
    imported(tmp_path / "maps", one, tmp_path / "s.zarr")
    KINDS["npy"](tmp_path / "floats/001", dots(FRAMES))
    with pytest.raises(
        StoreError, match=r"made with teacher.saved_as = pictures, not arrays: maps of the two must not"
    ):
        imported(tmp_path / "floats", one, tmp_path / "s.zarr")
    command = ["store", "import", "--videos", str(one[0]), "--maps", str(tmp_path / "maps")]
    command += ["--store", str(tmp_path / "s.zarr"), "--set", "teacher_dump.fidelity=0.002"]
    assert run([*command, "--teacher-name", "Other", "--set", "teacher_dump.size=[32,64]"]) == 1
    assert run([*command, "--teacher-name", "Dots"]) == 1, "192x256"
    KINDS["npy"](tmp_path / "maps/002", dots(9))
    with pytest.raises(DataError, match="import each kind into a store of its own"):
        find_given_maps(tmp_path / "maps", find_videos([videos]), CREDIT)


def test_a_sample_of_the_store_is_compared_with_the_source_maps_and_maps_one_frame_late_are_not_these(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "maps/001", dots(FRAMES))
    sources = find_videos([videos / "001.mp4"])
    imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "s.zarr")
    given = find_given_maps(tmp_path / "maps", sources, CREDIT, size=SIZE)
    sampled = sample_store(str(tmp_path / "s.zarr"), given.maps, sources, frames=8)
    assert (sampled.frames, sampled.kept) == (8, True)
    command = ["store", "verify", str(tmp_path / "s.zarr"), "--sample", "5", "--videos", str(videos / "001.mp4")]
    assert run([*command, "--maps", str(tmp_path / "maps")]) == 0
    shutil.rmtree(tmp_path / "maps/001")
    pictures(tmp_path / "maps/001", dots(FRAMES, first=1))
    assert run([*command, "--maps", str(tmp_path / "maps")]) == 1
    assert "001.mp4: its maps have changed since they were imported" in capsys.readouterr().err

    class Late(type(given.maps)):  # type: ignore[misc]
        def content(self, source: object) -> str:
            return open_store(tmp_path / "s.zarr").video("001.mp4").maps

    late = Late(CREDIT, given.maps.places, "pictures", SIZE)
    assert not sample_store(str(tmp_path / "s.zarr"), late, sources, frames=8).kept


def test_a_flipped_bit_is_repaired_from_the_source_maps_to_the_same_bytes(videos: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "maps/001", dots(FRAMES))
    sources = find_videos([videos / "001.mp4"])
    imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "s.zarr")
    before = content_of(tmp_path / "s.zarr")
    file = tmp_path / "s.zarr/shards/00000/final/c/0/0/0"
    damaged = bytearray(file.read_bytes())
    damaged[40] ^= 1
    file.write_bytes(damaged)
    given = find_given_maps(tmp_path / "maps", sources, CREDIT, size=SIZE)
    assert repair_store(str(tmp_path / "s.zarr"), teacher=given.maps, sources=sources).videos == ("001.mp4",)
    assert content_of(tmp_path / "s.zarr") == before


def test_maps_that_are_mostly_0_cost_no_more_than_others_which_codes_around_networks_maps_would_not_manage(
    videos: Path, tmp_path: Path
) -> None:
    sparse = np.maximum(dots(FRAMES) - 0.3, 0)
    pictures(tmp_path / "maps/001", sparse)
    imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "s.zarr", DumpOptions(fidelity=2e-4))
    store = open_store(tmp_path / "s.zarr")
    stored = store.read("001.mp4", range(FRAMES), size=SIZE)["final"].reshape(FRAMES, -1)
    costs = [entropy(p, q) for p, q in zip(grey(sparse).reshape(FRAMES, -1), stored, strict=True)]
    assert np.mean(costs) < 2.5e-4
    logits = torch.stack([prepared(one.astype(np.float32), SIZE) for one in grey(sparse)])
    with pytest.raises(SettingError, match="final cannot keep it in 8 bits"):
        choose_levels({"final": logits}, size=SIZE, budget=2e-4)


@pytest.fixture(scope="module")
def warm() -> Iterator[WarmCommand]:
    with WarmCommand() as command:
        yield command


@pytest.mark.slow
def test_an_import_that_is_killed_ends_after_a_rerun_with_the_bytes_of_one_that_never_was(
    warm: WarmCommand, tmp_path: Path
) -> None:
    lengths = {f"{number}.mp4": 9 + number for number in range(6)}
    videos = write_videos(tmp_path / "videos", lengths)
    for name, frames in lengths.items():
        pictures(tmp_path / "maps" / name, dots(frames))
    command: list[object] = ["store", "import", "--json", "--videos", videos, "--maps", tmp_path / "maps"]
    command += ["--teacher-name", "Dots", "--set", "teacher_dump.shard_megabytes=0.0005", "teacher_dump.fidelity=0.002"]
    code, said = warm.run([*command, "--store", tmp_path / "whole.zarr"], tmp_path / "log")
    assert code == 0, said
    whole = content_of(tmp_path / "whole.zarr")
    killed = []
    for shards in (0, 1, 3):
        store = tmp_path / f"{shards}.zarr"
        running = warm.start([*command, "--store", store], tmp_path / "killed.log")
        running.until(lambda store=store, shards=shards: len(list(store.glob("shards/0*"))) > shards)  # type: ignore[misc]
        running.signal(signal.SIGKILL)
        killed.append(running.wait() == -signal.SIGKILL)
        finished = sum(
            len(json.loads(path.read_text())["attributes"]["tinyhd"]["videos"]["id"])
            for path in store.glob("shards/*/zarr.json")
        )
        code, said = warm.run([*command, "--store", store], tmp_path / "rerun.log")
        assert code == 0, said
        assert json.loads(said[said.index("{\n") :])["dumped"]["already_there"] == finished
        assert content_of(store) == whole
    assert any(killed)


@pytest.mark.slow
def test_two_workers_leave_the_bytes_of_one_process(warm: WarmCommand, videos: Path, tmp_path: Path) -> None:
    for name, frames in (("001", FRAMES), ("002", 9)):
        pictures(tmp_path / "maps" / name, dots(frames))
    command: list[object] = ["store", "import", "--videos", videos, "--maps", tmp_path / "maps", "--teacher-name", "D"]
    command += ["--set", "teacher_dump.shard_megabytes=0.0005", "teacher_dump.fidelity=0.002"]
    for store, more in (("one", []), ("two", ["--workers", 2])):
        code, said = warm.run([*command, "--store", tmp_path / store, *more], tmp_path / "log")
        assert code == 0, said
    assert content_of(tmp_path / "one") == content_of(tmp_path / "two")


def _coloured(folder: Path) -> str:
    folder.mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)).save(folder / "1.png")
    return "is coloured; expected a grey map"


def _logits(folder: Path) -> str:
    KINDS["npy a frame"](folder, np.log(dots(3)))
    return r"is below 0 \(logits, log-probabilities\?\)"


def _not_finite(folder: Path) -> str:
    KINDS["npy a frame"](folder, dots(3) * np.float32(np.nan))
    return "is not finite"


def _objects(folder: Path) -> str:
    folder.parent.mkdir(parents=True)
    np.save(folder.with_name("001.npy"), np.array([{}], object), allow_pickle=True)
    return "expected numbers by rows"


def _pickled_zarr(folder: Path) -> str:
    folder.mkdir(parents=True)
    group = folder.rename(folder.with_name("001.zarr"))
    zarr.create_array(str(group), shape=(3, 4, 4), dtype="f4", zarr_format=2, overwrite=True)
    plain = json.loads((group / ".zarray").read_text())
    (group / ".zarray").write_text(json.dumps({**plain, "filters": [{"id": "pickle", "protocol": 4}]}))
    return "packed by 'pickle', which is not read here"


def _cut_short(folder: Path) -> str:
    KINDS["npy"](folder, dots(FRAMES))
    file = folder.with_name("001.npy")
    file.write_bytes(file.read_bytes()[:200])
    return "is cut short; download it again"


def _flat(folder: Path) -> str:
    KINDS["npy"](folder, dots(FRAMES).reshape(FRAMES, -1))
    return r"holds 14x2048 float32; expected maps \(frame, y, x\)"


@pytest.mark.parametrize("wrong", [_coloured, _logits, _not_finite, _objects, _pickled_zarr, _cut_short, _flat])
def test_files_that_hold_no_maps_are_told_in_one_line(videos: Path, tmp_path: Path, wrong: object) -> None:
    assert callable(wrong)
    reason = wrong(tmp_path / "maps/001")
    with pytest.raises((DataError, VideoError), match=reason):
        imported(tmp_path / "maps", [videos / "001.mp4"], tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("format", ["png", "npz", "video"])
def test_what_predict_writes_is_imported_for_the_same_frames_and_teaches(
    videos: Path, tmp_path: Path, format: Format
) -> None:
    network = load_student(write_teacher(tmp_path / "teacher.safetensors"))
    predict(find_videos([videos]), network, tmp_path / "maps", Wanted(format=format, brightness="absolute"))
    command: list[object] = ["store", "import", "--videos", videos, "--maps", tmp_path / "maps", "--teacher-name", "M"]
    command += ["--store", tmp_path / "s.zarr", "--licence", "CC BY 4.0", "--set", "teacher_dump.size=[32,32]"]
    assert run([*map(str, command), "teacher_dump.fidelity=0.002"]) == 0
    store = open_store(tmp_path / "s.zarr")
    for video in store.videos:
        live = dict(network.predict(videos / video))
        stored = torch.from_numpy(store.read(video, list(live), size=(32, 32))["final"]).logit()
        made = torch.from_numpy(np.stack(list(live.values())))
        assert float(kl_divergence(made, stored)) < 0.003
        assert float(kl_divergence(made[1:], stored[:-1])) > 0.03, "a frame late"
    if format == "png":
        learn = ["student-train", "--store", tmp_path / "s.zarr", "--videos", videos, "--out", tmp_path / "student"]
        small = (
            "epochs=1",
            "validation_clips=1",
            "size=[32,32]",
            "reduction=4",
            "decoders=[d1]",
            "validation_share=0.5",
        )
        assert run([*map(str, learn), "--device", "cpu", "--set", *(f"student_train.{one}" for one in small)]) == 0
        assert load_student(tmp_path / "student/best.safetensors").facts["licence"] == "CC BY 4.0"
