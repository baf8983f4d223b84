"""The page that runs a student, in a real browser with a real clip: its maps are ours, and nothing leaves it.

The network is a published one as far as D3, in a quarter of its size, which is exported in seconds. For the same pixels
its maps are ours within 1e-5. Through the browser's own decoder colours differ by a step or two,
and maps by what that makes of them.
"""

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import expect

from tests.browser import Watched, watched
from tests.video_files import write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.networks.decoders import adapters
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.weights import read_weights, write_weights
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.sources import find_videos

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.shared, pytest.mark.slow]
SIZE = (96, 128)
FRAMES = 37
"""A head, two whole windows of 16 outputs, and four frames behind them."""
APP = "import('./app.js')"
TEXT = "(map) => btoa(new Uint8Array(map.buffer).reduce((text, byte) => text + String.fromCharCode(byte), ''))"
"""A typed array as text, which the way to Python takes in a hundredth of the time of as many numbers."""

LATE_FRAME = """() => {
  const video = document.getElementById("video");
  const real = video.requestVideoFrameCallback.bind(video);
  video.requestVideoFrameCallback = (then) => {
    if (!video.paused) return real(then);
    video.requestVideoFrameCallback = real;
    setTimeout(() => then(0, { mediaTime: 0.04 }));
    return 0;
  };
}"""
"""A busy machine says of a frame that the film showed it, when the film stands and another one is looked for."""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *said: Any) -> None: ...


