"""The same store behind a server that speaks S3: same bytes, same recovery, one line for what is refused."""

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.store_tools import assert_stored, describe, live_logits, make_shard, write_store
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.store import StoreError, create_or_open, lease, open_store
from tinyhd_pipe.store.repair import repair
from tinyhd_pipe.store.storage import open_storage
from tinyhd_pipe.store.verify import verify

LENGTHS = {f"{place:02}.avi": 5 + 3 * place for place in range(8)}
CHANGED = {"03.avi": "new"}
SMALL = 12_000
ROOT = Path(__file__).resolve().parents[2]
DUMP = f"""
import sys
from tests.store_tools import create_or_open, describe, make_shard, sources_of
writer = create_or_open(sys.argv[1], describe())
with writer.exclusive():
    for task in writer.plan(sources_of({LENGTHS!r}), shard_bytes={SMALL}).todo:
        print(task.number, flush=True)
        make_shard(writer, task, {LENGTHS!r})
"""


def content_of(url: str) -> dict[str, bytes]:
    storage = open_storage(url)
    return {path: storage.read(path) for path in storage.sizes("")}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A store that began with other content of one video, as a folder holds it."""
    folder = str(tmp_path_factory.mktemp("local") / "s")
    write_store(folder, LENGTHS, shard_bytes=SMALL)
    write_store(folder, LENGTHS, shard_bytes=SMALL, changed=CHANGED)
    return content_of(folder)


def test_a_bucket_holds_the_bytes_of_a_folder(bucket: str, local: dict[str, bytes]) -> None:
    url = f"{bucket}/deep/maps.zarr"
    write_store(url, LENGTHS, shard_bytes=SMALL)
    write_store(url, LENGTHS, shard_bytes=SMALL, changed=CHANGED)
    assert content_of(url) == local
    assert verify(url).sound
    store = open_store(url)
    read = store.read_logits("07.avi", range(3, 26))["final"]
    assert_stored(read, live_logits("07.avi", 26)["final"][3:], store.description.levels[0].scale)


def test_a_dump_into_a_bucket_is_killed_and_a_rerun_makes_the_rest(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PATIENCE", 1.0)
    write_store(tmp_path / "whole", LENGTHS, shard_bytes=SMALL)
    url = f"{bucket}/maps.zarr"
    with subprocess.Popen([sys.executable, "-c", DUMP, url], cwd=ROOT, stdout=subprocess.PIPE) as dump:
        assert dump.stdout is not None
        while dump.stdout.readline() != b"2\n":
            assert dump.poll() is None
        dump.kill()
    finished = open_store(url).videos
    assert 0 < len(finished) < len(LENGTHS)
    made = write_store(url, LENGTHS, shard_bytes=SMALL)
    assert sorted([*finished, *made]) == sorted(LENGTHS), "nothing twice"
    assert content_of(url) == content_of(str(tmp_path / "whole"))


def test_damage_in_a_bucket_is_found_and_undone(bucket: str) -> None:
    url = f"{bucket}/maps.zarr"
    write_store(url, LENGTHS, shard_bytes=SMALL)
    before = content_of(url)
    path = next(path for path in before if path.endswith("c/0/0/0"))
    open_storage(url).write(path, before[path][:7] + bytes([before[path][7] ^ 8]) + before[path][8:])
    report = verify(url)
    assert [damage.path for damage in report.damages] == [path]
    for task in repair(url, report):
        make_shard(create_or_open(url, describe()), task, LENGTHS)
    assert content_of(url) == before


def test_a_bucket_that_is_not_there_is_one_line(server: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/s: no store there"):
        open_store("s3://no-such-bucket/s")
    with pytest.raises(StoreError, match=r"no-such-bucket/s/.*cannot be written: .*bucket") as raised:
        write_store("s3://no-such-bucket/s", LENGTHS)
    assert "\n" not in str(raised.value)
    assert run(["store", "info", "s3://no-such-bucket/s"]) == 1
    assert capfd.readouterr().err.count("\n") == 1


def test_missing_rights_are_one_line(server: str, bucket: str, capfd: pytest.CaptureFixture[str]) -> None:
    write_store(f"{bucket}/maps.zarr", LENGTHS)
    _check_rights(server, after="0")
    try:
        with pytest.raises(StoreError, match=r"maps.zarr: cannot be read: .*: check path and rights"):
            write_store(f"{bucket}/maps.zarr", LENGTHS, changed=CHANGED)
        assert run(["store", "info", f"{bucket}/maps.zarr"]) == 1
        assert "check path and rights" in capfd.readouterr().err
    finally:
        _check_rights(server, after="inf")
    assert open_store(f"{bucket}/maps.zarr").videos == sorted(LENGTHS)


def _check_rights(server: str, *, after: str) -> None:
    """Refuse everybody that the server does not know, which is everybody, after so many requests."""
    plain = {"Content-Type": "text/plain"}
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", after.encode(), plain)
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200
