"""Fetching image weights: once, whole, and in one line where that fails."""

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tinyhd_pipe.stages.networks.imagenet import fetched, kept_at
from tinyhd_pipe.store.errors import WeightsError

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


class _Server(ThreadingHTTPServer):
    """A server of one folder; `asked` are the paths that anybody wanted."""

    asked: list[str]


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    (tmp_path / "served").mkdir()
    with _Server(("127.0.0.1", 0), partial(_Handler, directory=str(tmp_path / "served"))) as serving:
        serving.asked = []
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def address(server: _Server, name: str) -> str:
    return f"http://127.0.0.1:{server.server_port}/{name}"


def refusal(url: str) -> str:
    with pytest.raises(WeightsError) as caught:
        fetched(url)
    assert "\n" not in str(caught.value)
    assert "student_train.encoder_weights" in str(caught.value), "what to do instead"
    return str(caught.value)


def test_a_file_is_fetched_once_into_the_users_cache(server: _Server, tmp_path: Path) -> None:
    name = f"net-{DIGEST}.pth"
    (tmp_path / "served" / name).write_bytes(CONTENT)
    path = fetched(address(server, name))
    assert path == kept_at(address(server, name))
    assert tmp_path / "cache" in path.parents
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path], "nothing is left beside it"
    assert fetched(address(server, name)) == path
    assert len(server.asked) == 1


def test_a_damaged_file_in_the_cache_is_fetched_again(server: _Server, tmp_path: Path) -> None:
    name = f"net-{DIGEST}.pth"
    (tmp_path / "served" / name).write_bytes(CONTENT)
    path = kept_at(address(server, name))
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1])
    assert fetched(address(server, name)).read_bytes() == CONTENT


def test_another_file_than_its_name_says_is_refused_and_not_kept(server: _Server, tmp_path: Path) -> None:
    name = f"net-{DIGEST}.pth"
    (tmp_path / "served" / name).write_bytes(CONTENT[:-1])
    assert "invalid hash value" in refusal(address(server, name))
    assert list(kept_at(address(server, name)).parent.iterdir()) == []


def test_what_is_not_there_and_who_is_offline_get_one_line(server: _Server) -> None:
    assert "HTTP Error 404" in refusal(address(server, f"gone-{DIGEST}.pth"))
    with _Server(("127.0.0.1", 0), _Handler) as closed:
        url = address(closed, f"net-{DIGEST}.pth")
    assert "refused" in refusal(url)


def test_a_cache_that_cannot_be_written_is_one_line(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert "Not a directory" in refusal(address(server, f"net-{DIGEST}.pth"))