@pytest.fixture(scope="module")
def weights(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoder and D3 of the published M network; random weights make noise of a step in colour."""
    published = read_weights(shared / "reference/weights/d123m_rc4_rc1T.pth").state
    state = {name: tensor for name, tensor in published.items() if name.startswith("encoder.")}
    before = len(adapters("d1", 4)) + len(adapters("d2", 4))
    for place in range(len(adapters("d3", 4))):
        theirs, own = (f"aggregator.aggregate_adapter.{number}." for number in (before + place, place))
        state |= {name.replace(theirs, own): tensor for name, tensor in published.items() if name.startswith(theirs)}
    state["decoder.decoder.0.weight"] = published["decoder.decoder.0.weight"][:, -1:]
    state["decoder.decoder.0.bias"] = published["decoder.decoder.0.bias"]
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    write_weights(path, state, {"kind": "tinyhd", "size": list(SIZE), "licence": "CC BY 4.0 (Lab)"})
    return path


@pytest.fixture(scope="module")
def folder(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, as the command leaves it."""
    out = tmp_path_factory.mktemp("page")
    assert run(["export", "--weights", str(weights), "--format", "web", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def clip(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of a real clip, in a film that any browser plays."""
    (source,) = find_videos([shared / "data/videos/natural/kinetics_pool_test.mp4"])
    pictures = [picture for picture in islice(decode(source), FRAMES) if picture is not None]
    return write(tmp_path_factory.mktemp("clip") / "clip.webm", pictures, codec="libvpx", options={"b": "2M"})


@pytest.fixture(scope="module")
def ours(weights: Path, clip: Path) -> NDArray[np.float32]:
    """Our maps of every frame of the clip."""
    return np.stack([saliency for _, saliency in load_student(weights).predict(clip)])


@pytest.fixture(scope="module")
def origin(folder: Path) -> Iterator[str]:
    """The page's folder behind Python's own server, as the command says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def _opened(seen: Watched, origin: str) -> Any:
    seen.page.goto(origin)
    seen.page.evaluate(f"{APP}.then((app) => app.ready)")
    return seen.page


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(base64.b64decode(text), np.uint8)


def _all_stayed(seen: Watched, origin: str) -> bool:
    assert seen.complaints == []
    return len(seen.requests) > 6 and seen.left(origin) == []


def test_maps_of_the_same_pixels_are_ours(
    browser: "Browser", origin: str, folder: Path, clip: Path, ours: NDArray[np.float32]
) -> None:
    pictures = [picture for picture in decode(find_videos([clip])[0]) if picture is not None]
    height, width = pictures[0].shape[:2]
    np.stack([np.pad(picture, ((0, 0), (0, 0), (0, 1))) for picture in pictures]).tofile(folder / "frames.rgba")
    ask = f"""async () => {{
      const {{ student }} = await {APP};
      const bytes = new Uint8Array(await (await fetch("frames.rgba")).arrayBuffer());
      const [width, height] = [{width}, {height}];
      const frames = Array.from({{ length: {FRAMES} }}, (_, place) => student.scaled(
        {{ width, height, data: bytes.subarray(4 * width * height * place, 4 * width * height * (place + 1)) }}));
      const maps = [(await student.answer(frames.slice(0, 1))).at(-1)];
      for (const end of [16, 32, 36]) {{
        const answered = await student.answer(frames.slice(Math.max(0, end - 15), end + 1));
        maps.push(...answered.slice(maps.length - end - 1));
      }}
      return maps.map({TEXT});
    }}"""
    with watched(browser) as seen:
        theirs = np.stack([_bytes(map_).view(np.float32).reshape(SIZE) for map_ in _opened(seen, origin).evaluate(ask)])
        assert _all_stayed(seen, origin)
    assert theirs.shape == ours.shape
    assert np.abs(theirs - ours).max() < 1e-5
    assert np.abs(theirs[1:] - ours[:-1]).max() > 1e-3, "maps of the frame before are others"


def test_every_frame_of_a_film_is_found_and_gets_the_map_that_predict_gives_it(
    browser: "Browser", origin: str, clip: Path, ours: NDArray[np.float32]
) -> None:
    with watched(browser) as seen:
        page = _opened(seen, origin)
        page.set_input_files("#file", clip)
        expect(page.locator("#video")).to_be_visible()
        page.evaluate(LATE_FRAME)
        assert page.evaluate(f"{APP}.then((app) => app.everyFrame())") == FRAMES
        kept = page.evaluate(f"{APP}.then((app) => [...app.kept].map(([time, map]) => [time, ({TEXT})(map)]))")
        expect(page.locator("#status")).to_have_text(f"{FRAMES} frames, each with its map.")
        page.evaluate("document.getElementById('video').play()")
        expect(page.locator("#lag")).to_have_text("0.00 s")
        assert _all_stayed(seen, origin)
    times = [float(time) for time, _ in kept]
    np.testing.assert_allclose(times, np.arange(FRAMES) / 25, atol=2e-3)
    theirs = np.stack([_bytes(map_).reshape(SIZE) / 255 for _, map_ in kept])
    expected = ours / ours.max(axis=(1, 2), keepdims=True)
    assert np.abs(theirs - expected).max() < 0.05, "of each map's maximum; measured .014, on average .0017"
    correlations = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(theirs, expected, strict=True)]
    assert min(correlations) > 0.999
    late = [np.corrcoef(one.ravel(), other.ravel())[0, 1] for one, other in zip(theirs[8:], expected, strict=False)]
    assert min(late) < min(correlations), "of frames that are some places off they are less alike"


DROP = """async () => {
  const film = await (await fetch("clip.webm")).blob();
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([film], "clip.webm"));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""
"""Drop a film on the page; the server has it, and the page gets it as a file."""


def test_maps_come_while_a_film_that_was_dropped_plays(
    browser: "Browser", origin: str, folder: Path, clip: Path
) -> None:
    shutil.copy(clip, folder)
    covered = "() => document.getElementById('heat').getContext('2d').getImageData(0, 0, 128, 96).data.some((x) => x)"
    with watched(browser, viewport={"width": 360, "height": 740}) as seen:
        page = _opened(seen, origin)
        assert not page.evaluate(covered)
        assert page.evaluate("document.documentElement.scrollWidth") == 360, "nothing is wider than a phone"
        page.evaluate(DROP)
        expect(page.locator("#status")).to_have_text("clip.webm")
        expect(page.locator("#lag")).not_to_have_text("–")
        expect(page.locator("#maps-rate")).not_to_have_text("–")
        assert float(page.text_content("#video-rate")) > 0
        assert page.evaluate(covered)
        video, heat = (page.locator(f"#{name}").bounding_box() for name in ("video", "heat"))
        assert heat["width"] == pytest.approx(video["width"], abs=1)
        page.locator("#strength").fill("20")
        assert page.evaluate("document.getElementById('heat').style.opacity") == "0.2"
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        assert "Terms of the network: CC BY 4.0 (Lab)." in page.text_content("#about")
        assert _all_stayed(seen, origin)


def test_what_is_no_film_is_said(browser: "Browser", origin: str, tmp_path: Path) -> None:
    (tmp_path / "notes.mp4").write_text("no film")
    with watched(browser) as seen:
        page = _opened(seen, origin)
        page.set_input_files("#file", tmp_path / "notes.mp4")
        expect(page.locator("#status")).to_have_text(
            "This browser does not play that file; MP4 with H.264, or WebM, is played nearly everywhere."
        )
        expect(page.locator("#every")).to_be_disabled()


def test_the_browser_itself_lets_nothing_out(browser: "Browser", origin: str) -> None:
    with watched(browser) as seen:
        page = _opened(seen, origin)
        ask = "(address) => fetch(address).then(() => 'answered', (error) => String(error))"
        assert "Failed to fetch" in page.evaluate(ask, "https://example.org/")
        assert page.evaluate(ask, f"{origin}/student.json") == "answered"
    assert any("Content Security Policy" in said for said in seen.complaints)


def test_a_page_that_is_opened_as_a_file_says_what_it_needs(browser: "Browser", folder: Path, origin: str) -> None:
    with watched(browser) as seen:
        seen.page.goto((folder / "index.html").as_uri())
        expect(seen.page.locator("#needs-server")).to_contain_text("python -m http.server")
        expect(seen.page.locator("#drop")).to_be_hidden()
        _opened(seen, origin)
        expect(seen.page.locator("#needs-server")).to_be_hidden()


def test_the_folder_holds_the_page_the_network_and_the_runtime(folder: Path) -> None:
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there - {"frames.rgba", "clip.webm"} == {
        "index.html",
        "app.js",
        "style.css",
        "student.js",
        "student.onnx",
        "student.onnx.md",
        "student.json",
        "ort/ort.wasm.min.mjs",
        "ort/ort-wasm-simd-threaded.mjs",
        "ort/ort-wasm-simd-threaded.wasm",
    }
    assert json.loads((folder / "student.json").read_text())["size"] == list(SIZE)
