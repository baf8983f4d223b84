"""A store's maps in files of other tools: each format read by its own reader, killed and gone on with, never mixed."""

import io
import json
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import xarray
from numpy.typing import NDArray
from PIL import Image
from pyarrow import parquet

from tests.given_maps import imported
from tests.moving_dot import column_of, make_data, make_store
from tests.small_dumps import write_videos
from tests.store_tools import LEVELS, content_of, write_store
from tests.warm_command import WarmCommand
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.store_export import DONE, ExportWanted, StoreFormat, export_store
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store import Source, Store, create_or_open, open_store
from tinyhd_pipe.store.encoding import logit_table
from tinyhd_pipe.store.errors import SettingError

LENGTHS = {"a/1.mp4": 40, "b.mp4": 7, "c.mp4": 3, "empty.mp4": 0}
FORMATS: tuple[StoreFormat, ...] = ("png", "npy", "webdataset", "parquet")
Maps = dict[tuple[str, int], NDArray[np.floating]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Of its videos one has frames that failed, and one none at all."""
    write_store(tmp_path / "s.zarr", LENGTHS)
    writer = create_or_open(tmp_path / "s.zarr", open_store(tmp_path / "s.zarr").description)
    (task,) = writer.plan([Source("holes.mp4", "holes", 6)]).todo
    with writer.shard(task) as shard, shard.video("holes.mp4") as video:
        video.append({level: np.full((6, *grid), -3, np.float32) for level, grid in LEVELS.items()})
        video.mark_failed(2)
        video.mark_failed(5)
        video.finish(6)
    return open_store(tmp_path / "s.zarr")


def _expected(store: Store, level: str = "final") -> Maps:
    maps: Maps = {}
    for video in store.videos:
        frames = [
            frame
            for frame in store.frames(video).tolist()
            if (video, frame) not in (("holes.mp4", 2), ("holes.mp4", 5))
        ]
        if frames:
            read = store.read(video, frames, size=store.description.teacher_grid)[level]
            maps |= {(video, frame): one for frame, one in zip(frames, read, strict=True)}
    return maps


def _pictures(out: Path) -> Maps:
    return {
        (path.parent.relative_to(out).as_posix(), int(path.stem) - 1): np.asarray(Image.open(path)) / 255
        for path in out.rglob("*.png")
    }


def _arrays(out: Path) -> Maps:
    maps: Maps = {}
    for path in out.rglob("*.npy"):
        if not path.name.endswith(".frames.npy"):
            frames = np.load(path.with_suffix(".frames.npy"))
            video = path.relative_to(out).as_posix().removesuffix(".npy")
            pairs = zip(frames.tolist(), np.load(path), strict=True)
            maps |= {(video, frame): one for frame, one in pairs if np.isfinite(one).all()}
    return maps


def _tars(out: Path) -> Maps:
    """As WebDataset reads them: what a name holds up to its first dot is the sample."""
    samples: dict[str, dict[str, bytes]] = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                folder, _, name = member.name.rpartition("/")
                key, _, kind = name.partition(".")
                content = tar.extractfile(member)
                assert content is not None
                samples.setdefault(f"{folder}/{key}", {})[kind] = content.read()
    maps: Maps = {}
    for sample in samples.values():
        facts = json.loads(sample["json"])
        maps[facts["video"], facts["frame"]] = np.load(io.BytesIO(sample["final.npy"]))
    return maps


def _tables(out: Path) -> Maps:
    maps: Maps = {}
    for path in sorted(out.glob("*.parquet")):
        table = parquet.read_table(path)
        y, x = map(int, table.schema.metadata[b"grid of final"].decode().split("x"))
        for row in table.to_pylist():
            maps[row["video"], row["frame"]] = np.array(row["final"]).reshape(y, x)
    return maps


READERS = dict(zip(FORMATS, (_pictures, _arrays, _tars, _tables), strict=True))


@pytest.mark.parametrize("format", FORMATS)
def test_every_valid_frame_is_there_once_with_its_map_as_the_formats_own_reader_sees_it(
    store: Store, tmp_path: Path, format: StoreFormat
) -> None:
    wanted = ExportWanted(format, brightness="absolute", frames_a_file=12)
    exported = export_store(store.url, tmp_path / "out", wanted)
    expected, read = _expected(store), READERS[format](tmp_path / "out")
    assert exported.frames == len(expected) == 54
    assert exported.without_maps == ("empty.mp4",)
    assert read.keys() == expected.keys()
    for key, one in expected.items():
        np.testing.assert_allclose(read[key], one, atol=0.501 / 255 if format == "png" else 5e-4)
    late = [key for key in expected if not np.allclose(read[key], expected.get((key[0], key[1] + 1), 0), atol=0.005)]
    assert len(late) > 45, "a frame late would be seen"
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert (about["licence"], about["teacher"]["kind"]) == ("none stated", "hd2s")


def test_frames_go_beside_their_maps_where_the_videos_are_given_and_they_are_those(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(tmp_path, videos=2, frames=9)
    store = make_store(tmp_path / "s.zarr", find_videos([tmp_path / "video"]), frames=9)
    command = ["store", "export", store.url, "--out", str(tmp_path / "out"), "--videos", str(tmp_path / "video")]
    assert run([*command, "--format", "webdataset"]) == 0
    with tarfile.open(tmp_path / "out/maps-00000.tar") as tar:
        for video, frame in (("001", 0), ("001", 8), ("002", 5)):
            picture, saliency = (tar.extractfile(f"{video}/{frame:06d}.{kind}") for kind in ("jpg", "final.npy"))
            assert picture is not None
            assert saliency is not None
            columns = (
                column_of(np.asarray(Image.open(picture)).mean(-1)),
                column_of(np.load(io.BytesIO(saliency.read()))),
            )
            assert columns == (2 + 2 * frame, 2 + 2 * frame)
    assert run([*command, "--format", "npy"]) == 2
    assert "in --format webdataset alone" in capsys.readouterr().err
    one = ["--videos", str(tmp_path / "video/001"), "--format", "webdataset"]
    assert run([*command[:3], "--out", str(tmp_path / "other"), *one]) == 1
    assert "002: not among the 1 videos given" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_levels_and_sizes_are_chosen_and_what_there_is_none_of_is_told(store: Store, tmp_path: Path) -> None:
    both = ExportWanted("npy", levels=("final", "conspicuity_2"), size=(12, 16))
    assert export_store(store.url, tmp_path / "out", both).frames == 54
    assert np.load(tmp_path / "out/conspicuity_2/b.mp4.npy").shape == (7, 12, 16)
    assert np.load(tmp_path / "out/final/b.mp4.npy").shape == (7, 12, 16)
    with pytest.raises(SettingError, match=r"--levels d2: .* has final, conspicuity_2"):
        export_store(store.url, tmp_path / "other", ExportWanted(levels=("d2",)))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_a_rerun_writes_nothing_and_what_changed_or_was_lost_alone_is_written_again(
    store: Store, tmp_path: Path, format: StoreFormat
) -> None:
    wanted, out = ExportWanted(format, frames_a_file=5), tmp_path / "out"
    assert export_store(store.url, out, wanted).written == 4
    before = content_of(out)
    assert export_store(store.url, out, wanted).written == 0
    write_store(store.url, LENGTHS, changed={"b.mp4": "another"})
    with (out / DONE).open("a") as file:
        file.write('{"unit": "cut sho')
    changed = export_store(store.url, out, wanted)
    assert (changed.written, changed.frames) == (1, 7)
    after = content_of(out)
    differing = {name for name in before if name != DONE and after[name] != before[name]}
    assert {name.rpartition("/")[0] or name for name in differing} == {
        {"png": "b.mp4", "npy": "b.mp4.npy", "webdataset": "maps-00001.tar", "parquet": "maps-00001.parquet"}[format]
    }


def test_an_export_of_another_kind_or_into_a_folder_of_something_else_is_refused(store: Store, tmp_path: Path) -> None:
    export_store(store.url, tmp_path / "out", ExportWanted("npy"))
    with pytest.raises(SettingError, match="made with format = npy, not png; give another --out"):
        export_store(store.url, tmp_path / "out", ExportWanted("png"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("")
    with pytest.raises(SettingError, match="was not made by store export; give another --out"):
        export_store(store.url, tmp_path / "mine", ExportWanted("png"))


@pytest.mark.parametrize("format", ["png", "npy"])
def test_what_was_exported_is_imported_for_the_same_frames(store: Store, tmp_path: Path, format: StoreFormat) -> None:
    write_videos(tmp_path / "videos", {"b.mp4": 7})
    export_store(store.url, tmp_path / "out", ExportWanted(format))
    imported(tmp_path / "out", [tmp_path / "videos/b.mp4"], tmp_path / "again.zarr")
    again = open_store(tmp_path / "again.zarr")
    first, second = (
        store.read("b.mp4", range(7), size=(24, 32))["final"],
        again.read("b.mp4", range(7), size=(24, 32))["final"],
    )
    for one, other in zip(first, second, strict=True):
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.99


def test_two_videos_that_tars_would_take_for_one_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", {"a.b.mp4": 3, "a_b.mp4": 3})
    with pytest.raises(SettingError, match=r"webdataset: a\.b\.mp4 and a_b\.mp4 are both a_b_mp4 in tars"):
        export_store(str(tmp_path / "s.zarr"), tmp_path / "out", ExportWanted("webdataset"))
    assert not (tmp_path / "out").exists()
    assert export_store(str(tmp_path / "s.zarr"), tmp_path / "out", ExportWanted("npy")).videos == 2


@pytest.mark.slow
def test_an_export_that_is_killed_goes_on_and_ends_with_the_files_of_one_that_never_was(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", {f"{number}.mp4": 40 for number in range(6)})
    with WarmCommand() as warm:
        for format in ("png", "webdataset"):
            command: list[object] = ["store", "export", tmp_path / "s.zarr", "--format", format, "--frames-a-file", 40]
            assert warm.run([*command, "--out", tmp_path / f"{format}-whole"], tmp_path / "log")[0] == 0
            whole, out = content_of(tmp_path / f"{format}-whole"), tmp_path / format
            running = warm.start([*command, "--out", out], tmp_path / "killed.log")
            running.until(lambda out=out: len(list(out.glob("[!.]*"))) > 3)  # type: ignore[misc]
            running.signal(signal.SIGKILL)
            assert running.wait() == -signal.SIGKILL
            finished = len((out / DONE).read_text().splitlines())
            assert 0 < finished < 6
            code, said = warm.run([*command, "--out", out, "--json"], tmp_path / "rerun.log")
            assert code == 0, said
            assert json.loads(said[said.index("{\n") :])["already_there"] == finished
            assert content_of(out) == whole


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification")
def test_xarray_opens_a_shard_and_decodes_it_by_the_cf_names(store: Store) -> None:
    with xarray.open_zarr(f"{store.url}/shards/00000", consolidated=False, drop_variables="conspicuity_2") as shard:
        final = shard["final"]
        assert final.dims == ("frame", "y", "x")
        row = store.video("b.mp4")
        decoded = final[row.first_row : row.first_row + row.rows].values
    np.testing.assert_allclose(decoded, store.read_logits("b.mp4", range(7))["final"], atol=1e-5)
    level = next(level for level in store.description.levels if level.name == "final")
    assert np.isin(np.float32(decoded).round(3), logit_table(level.scale, level.offset).round(3)).all()
    with xarray.open_zarr(
        f"{store.url}/shards/00000", consolidated=False, drop_variables="conspicuity_2", mask_and_scale=False
    ) as raw:
        assert raw["final"].dtype == np.uint8, "without the CF names these are codes"


def test_a_table_without_pyarrow_is_refused_with_the_command_that_brings_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert run(["store", "export", store.url, "--out", str(tmp_path / "out"), "--format", "parquet"]) == 2
    assert "needs pyarrow; pip install 'tinyhd-pipe[parquet]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        for format in FORMATS:
            assert run(["store", "export", store.url, "--out", str(small / "out"), "--format", format]) == 1
            assert "no space left on" in capsys.readouterr().err.strip().splitlines()[-1].lower()
            assert not [path for path in (small / "out").rglob("*") if ".partial" in path.name]
            shutil.rmtree(small / "out")
    finally:
        subprocess.run(["umount", small], check=True)


def test_the_command_says_what_it_wrote_and_mistakes_are_one_line(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["store", "export", store.url, "--out", str(tmp_path / "out"), "--format", "npy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 54
    assert run(["store", "export", store.url, "--out", str(tmp_path / "out"), "--size", "big"]) == 2
    assert "--size big: expected height x width, as in 192x256" in capsys.readouterr().err
