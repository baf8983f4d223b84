"""What comes as it is made has its maps as it comes: from a pipe, an address, a device; and memory stays flat."""

import csv
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from tests.small_dumps import SIZE, clip, write_teacher
from tests.video_files import pictures_of, source_of, write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.network import load_student, ready
from tinyhd_pipe.stages.networks.prediction import predict_live
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.stages.pictures.overlay import Overlay
from tinyhd_pipe.stages.predict import predict
from tinyhd_pipe.stages.predictions.products import Wanted
from tinyhd_pipe.stages.video import streams
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.stages.video.streams import Stream, stream_of
from tinyhd_pipe.stages.video.viewing import Viewing
from tinyhd_pipe.store.errors import VideoError

COMMAND = Path(sys.executable).with_name("tinyhd-pipe")
PATIENCE = 20.0
"""Seconds after which a map will not come any more."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("weights") / "m.safetensors")


def _single(path: Path) -> Path:
    """A student that answers for one frame of a window."""
    module = TinyHD(decoders=("d1", "d2"), reduction=4, outputs=1)
    write_weights(path, module.state_dict(), {"kind": "tinyhd", "size": list(SIZE)})
    return path


def _head(height: int, width: int, rate: int) -> bytes:
    return f"YUV4MPEG2 W{width} H{height} F{rate}:1 Ip A1:1 C444\n".encode()


def _frame(picture: NDArray[np.uint8]) -> bytes:
    """Three planes as they are; what colours they show is of no account here."""
    return b"FRAME\n" + np.ascontiguousarray(picture.transpose(2, 0, 1)).tobytes()


@contextmanager
def _piped(feed: Callable[[int], None]) -> Iterator[Stream]:
    """A stream that a thread writes to."""
    reads, writes = os.pipe()

    def all_of_it() -> None:
        try:
            feed(writes)
        finally:
            os.close(writes)

    thread = threading.Thread(target=all_of_it, daemon=True)
    thread.start()
    try:
        yield Stream("stdin", "-", pipe=reads)
    finally:
        os.close(reads)
        thread.join(10)


def _write(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


@pytest.mark.parametrize(("outputs", "delay"), [(1, 1), (16, 16)])
def test_the_map_of_a_frame_is_there_before_the_frame_after_the_delay_is_sent(
    tmp_path: Path, weights: Path, outputs: int, delay: int
) -> None:
    network = load_student(weights if outputs == 16 else _single(tmp_path / "s.safetensors"))
    late = []

    def feed(descriptor: int) -> None:
        _write(descriptor, _head(48, 96, 25))
        for place, picture in enumerate(clip(40, 0)):
            if place >= delay:
                map_, until = tmp_path / f"maps/stdin/{place - delay + 1:04d}.png", time.monotonic() + PATIENCE
                while not map_.exists():
                    if time.monotonic() > until:
                        late.append(place)
                        return
                    time.sleep(0.001)
            _write(descriptor, _frame(picture))

    with _piped(feed) as stream:
        predicted = predict([stream], network, tmp_path / "maps")
    assert late == []
    assert (predicted.frames, predicted.problems) == (40, {})


def test_maps_of_a_stream_are_those_of_the_file_that_it_comes_from(tmp_path: Path, weights: Path) -> None:
    video = write(tmp_path / "film.ts", list(clip(40, 0)), options={"g": "12", "bf": "2"})
    out, network = tmp_path / "maps", load_student(weights)

    def feed(descriptor: int) -> None:
        _write(descriptor, video.read_bytes())

    wanted = Wanted(overlay=Overlay())
    predict(find_videos([video]), network, out, wanted)
    with _piped(feed) as stream:
        assert predict([stream], network, out, wanted).frames == 40
    for path in sorted((out / "film.ts").iterdir()):
        pictures = [np.asarray(Image.open(folder / path.name), int) for folder in (out / "film.ts", out / "stdin")]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1
    films = [pictures_of(source_of(out / f"{name}.overlay.mp4")) for name in ("film.ts", "stdin")]
    assert len(films[0]) == len(films[1]) == 40
    assert max(np.abs(one.astype(int) - other).mean() for one, other in zip(*films, strict=True)) < 1


def test_all_uses_of_a_stream_are_made_while_it_comes(tmp_path: Path, weights: Path) -> None:
    """A device that FFmpeg makes pictures with, as a camera does."""
    device = "lavfi:testsrc2=size=96x64:rate=10:duration=3"
    command = f"predict {device} --weights {weights} --out {tmp_path} --overlay --reframe 1:1 --roi kvazaar"
    assert run([*command.split(), "--format", "npz"]) == 0
    name = stream_of(device).id  # type: ignore[union-attr]
    with (tmp_path / f"{name}.1x1.csv").open(newline="") as rows:
        assert [int(row["frame"]) for row in csv.DictReader(rows)] == list(range(30))
    assert np.load(tmp_path / f"{name}.npz")["frames"].tolist() == list(range(30))
    assert len((tmp_path / f"{name}.roi.kvazaar.txt").read_text().splitlines()) == 60
    assert len(pictures_of(source_of(tmp_path / f"{name}.overlay.mp4"))) == 30


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def _server(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_an_address_is_read_as_it_comes_and_one_that_is_gone_is_named(
    tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "film.ts", list(clip(20, 0)))
    command = ["--weights", str(weights), "--out", str(tmp_path / "maps")]
    with _server(partial(_Quiet, directory=tmp_path)) as address:
        name = f"{address.replace('://', '-').replace('.', '-').replace(':', '-')}-film-ts"
        assert run(["predict", f"{address}/film.ts", *command]) == 0
        assert len(list((tmp_path / "maps" / name).glob("*.png"))) == 20
        assert run(["predict", f"{address}/gone.ts", *command]) == 1
    assert "gone.ts" in capsys.readouterr().err


class _Silent(_Quiet):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        time.sleep(1)


def test_an_address_that_sends_nothing_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_SILENCE", 0.2)
    with _server(partial(_Silent, directory=tmp_path)) as address, pytest.raises(VideoError, match=address):
        Viewing(Stream("it", address))


def test_ctrl_c_while_nothing_comes_leaves_what_came_to_be_played_and_it_is_not_gone_on_with(
    tmp_path: Path, weights: Path
) -> None:
    command = [COMMAND, "predict", "-", "--weights", weights, "--out", tmp_path / "maps", "--overlay"]
    last = tmp_path / "maps/stdin/0033.png"
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        assert running.stdin
        running.stdin.write(_head(48, 96, 25) + b"".join(map(_frame, clip(33, 0))))
        running.stdin.flush()
        while not last.exists() and running.poll() is None:
            time.sleep(0.01)
        time.sleep(0.3)  # nothing comes any more
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE) == 130
    left = tmp_path / "maps/stdin.overlay.partial.mp4"
    assert len(pictures_of(source_of(left))) == 33
    with _piped(lambda descriptor: None) as stream, pytest.raises(Exception, match="no stream comes twice"):
        predict([stream], load_student(weights), tmp_path / "maps")


@pytest.mark.parametrize(
    ("word", "code", "said"),
    [
        ("/dev/video7", 1, "/dev/video7: "),
        ("v4l2:/dev/video7", 1, "/dev/video7: "),
        ("http://127.0.0.1:1/film", 1, "http://127.0.0.1:1/film: "),
        ("rtsp://127.0.0.1:1/film", 1, "rtsp://127.0.0.1:1/film: "),
        ("film", 1, "film: "),
    ],
)
def test_what_is_no_stream_is_named_in_a_line(
    tmp_path: Path, weights: Path, word: str, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", word, "--weights", str(weights), "--out", str(tmp_path / "maps"), "--json"]) == code
    out, err = capsys.readouterr()
    assert said in out + err
    assert "Traceback" not in out + err


def test_no_password_is_said_or_names_a_folder() -> None:
    stream = stream_of("rtsp://me:secret@127.0.0.1:1/film?token=secret")
    assert stream
    with pytest.raises(VideoError, match=r"^rtsp://127\.0\.0\.1:1/film: ") as raised:
        Viewing(stream)
    assert "secret" not in stream.id + str(raised.value)


@pytest.mark.parametrize("sent", [b"", b"this is no video" * 1000])
def test_a_pipe_without_a_video_is_a_line(tmp_path: Path, weights: Path, sent: bytes) -> None:
    with _piped(lambda descriptor: _write(descriptor, sent)) as stream:
        problems = predict([stream], load_student(weights), tmp_path / "maps").problems
    assert problems["stdin"].startswith("-: ")
    assert "expected a pipe" in problems["stdin"]


def test_a_pipe_that_ends_within_a_frame_keeps_what_came(tmp_path: Path, weights: Path) -> None:
    data = _head(48, 96, 25) + b"".join(map(_frame, clip(5, 0)))
    with _piped(lambda descriptor: _write(descriptor, data[:-99])) as stream:
        assert predict([stream], load_student(weights), tmp_path / "maps").frames == 4


def test_words_that_name_streams_and_words_that_name_files() -> None:
    known = ("-", "/dev/video0", "v4l2:/dev/video1", "rtsp://a:b@c/d?e", "udp://@:1234", "avfoundation:0")
    names = [stream.id for word in known if (stream := stream_of(word))]
    assert names == ["stdin", "dev-video0", "v4l2-dev-video1", "rtsp-c-d", "udp-1234", "avfoundation-0"]
    assert [stream_of(word) for word in ("a.mp4", "/dev/null", "clips", "C:/a.mp4", "a:b.mp4", "--")] == [None] * 6


class _Still(TinyHD):
    """A student that has no work to do."""

    def native_logits(self, clip: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"final": clip[:, 0]}


@pytest.mark.slow
def test_memory_is_flat_over_an_hour_of_a_camera() -> None:
    frames, page, held = 18_000, os.sysconf("SC_PAGE_SIZE"), []
    some = b"".join(_frame(picture[:32, :32]) for picture in clip(20, 0))

    def feed(descriptor: int) -> None:
        _write(descriptor, _head(32, 32, 5))
        for _ in range(frames // 20):
            _write(descriptor, some)

    count, network = 0, ready("tinyhd", _Still(reduction=4, outputs=16), size=SIZE)
    with _piped(feed) as stream:
        viewing = Viewing(stream)
        shown = viewing.again()
        for frame, _ in predict_live(network, viewing):
            next(shown)
            count += 1
            if frame in (frames // 6, frames - 1):
                held.append(int(Path("/proc/self/statm").read_text().split()[1]) * page)
    assert count == frames
    assert held[1] - held[0] < 10e6, "their pictures are 46 MB, their maps 61 MB"
