"""Videos behind URLs and in tars: found by their names, decoded as local ones are, kept within a bound."""

import functools
import io
import os
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from tests.video_files import numbered
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.kept_videos import held
from tinyhd_pipe.stages.video.sources import VideoSource, digest, find_videos, search_videos
from tinyhd_pipe.stages.video.streams import stream_of
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import FetchError, SettingError, StoreError, VideoError

NAMES = ("001.mp4", "002.mp4", "003.mp4")
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYHD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for place, name in enumerate(NAMES):
        write_video(folder / name, [numbered(10 * place + frame) for frame in range(6)], fps=5)
    return folder


@pytest.fixture
def shard(clips: Path, tmp_path: Path) -> Path:
    """A shard as WebDataset writes it: by keys, each video with a text beside it."""
    with tarfile.open(tmp_path / "shard-000.tar", "w") as tar:
        for name in NAMES:
            tar.add(clips / name, name)
            text = tarfile.TarInfo(name.replace(".mp4", ".json"))
            tar.addfile(text, io.BytesIO())
    return tmp_path / "shard-000.tar"


@pytest.fixture
def memory(clips: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    name = f"/{uuid.uuid4().hex}"
    for clip in NAMES:
        files.pipe_file(f"{name}/{clip}", (clips / clip).read_bytes())
    yield f"memory:/{name}"
    files.rm(name, recursive=True)


def assert_same(found: list[VideoSource], clips: Path) -> None:
    local = find_videos([clips])
    assert [source.id for source in found] == [source.id for source in local]
    for source, known in zip(found, local, strict=True):
        assert source.remote is not None
        assert digest(source) == digest(known)
        assert np.array_equal(np.stack(list(decode(source))), np.stack(list(decode(known))))
        assert np.array_equal(read_frames(source, [4, 1]), read_frames(known, [4, 1]))


def kept(cache: Path) -> dict[str, int]:
    return {str(path.relative_to(cache)): path.stat().st_size for path in cache.rglob("video*")}


@pytest.mark.parametrize("given", ["", "/", "/*.mp4", "/00[1-3].mp4"])
def test_a_bucket_gives_the_videos_of_a_folder(bucket: str, clips: Path, given: str) -> None:
    files = fsspec.filesystem("s3")
    for name in NAMES:
        files.put_file(str(clips / name), f"{bucket}/deep/{name}")
    files.pipe_file(f"{bucket}/deep/notes.txt", b"no video")
    assert_same(find_videos([f"{bucket}/deep{given}"]), clips)


def test_a_tar_gives_its_members_wherever_it_is(bucket: str, clips: Path, shard: Path) -> None:
    fsspec.filesystem("s3").put_file(str(shard), f"{bucket}/shards/000.tar")
    for place in (str(shard), f"{bucket}/shards/000.tar", f"{bucket}/shards/*.tar"):
        found = search_videos([place])
        assert_same(list(found.videos), clips)
        assert [dict(left.endings) for left in found.left_out] == [{".json": 3}]


def test_a_web_address_gives_a_video_and_a_tar(clips: Path, shard: Path, tmp_path: Path) -> None:
    (tmp_path / "one clip.mp4").write_bytes((clips / "001.mp4").read_bytes())
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            (source,) = find_videos([f"{address}/one%20clip.mp4?signature=a/b.c"])
            assert source.id == "one clip.mp4"
            assert source.where == f"{address}/one%20clip.mp4", "no signature is said"
            assert digest(source) == digest(VideoSource("", clips / "001.mp4"))
            with pytest.raises(VideoError, match=r"gone\.mp4: nothing there; expected"):
                find_videos([f"{address}/gone.mp4"])
            (member, *_) = find_videos([f"{address}/shard-000.tar"])
            with pytest.raises(FetchError, match=r"shard-000\.tar/001\.mp4: cannot be read \(.*range requests"):
                digest(member)
        finally:
            server.shutdown()
            server.server_close()
    with pytest.raises(FetchError, match=r"one\.mp4: cannot be read \(.*onnect"):  # nobody listens any more
        find_videos([f"{address}/one.mp4"])
    fsspec.filesystem("http").clear_instance_cache()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def test_videos_of_one_name_get_the_name_of_their_tar_or_folder(shard: Path, memory: str, clips: Path) -> None:
    other = shard.with_name("shard-001.tar")
    other.write_bytes(shard.read_bytes())
    found = find_videos([str(shard), str(other), f"{memory}/001.mp4", clips / "001.mp4"])
    ids = [source.id for source in found if source.id.endswith("001.mp4")]
    folder = memory.rpartition("/")[2]
    assert ids == sorted([f"{clips.name}/001.mp4", f"{folder}/001.mp4", "shard-000/001.mp4", "shard-001/001.mp4"])
    assert find_videos([memory, f"{memory}/*.mp4"]) == find_videos([memory]), "the same object twice is one video"


def test_the_bound_holds_and_what_was_used_last_stays(
    memory: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = find_videos([memory])
    sizes = [source.remote.length for source in sources if source.remote]
    monkeypatch.setenv("TINYHD_CACHE_GB", str((sum(sizes) - 1) / 1e9))
    for source in (sources[0], sources[1], sources[0], sources[2]):
        digest(source)
        assert sum(kept(cache).values()) < sum(sizes)
    assert sorted(kept(cache).values()) == sorted([sizes[0], sizes[2]])
    fsspec.filesystem("memory").store.pop(f"/{memory.rpartition('/')[2]}/001.mp4")
    assert digest(sources[0]), "it is kept, and not asked for again"


def test_a_video_in_use_is_never_removed(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, three = (source.remote for source in find_videos([memory]) if source.remote)
    monkeypatch.setenv("TINYHD_CACHE_GB", str(max(one.length, two.length, three.length) / 1e9))
    with held(one) as path:
        with held(two) as passing:
            assert path.is_file()
        with held(three):
            assert path.is_file()
            assert not passing.exists()
    with held(two):
        assert not path.exists()


def test_an_object_that_changes_after_it_was_listed_is_refused(memory: str, clips: Path, cache: Path) -> None:
    (source, *_) = find_videos([memory])
    fsspec.filesystem("memory").pipe_file(f"{memory}/001.mp4", (clips / "002.mp4").read_bytes())
    with pytest.raises(FetchError, match=r"001\.mp4: changed since it was listed; run again"):
        digest(source)
    assert not kept(cache)
    (anew, *_) = find_videos([memory])
    assert digest(anew) == digest(VideoSource("", clips / "002.mp4"))


def test_a_kill_while_fetching_leaves_nothing_that_is_taken(shard: Path, clips: Path, cache: Path) -> None:
    fetch = (
        "import os, sys, tinyhd_pipe.stages.video.kept_videos as kept\n"
        "from tinyhd_pipe.stages.video.sources import digest, find_videos\n"
        "kept.os.fsync = lambda file: os.kill(os.getpid(), 9)\n"
        "digest(find_videos([sys.argv[1]])[0])\n"
    )
    killed = subprocess.run([sys.executable, "-c", fetch, str(shard)], cwd=ROOT, env=dict(os.environ))
    assert killed.returncode == -9
    assert [Path(name).name for name in kept(cache)] == ["video.mp4.partial"]
    assert_same(find_videos([shard]), clips)
    assert {Path(name).name for name in kept(cache)} == {"video.mp4"}


def test_what_cannot_be_fetched_is_one_line(
    memory: str, shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gzipped, cut, empty = tmp_path / "a.tar", tmp_path / "b.tar", tmp_path / "c.tar"
    gzipped.write_bytes(b"\x1f\x8b" + bytes(600))
    cut.write_bytes(shard.read_bytes()[:1500])
    tarfile.open(empty, "w").close()
    for given, line in {
        f"{memory}/004.mp4": "nothing there; expected a video",
        f"{memory}/*.avi": "nothing there matches this pattern",
        f"{memory}/none/": "no video in it; expected files named .mp4",
        str(tmp_path / "no.tar"): "nothing there; expected a video",
        str(gzipped): "not a whole, plain tar",
        str(cut): "not a whole, plain tar",
        str(empty): "no video in it",
    }.items():
        with pytest.raises(VideoError, match=rf"^{given.replace('*', '.')}: {line}") as raised:
            find_videos([given])
        assert "\n" not in str(raised.value)
    with pytest.raises(StoreError, match=r"cannot be opened"):
        find_videos(["nonsense://a/b.mp4"])
    (source, *_) = find_videos([memory])
    monkeypatch.setenv("TINYHD_CACHE_GB", "1e-6")
    with pytest.raises(FetchError, match=r"more than the 1e-06 GB .* set TINYHD_CACHE_GB higher"):
        digest(source)
    monkeypatch.setenv("TINYHD_CACHE_GB", "lots")
    with pytest.raises(SettingError, match="TINYHD_CACHE_GB=lots: expected gigabytes"):
        digest(source)
    monkeypatch.delenv("TINYHD_CACHE_GB")
    monkeypatch.setenv("TINYHD_CACHE", str(shard))
    with pytest.raises(FetchError, match=r"shard-000\.tar: fetched videos cannot be kept there"):
        digest(source)


def test_a_bucket_that_is_not_there_is_one_line(server: str) -> None:
    with pytest.raises(VideoError, match=r"^s3://no-such-bucket/a/: ") as raised:
        find_videos(["s3://no-such-bucket/a/"])
    assert "\n" not in str(raised.value)


def test_predict_takes_object_stores_and_tars_as_files_and_web_addresses_as_streams() -> None:
    for files in (
        "s3://bucket/a.mp4",
        "gs://b/*.mp4",
        "memory://a",
        "https://host/shard-000.tar",
        "http://h/a.tar?x=1",
    ):
        assert stream_of(files) is None
    for stream in ("http://host/clip.mp4", "rtsp://camera/1", "udp://@:5000", "https://host/live.m3u8?from=a.mp4"):
        assert stream_of(stream) is not None
