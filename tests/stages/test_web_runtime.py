"""ONNX Runtime Web beside a page: fetched once, known by its digests, and said in one line where it cannot be had."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.exports import web_runtime
from tinyhd_pipe.stages.exports.web_page import write_page
from tinyhd_pipe.stages.exports.web_runtime import DIGESTS, runtime_files
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.store.errors import SettingError, TinyHDError

CONTENTS = {name: name.encode() for name in DIGESTS}
"""Small files that stand for the real ones; test_web_page.py has those."""


def _packed(folder: Path, contents: dict[str, bytes]) -> Path:
    path = folder / "packed.tgz"
    with tarfile.open(path, "w:gz") as package:
        for name, content in contents.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            package.addfile(entry, io.BytesIO(content))
    return path


def _npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An npm that does what `script` says; its arguments come as they do to the real one."""
    npm = folder / "tools" / "npm"
    npm.parent.mkdir(exist_ok=True)
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:/usr/bin:/bin")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENTS.items()}
    monkeypatch.setattr(web_runtime, "DIGESTS", digests)


def test_it_is_fetched_once_and_again_where_what_is_kept_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = _packed(tmp_path, CONTENTS)
    _npm(tmp_path, f'test "$1 $2" = "pack onnxruntime-web@1.30.0" && cp {packed} "$4/onnxruntime-web.tgz"', monkeypatch)
    files = runtime_files(None)
    assert {name: path.read_bytes() for name, path in files.items()} == CONTENTS
    fetches = "exit 1"
    _npm(tmp_path, fetches, monkeypatch)
    assert runtime_files(None) == files, "nobody is asked"
    files["ort.wasm.min.mjs"].write_bytes(b"damaged")
    with pytest.raises(TinyHDError, match="cannot be fetched"):
        runtime_files(None)


def test_files_of_another_digest_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = _packed(tmp_path, {**CONTENTS, "ort-wasm-simd-threaded.mjs": b"changed"})
    _npm(tmp_path, f'cp {packed} "$4/onnxruntime-web.tgz"', monkeypatch)
    with pytest.raises(TinyHDError, match=r"ort-wasm-simd-threaded\.mjs of .*: has another digest"):
        runtime_files(None)
    assert not list((tmp_path / "cache").rglob("*.mjs"))
    _npm(tmp_path, 'echo no archive > "$4/onnxruntime-web.tgz"', monkeypatch)
    with pytest.raises(TinyHDError, match="is not the package"):
        runtime_files(None)


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _npm(tmp_path, "echo 'npm error code ENOTFOUND' >&2; echo 'npm error network down' >&2; exit 1", monkeypatch)
    with pytest.raises(TinyHDError) as by_npm:
        runtime_files(None)
    assert "(code ENOTFOUND network down)" in str(by_npm.value)
    assert str(by_npm.value).endswith("name its folder: --runtime DIR")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(web_runtime, "ADDRESS", "http://127.0.0.1:9/none.tgz")
    with pytest.raises(TinyHDError, match=r"cannot be fetched \(urlopen error .*refused") as by_address:
        runtime_files(None)
    assert "\n" not in str(by_npm.value) + str(by_address.value)


@pytest.mark.parametrize("below", ["", "dist", "package/dist"])
def test_a_folder_that_is_there_is_taken_whatever_its_version(tmp_path: Path, below: str) -> None:
    (tmp_path / "given" / below).mkdir(parents=True)
    for name in CONTENTS:
        (tmp_path / "given" / below / name).write_bytes(b"another version")
    assert runtime_files(tmp_path / "given")["ort.wasm.min.mjs"].read_bytes() == b"another version"
    (tmp_path / "given" / below / "ort.wasm.min.mjs").unlink()
    with pytest.raises(SettingError, match=r"has no ort\.wasm\.min\.mjs; give the dist folder of the npm package"):
        runtime_files(tmp_path / "given")


def test_a_page_overwrites_nothing_of_others_and_goes_on_where_it_was_stopped(tmp_path: Path) -> None:
    runtime = {name: tmp_path / name for name in CONTENTS}
    for name, path in runtime.items():
        path.write_bytes(CONTENTS[name])
    out = tmp_path / "site"
    out.mkdir()
    (out / "index.html").write_text("mine")
    with pytest.raises(SettingError, match=r"index\.html: is there, and is not of this page"):
        write_page(out, runtime, overwrite=False)
    assert [path.name for path in out.iterdir()] == ["index.html"]
    there = write_page(out, runtime, overwrite=True)
    assert "mine" not in (out / "index.html").read_text()
    (out / "app.js").unlink()
    assert write_page(out, runtime, overwrite=False) == there, "as if it had been stopped before that file"
    assert {path for path in out.rglob("*") if path.is_file()} == set(there)
    with pytest.raises(SettingError, match="is a file; give a folder"):
        write_page(out / "index.html", runtime, overwrite=True)


def test_what_a_page_cannot_do_is_said_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_weights(tmp_path / "s.safetensors", TinyHD(decoders=("d1",), reduction=4).state_dict(), {})
    _npm(tmp_path, "exit 1", monkeypatch)
    for more, code, said in (
        (("--format", "web", "--teacher", "hd2s"), 2, "a page runs students"),
        (("--format", "web", "--all-maps"), 2, "leave out --all-maps"),
        (("--format", "web", "--with-preprocessing"), 2, "leave out --with-preprocessing"),
        (("--format", "onnx", "--runtime", str(tmp_path)), 2, "a page needs it, no other format; add --format web"),
        (("--format", "web"), 1, "onnxruntime-web 1.30.0 cannot be fetched"),
    ):
        out = tmp_path / "out"
        assert run(["export", "--weights", str(tmp_path / "s.safetensors"), "--out", str(out), *more]) == code
        assert said in capsys.readouterr().err
        assert not out.exists()
