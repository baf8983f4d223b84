"""Files of offsets make an encoder give its bits to what is looked at: measured with x264, on a real clip."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.filter import Graph
from numpy.typing import NDArray
from PIL import Image

from tests.small_dumps import clip, write_teacher
from tests.video_files import source_of, write
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.applications.quantisers import Quantising
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.networks.prediction import predict
from tinyhd_pipe.stages.predictions.roi_files import roi_file
from tinyhd_pipe.stages.video.decoding import decode
from tinyhd_pipe.stages.video.viewing import Viewing
from tinyhd_pipe.stages.video.writing import write_video

RATE = 30
Region = dict[str, float]


def _marked(script: str) -> list[list[Region]]:
    """What each frame of a film is marked with, as FFmpeg would do it."""
    pieces = [re.findall(r"addroi=([^,\[]+)", line) for line in script.splitlines() if "addroi" in line]
    starts = re.search(r"segment=frames=([\d|]+)", script)
    frames = [0, *map(int, starts[1].split("|"))] if starts else [0]
    marks = [[{k: float(v) for k, v in (o.split("=") for o in one.split(":"))} for one in piece] for piece in pieces]
    lengths = [*np.diff(frames).tolist(), 1000]
    return [mark for mark, length in zip(marks, lengths, strict=True) for _ in range(length)]


@dataclass
class Encoded:
    bits: int
    attended: float
    """PSNR in dB, errors weighted by the map."""
    everywhere: float


def _encoded(
    pictures: list[av.VideoFrame], maps: list[NDArray[np.float32]], rate: int, marked: list[list[Region]], folder: Path
) -> Encoded:
    """x264 in two passes at a bit rate, its frames marked with regions of interest."""
    film = folder / "film.mkv"
    for number in (1, 2):
        passes = {"x264-params": f"pass={number}:stats={folder / 'x264.log'}", "preset": "faster"}
        bits = _pass(film, pictures, rate, marked, passes)
    with av.open(str(film)) as container:
        errors = [
            _errors(coded, original, map_)
            for coded, original, map_ in zip(container.decode(video=0), pictures, maps, strict=True)
        ]
    attended, everywhere = (10 * math.log10(255**2 / error) for error in np.mean(errors, axis=0))
    return Encoded(bits, attended, everywhere)


def _pass(
    film: Path, pictures: list[av.VideoFrame], rate: int, marked: list[list[Region]], options: dict[str, str]
) -> int:
    """How many bits one pass takes."""
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.bit_rate = pictures[0].width, pictures[0].height, rate
        stream.codec_context.thread_count = 1
        packets = [
            p for one, regions in zip(pictures, marked, strict=False) for p in stream.encode(_mark(one, regions))
        ]
        packets += stream.encode(None)
        container.mux(packets)
        return sum(8 * packet.size for packet in packets)


def _mark(picture: av.VideoFrame, regions: list[Region]) -> av.VideoFrame:
    graph = Graph()
    last = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format.name, time_base=Fraction(1, RATE)
    )
    for region in regions:
        mark = graph.add("addroi", ":".join(f"{name}={value:g}" for name, value in region.items()))
        last.link_to(mark)
        last = mark
    sink = graph.add("buffersink")
    last.link_to(sink)
    graph.configure()
    graph.push(picture)
    marked = graph.pull()
    assert isinstance(marked, av.VideoFrame)
    return marked


def _errors(coded: av.VideoFrame, original: av.VideoFrame, map_: NDArray[np.float32]) -> tuple[float, float]:
    size = (original.width, original.height)
    weights = np.asarray(Image.fromarray(map_).resize(size, Image.Resampling.BILINEAR), np.float64)
    luma = [frame.to_ndarray()[: original.height].astype(np.float64) for frame in (coded, original)]
    error = (luma[0] - luma[1]) ** 2
    return float((error * weights).sum() / weights.sum()), float(error.mean())


def _script(video: Path, maps: list[NDArray[np.float32]], path: Path, **how: Any) -> str:
    viewing = Viewing(source_of(video))
    with roi_file(viewing, path, Quantising(**how), RATE) as add:
        for frame, _ in enumerate(viewing):
            add(frame, maps[frame])
    return path.read_text()


@pytest.mark.shared
def test_at_the_same_bits_x264_is_better_where_people_look_and_only_by_their_own_map(
    tmp_path: Path, shared: Path
) -> None:
    original = decode(source_of(shared / "data/videos/natural/test1.mp4"))
    write_video(tmp_path / "head.mp4", [p for p in islice(original, 36) if p is not None], fps=RATE)
    network = load_student(shared / "reference/weights/d123m_rc4_rc1T.pth")
    maps = [saliency for _, saliency in predict(network, source_of(tmp_path / "head.mp4"))]
    with av.open(str(tmp_path / "head.mp4")) as container:
        pictures = list(container.decode(video=0))
    moved = [np.roll(saliency, (96, 128), (0, 1)) for saliency in maps]
    rate = 300_000
    plain = _encoded(pictures, maps, rate, [[]] * 36, tmp_path)
    ours, others = (
        _encoded(pictures, maps, rate, _marked(_script(tmp_path / "head.mp4", some, tmp_path / "roi.txt")), tmp_path)
        for some in (maps, moved)
    )
    assert ours.bits == pytest.approx(plain.bits, rel=0.02)
    assert others.bits == pytest.approx(plain.bits, rel=0.02)
    assert ours.attended > plain.attended + 1.5
    assert ours.everywhere > plain.everywhere - 1.0
    assert others.attended < plain.attended


def _spots(frames: int) -> Iterator[NDArray[np.float32]]:
    for frame in range(frames):
        saliency = np.zeros((24, 48), np.float32)
        saliency[8:16, 2 * frame % 40 : 2 * frame % 40 + 8] = 0.5
        yield saliency


def test_every_frame_is_marked_by_blocks_and_pieces_end_at_cuts(tmp_path: Path) -> None:
    dark, light = (np.full((50, 100, 3), grey, np.uint8) for grey in (40, 200))
    video = write(tmp_path / "film.mkv", [dark] * 13 + [light] * 12)
    marked = _marked(_script(video, list(_spots(25)), tmp_path / "a.txt", seconds=0.4))
    starts = [frame for frame in range(1, 25) if marked[frame] is not marked[frame - 1]]
    assert starts == [10, 13, 23]
    for regions in marked[:25]:
        assert (regions[-1]["w"], regions[-1]["h"]) == (100, 50)
        for region in regions:
            assert region["x"] % 16 == region["y"] % 16 == 0
            assert region["x"] + region["w"] <= 100
            assert region["y"] + region["h"] <= 50
            assert abs(region["qoffset"]) <= 4 / 51 + 1e-3
        assert min(region["qoffset"] for region in regions) < 0 < max(region["qoffset"] for region in regions)


def test_kvazaars_file_has_the_offsets_of_every_frame(tmp_path: Path) -> None:
    video = write(tmp_path / "film.mkv", [np.full((50, 100, 3), grey, np.uint8) for grey in range(7)])
    lines = _script(video, list(_spots(7)), tmp_path / "roi.txt", seconds=0.2, format="kvazaar").splitlines()
    assert lines[::2] == ["7 4"] * 7
    frames = [np.array(line.split(), int).reshape(4, 7) for line in lines[1::2]]
    assert frames[0][1, 0] < 0 < frames[0][1, 5]
    assert [np.array_equal(frames[0], frame) for frame in frames] == [True] * 5 + [False] * 2


def test_a_rerun_keeps_the_file_and_a_film_of_one_piece_is_marked_too(tmp_path: Path) -> None:
    weights = write_teacher(tmp_path / "m.safetensors")
    write_video(tmp_path / "a.mp4", clip(5, 0))
    command = f"predict {tmp_path}/a.mp4 --weights {weights} --out {tmp_path}/maps --roi ffmpeg".split()
    assert run(command) == 0
    path = tmp_path / "maps/a.mp4.roi.ffmpeg.txt"
    script, time = path.read_text(), path.stat().st_mtime_ns
    assert re.fullmatch(r"\[s0\]setpts=[^\n]*\[r0\];\n\[0:v\]null\[s0\];\n\[r0\]null\[roi\]\n", script)
    assert run(command) == 0
    assert path.stat().st_mtime_ns == time
    assert run([*command, "--set", "predict.roi_limit=2"]) == 2


def test_a_qp_file_is_refused_with_what_to_ask_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "a.mp4", "--weights", "w", "--out", str(tmp_path), "--qpfile"]) == 2
    assert "--roi ffmpeg" in capsys.readouterr().err
