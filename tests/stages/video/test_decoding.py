"""Videos become numbered, upright RGB frames, for every kind of file, and frames become videos."""

import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.video_files import (
    COUNT,
    KINDS,
    Made,
    Picture,
    break_packet,
    frame_folder,
    number_of,
    numbered,
    pictures_of,
    save,
    source_of,
    write,
    write_kinds,
    write_sound,
)
from tinyhd_pipe.stages.video.decoding import RgbConverter, decode, probe, upright
from tinyhd_pipe.stages.video.index import index_frames, read_frames
from tinyhd_pipe.stages.video.sources import VideoSource, find_videos
from tinyhd_pipe.store.errors import VideoError

# Measured with PyAV 18.1 (FFmpeg 8): (frames, height, width, a part of the problem or None).
AWKWARD = {
    "animated.gif": (4, 48, 64, None),
    "bt601_full_range.mp4": (60, 240, 320, None),
    "corrupted.mp4": (30, 720, 1280, "ends after 30 frames, the next one does not decode"),
    "h264_10bits.mp4": (30, 200, 200, None),
    "nasa_13013_mkv_duration_tag.mkv": (390, 270, 480, None),
    "nasa_13013_rotated.mp4": (17, 480, 270, None),
    "part_0.mp4": (32, 256, 340, None),
    "test.avi": (164, 240, 320, None),
    "testsrc2_mpeg4_1frame.mp4": (1, 64, 64, None),
    "testsrc2_odd_height_and_width_vp9.mp4": (25, 241, 321, None),
    "var_fps_video.mp4": (300, 128, 128, None),
}
NATURAL = {
    "0068.AVI": (540, 360, 640, None),
    "car-detection.mp4": (377, 432, 768, None),
    "demo.mp4": (280, 256, 340, None),
    "dog_eating_854132.mp4": (345, 360, 640, None),
    "elf.webm": (241, 480, 720, None),
    "flipping_a_pancake.mkv": (310, 240, 426, None),
    "kinetics_pool_test.mp4": (300, 256, 340, None),
    "nasa_13013.mp4": (390, 270, 480, None),  # its second stream; the first one is a preview
    "rabbit320.mp4": (234, 240, 320, None),
    "test1.mp4": (300, 480, 640, None),
}
EXPECTED = {**AWKWARD, **NATURAL}
REAL = [f"awkward/{name}" for name in AWKWARD] + [f"natural/{name}" for name in NATURAL]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    """One video of every kind."""
    return write_kinds(tmp_path_factory.mktemp("videos"))


# Decoding in order


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_comes_once_and_in_order(made: dict[str, Made], name: str) -> None:
    source, pictures = made[name].source, made[name].pictures
    assert [number_of(picture) for picture in pictures] == list(range(COUNT))
    assert {picture.shape for picture in pictures} == {(48, 80, 3)}
    assert all(p.dtype == np.uint8 and p.flags.c_contiguous and p.flags.writeable for p in pictures)
    decoding = decode(source)
    assert len(list(decoding)) == decoding.frames == COUNT
    assert decoding.problem is None


@pytest.mark.parametrize(
    "pix_fmt", ["yuv420p", "yuvj420p", "yuv444p10le", "nv12", "gray", "rgb24", "bgra", "gbrp", "yuva420p"]
)
@pytest.mark.parametrize("tags", [(2, 0), (1, 1), (6, 1), (6, 2), (9, 1)])
def test_colours_are_those_that_pyav_gives_for_the_tags_of_the_frame(pix_fmt: str, tags: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pix_fmt)
    frame.colorspace, frame.color_range = tags
    assert (RgbConverter()(frame) == frame.to_ndarray(format="rgb24")).all()


@pytest.mark.parametrize("tags", [(1, 1), (1, 2), (5, 1), (5, 2)])
def test_matrix_and_range_of_a_file_are_undone(tmp_path: Path, tags: tuple[int, int]) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (6, 3), dtype=np.uint8)
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    path = write(tmp_path / "colours.mp4", pictures, options={"crf": "1"}, tags=tags)
    got = np.stack([p[16, 16] for p in pictures_of(source_of(path))])
    assert np.abs(got.astype(int) - colours).max() <= 4


def quarter_turns() -> list[tuple[int, int, int, int]]:
    signs = [(s, t) for s in (1, -1) for t in (1, -1)]
    return [(s, 0, 0, t) for s, t in signs] + [(0, s, t, 0) for s, t in signs]


@pytest.mark.parametrize("turn", quarter_turns())
def test_each_pixel_goes_where_the_display_matrix_sends_it(turn: tuple[int, int, int, int]) -> None:
    a, b, c, d = turn
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    rows, columns = np.mgrid[:5, :7]
    x, y = a * columns + c * rows, b * columns + d * rows
    expected = np.empty((np.ptp(y) + 1, np.ptp(x) + 1, 3), np.uint8)
    expected[y - y.min(), x - x.min()] = picture
    matrix = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14], np.int32) * 65536
    assert (upright(picture, matrix) == expected).all()


@pytest.mark.parametrize("turn", quarter_turns())
def test_turned_and_mirrored_files_come_out_upright(tmp_path: Path, turn: tuple[int, int, int, int]) -> None:
    a, b, c, d = turn
    matrix = [a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30]
    inverse = np.array([a, c, 0, b, d, 0, 0, 0, 1 << 14], np.int32) * 65536
    filmed = [upright(numbered(n), inverse) for n in range(5)]
    path = write(tmp_path / "turned.mp4", [np.ascontiguousarray(p) for p in filmed], matrix=matrix)
    pictures = pictures_of(source_of(path))
    assert [number_of(p) for p in pictures] == list(range(5))
    assert pictures[0].shape == (48, 80, 3)
    assert (probe(source_of(path)).height, probe(source_of(path)).width) == (48, 80)


@pytest.mark.parametrize(("name", "place"), [("h264_b_frames.mp4", 25), ("vp9.webm", 30)])
def test_a_broken_packet_ends_the_video_and_what_came_before_is_kept(
    made: dict[str, Made], tmp_path: Path, name: str, place: int
) -> None:
    pictures = made[name].pictures
    (tmp_path / name).write_bytes(made[name].source.path.read_bytes())
    decoding = decode(source_of(break_packet(tmp_path / name, place)))
    kept = list(decoding)
    assert place - 4 <= len(kept) <= place, "no frame of a later packet"
    assert all(p is not None and (p == q).all() for p, q in zip(kept, pictures, strict=False))
    assert decoding.problem is not None
    assert decoding.problem.startswith(f"ends after {len(kept)} frames, the next one does not decode (")


@pytest.mark.parametrize("name", ["lossless.mkv", "mjpeg_full_range.avi", "vp9.webm", "front.mp4"])
def test_a_file_that_was_cut_off_gives_the_frames_that_are_there_and_says_so(tmp_path: Path, name: str) -> None:
    how = {**KINDS, "front.mp4": {"options": {"g": "2", "bf": "0"}, "muxer": {"movflags": "faststart"}}}[name]
    pictures = [numbered(n) for n in range(COUNT)]
    path = write(tmp_path / name, pictures, **how)
    whole = pictures_of(source_of(path))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    decoding = decode(source_of(path))
    kept = list(decoding)[:-1]  # what is left of a packet that was cut may decode, to part of a picture
    assert 5 < len(kept) < COUNT - 1
    assert all(p is not None and (p == q).all() for p, q in zip(kept, whole, strict=False))
    assert decoding.problem is not None
    assert decoding.problem.startswith("ends a")


def test_a_change_of_size_ends_the_video(tmp_path: Path) -> None:
    small = write(tmp_path / "a.ts", [numbered(n) for n in range(5)], codec="mpeg2video")
    large = write(tmp_path / "b.ts", [numbered(n, 64, 96) for n in range(5)], codec="mpeg2video")
    (tmp_path / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
    decoding = decode(source_of(tmp_path / "c.ts"))
    assert {p.shape for p in decoding if p is not None} == {(48, 80, 3)}
    assert decoding.frames in (4, 5), "MPEG-2 decoders may drop the frame that they hold when the size changes"
    assert decoding.problem == f"ends after {decoding.frames} frames, the next one is of another size"


def test_what_is_no_video_is_refused_with_a_reason_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("not a film\n" * 100)
    write_sound(tmp_path / "sound.wav")
    (tmp_path / "a_folder.mp4").mkdir()
    reasons = {
        "empty.mp4": "the file is empty",
        "text.mp4": "not a video (Invalid data found when processing input)",
        "sound.wav": "no moving picture in it",
        "gone.mp4": "No such file or directory",
        "a_folder.mp4": "Is a directory",
    }
    for name, reason in reasons.items():
        source = VideoSource(name, tmp_path / name)
        for use in (probe, index_frames, lambda s: list(decode(s)), lambda s: read_frames(s, np.array([0]))):
            with pytest.raises(VideoError) as refused:
                use(source)
            assert str(refused.value).startswith(f"{source.path}: {reason}")
            assert "\n" not in str(refused.value)


def test_a_video_of_which_nothing_decodes_is_refused(made: dict[str, Made], tmp_path: Path) -> None:
    (tmp_path / "a.webm").write_bytes(made["vp9.webm"].source.path.read_bytes())
    with pytest.raises(VideoError, match="ends after 0 frames, the next one does not decode"):
        list(decode(source_of(break_packet(tmp_path / "a.webm", 0))))


def test_a_name_like_a_network_address_is_a_file_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "http:clip%03d.mp4", [numbered(5)])
    monkeypatch.chdir(tmp_path)
    assert [number_of(p) for p in pictures_of(source_of(Path("http:clip%03d.mp4")))] == [5]


def test_a_broken_picture_of_a_folder_fails_in_its_place(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", [f"{n}.png" for n in range(6)])
    whole = (tmp_path / "clip" / "2.png").read_bytes()
    (tmp_path / "clip" / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "clip" / "3.png").write_bytes(b"")
    save(tmp_path / "clip" / "5.png", numbered(5, 20, 30))
    decoding = decode(source)
    assert [None if p is None else number_of(p) for p in decoding] == [0, 1, None, None, 4, None]
    assert decoding.problem == "3 of 6 pictures are broken or of another size, 2.png the first"
    assert index_frames(source).valid.tolist() == [True, True, False, False, True, False]
    assert [number_of(p) for p in read_frames(source, np.array([4, 0]))] == [4, 0]
    with pytest.raises(VideoError, match=r"2\.png: does not decode"):
        read_frames(source, np.array([1, 2]))


def test_a_folder_of_broken_pictures_is_refused(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", ["1.png", "2.png"])
    for path in (tmp_path / "clip").iterdir():
        path.write_bytes(path.read_bytes()[:-40])
    for use in (probe, index_frames, lambda s: list(decode(s)), lambda s: read_frames(s, np.array([0]))):
        with pytest.raises(VideoError, match=r"clip: none of its pictures decodes; copy them again"):
            use(source)


def test_pictures_of_a_folder_are_upright_and_rgb(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held so that the picture must be turned a quarter to the right
    save(tmp_path / "clip" / "1.png", np.ascontiguousarray(np.rot90(numbered(1))), exif=turned)
    save(tmp_path / "clip" / "2.png", numbered(2)[..., 0])
    source = source_of(tmp_path / "clip")
    assert [number_of(p) for p in pictures_of(source)] == [1, 2]
    assert (probe(source).frames, probe(source).height, probe(source).width, probe(source).fps) == (
        2,
        48,
        80,
        None,
    )


# Real files


def plain_pyav(path: Path) -> Iterator[Picture]:
    """Every frame that PyAV gives by itself, turned by the angle that it reports."""
    with av.open(str(path)) as container, suppress(av.FFmpegError):
        largest = max(container.streams.video, key=lambda stream: stream.width)
        for frame in container.decode(largest):
            yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90))


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_real_files_give_the_frames_of_plain_pyav_in_order_and_at_random(
    shared: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = shared / "data" / "videos" / name
    frames, height, width, problem = EXPECTED[path.name]
    index = index_frames(source_of(path))
    assert len(index.checksums) == frames

    starts = {0, *np.random.default_rng(frames).integers(0, frames, 2).tolist()}
    starts |= {entry.frame for entry in index.entries[1:2]}
    plain: dict[int, Picture] = {}
    for number, picture in enumerate(plain_pyav(path)):
        assert zlib.crc32(picture.data) == index.checksums[number], f"frame {number}"
        if any(start <= number < start + 4 for start in starts):
            plain[number] = picture
    # Of a broken video plain PyAV loses the frames that the decoder still holds.
    assert number + 1 == frames if problem is None else frames - 4 <= number + 1 <= frames

    for start in starts:
        clip = [number for number in range(start, start + 4) if number in plain]
        if clip:
            got = read_frames(source_of(path), np.array(clip), index=index)
            assert (got == np.stack([plain[number] for number in clip])).all()
    facts = probe(source_of(path))
    assert (facts.height, facts.width) == plain[0].shape[:2] == (height, width)
    assert capfd.readouterr().err == "", "FFmpeg keeps its complaints to itself"


@pytest.mark.shared
@pytest.mark.parametrize("name", AWKWARD)
def test_of_the_awkward_files_one_has_a_problem_and_it_is_named(shared: Path, name: str) -> None:
    decoding = decode(source_of(shared / "data" / "videos" / "awkward" / name))
    assert sum(1 for _ in decoding) == EXPECTED[name][0]
    assert (decoding.problem or "None").startswith(str(EXPECTED[name][3]))


@pytest.mark.shared
def test_a_real_folder_of_pictures_is_a_video(shared: Path) -> None:
    sources = {source.id: source for source in find_videos([shared / "data" / "videos"])}
    assert len(sources) == len(REAL) + 1
    clip = sources["frames/ex2"]
    pictures = pictures_of(clip)
    assert (len(pictures), pictures[0].shape) == (40, (224, 384, 3))
    assert (read_frames(clip, np.array([39, 7])) == np.stack([pictures[39], pictures[7]])).all()


@pytest.mark.shared
def test_a_header_that_claims_100_times_its_frames_is_an_estimate_only(shared: Path) -> None:
    source = source_of(shared / "data" / "dhf1k" / "video" / "300.AVI")
    assert probe(source).frames == 21601
    decoding = decode(source)
    assert sum(1 for _ in decoding) == 217
    assert decoding.problem is None, "nothing is cut off"
