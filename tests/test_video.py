"""Videos become numbered, upright RGB frames: the same in order and at random, for every kind of file."""

import os
import pickle
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from video_files import Picture, break_packet, number_of, numbered, source_of, write, write_sound

from tinyhd_pipe.stages import video_index
from tinyhd_pipe.stages.video import (
    FrameIndex,
    VideoSource,
    decode,
    digest,
    find_videos,
    index_frames,
    probe,
    read_frames,
    write_video,
)
from tinyhd_pipe.stages.video_decoding import RgbConverter, decoded_frames, upright
from tinyhd_pipe.store.errors import VideoError

Made = dict[str, tuple[VideoSource, list[Picture], FrameIndex]]
COUNT = 40
KINDS: dict[str, dict[str, object]] = {
    "h264.mp4": {},
    "h264_b_frames.mp4": {"options": {"g": "10", "bf": "3"}},
    "h264_open_groups.mkv": {"options": {"bf": "2", "x264-params": "open-gop=1:keyint=8:scenecut=0"}},
    "h264_no_key_frames.mp4": {"options": {"x264-params": "intra-refresh=1:keyint=10"}},
    "h264_no_timestamps.avi": {"options": {"g": "12", "bf": "2"}},
    "h264.ts": {"options": {"g": "12", "bf": "2"}},
    "h264_10_bit.mp4": {"pix_fmt": "yuv420p10le"},
    "h264_variable_rate.mp4": {"timestamps": [place**2 for place in range(COUNT)]},
    "mpeg4_b_frames.avi": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "mpeg2_no_offsets.mpg": {"codec": "mpeg2video", "options": {"g": "12", "bf": "2"}},
    "mjpeg_full_range.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "vp8_hidden_frames.webm": {
        "codec": "libvpx",
        "options": {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"},
    },
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"g": "12", "cpu-used": "8", "deadline": "realtime"}},
    "animated.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "lossless.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
}

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
    "nasa_13013.mp4": (325, 180, 320, None),
    "rabbit320.mp4": (234, 240, 320, None),
    "test1.mp4": (300, 480, 640, None),
}
EXPECTED = {**AWKWARD, **NATURAL}
REAL = [f"awkward/{name}" for name in AWKWARD] + [f"natural/{name}" for name in NATURAL]


@pytest.fixture(scope="session")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    """One video of every kind, as decoded from the start, with its index."""
    folder = tmp_path_factory.mktemp("videos")
    pictures = [numbered(place) for place in range(COUNT)]
    sources = {name: source_of(write(folder / name, pictures, **how)) for name, how in KINDS.items()}  # type: ignore[arg-type]
    return {
        name: (s, [p for p in decode(s) if p is not None], index_frames(s)) for name, s in sources.items()
    }


def save(path: Path, picture: Picture, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)  # type: ignore[arg-type]
    return path


def frame_folder(folder: Path, names: list[str]) -> VideoSource:
    for place, name in enumerate(names):
        save(folder / name, numbered(place))
    return VideoSource(folder.name, folder, is_frame_folder=True)


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def decoded_count(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose only number grows with every frame that random access decodes."""
    counted = [0]
    original = decoded_frames

    def counting(*args: object) -> Iterator[av.VideoFrame]:
        for frame in original(*args):  # type: ignore[arg-type]
            counted[0] += 1
            yield frame

    monkeypatch.setattr(video_index, "decoded_frames", counting)
    return counted


# Finding


def test_a_folder_is_searched_through_and_ids_are_paths_below_it(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b/0068.AVI",
        "a.webm",
        "b/c/x.Mp4",
        "b/notes.txt",
        ".hidden.mp4",
        ".cache/y.mp4",
        "b/._0068.AVI",
    )
    assert [(s.id, s.path) for s in find_videos([tmp_path])] == [
        (name, tmp_path / name) for name in ("a.webm", "b/0068.AVI", "b/c/x.Mp4")
    ]


def test_a_file_that_is_named_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "clip.dat")
    assert find_videos([str(tmp_path / "clip.dat")]) == [VideoSource("clip.dat", tmp_path / "clip.dat")]


def test_folders_of_pictures_are_videos_whether_named_or_found(tmp_path: Path) -> None:
    touch(tmp_path, "clips/run/1.JPG", "clips/run/2.jpg", "clips/walk/1.png")
    assert [(s.id, s.is_frame_folder) for s in find_videos([tmp_path])] == [
        ("clips/run", True),
        ("clips/walk", True),
    ]
    assert [(s.id, s.is_frame_folder) for s in find_videos([tmp_path / "clips" / "run"])] == [("run", True)]


def test_ground_truth_stray_pictures_and_covers_are_no_videos(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "video/001.AVI",
        "video/cover.jpg",
        "annotation/0001/0001.png",
        "annotation/0001/maps/0001.png",
    )
    touch(tmp_path, "annotation/0001/fixation/0001.png", "annotation/0001/fixation/maps/0001.mat")
    touch(tmp_path, "training/Diving-001/images/1.png", "training/Diving-001/maps/1.png", "poster.png")
    assert [s.id for s in find_videos([tmp_path])] == ["training/Diving-001/images", "video/001.AVI"]


def test_ids_that_collide_get_the_name_of_their_root_in_front(tmp_path: Path) -> None:
    touch(tmp_path, "natural/a.mp4", "natural/only.mp4", "awkward/a.mp4", "x/natural/a.mp4")
    found = find_videos([tmp_path / "natural", tmp_path / "awkward"])
    assert [s.id for s in found] == ["awkward/a.mp4", "natural/a.mp4", "only.mp4"]
    assert [s.path.parent.name for s in found] == ["awkward", "natural", "natural"]
    with pytest.raises(VideoError, match=r"would both be natural/a\.mp4: rename"):
        find_videos([tmp_path / "natural", tmp_path / "x" / "natural"])


def test_a_video_named_twice_is_found_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    found = find_videos([tmp_path / "b.mp4", tmp_path, tmp_path / "a.mp4"])
    assert [s.id for s in found] == ["a.mp4", "b.mp4"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "far/a.mp4", "near/b.mp4")
    (tmp_path / "near" / "far").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "self").symlink_to(tmp_path / "near")
    assert [s.id for s in find_videos([tmp_path / "near"])] == ["b.mp4", "far/a.mp4"]


def test_paths_without_video_are_refused_in_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "texts/notes.txt")
    with pytest.raises(VideoError, match=r"texts: no video in it; expected files named .*\.avi") as none:
        find_videos([tmp_path / "texts"])
    with pytest.raises(VideoError, match="gone: no such file or folder") as missing:
        find_videos([tmp_path / "gone"])
    assert "\n" not in f"{none.value}{missing.value}"


def test_frames_of_a_folder_come_in_natural_order(tmp_path: Path) -> None:
    source = frame_folder(tmp_path / "clip", ["f1.png", "f2.png", "f9b.png", "f10.png", "f010.png", "g1.png"])
    touch(tmp_path / "clip", "notes.txt", ".f3.png")
    assert [number_of(p) for p in decode(source) if p is not None] == [0, 1, 2, 4, 3, 5]


# Digests


def test_a_digest_is_that_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    for name in ("a.avi", "b.mp4"):
        (tmp_path / name).write_bytes(b"the same bytes")
    same = {digest(source_of(tmp_path / name)) for name in ("a.avi", "b.mp4")}
    (tmp_path / "b.mp4").write_bytes(b"the same bytez")
    assert len(same) == 1
    assert digest(source_of(tmp_path / "b.mp4")) not in same
    with pytest.raises(VideoError, match="gone"):
        digest(source_of(tmp_path / "gone"))


def test_a_frame_folder_has_the_digest_of_its_names_and_pictures(tmp_path: Path) -> None:
    first = digest(frame_folder(tmp_path / "a", ["1.png", "2.png"]))
    assert digest(frame_folder(tmp_path / "b", ["1.png", "2.png"])) == first
    assert digest(frame_folder(tmp_path / "c", ["1.png", "3.png"])) != first
    (tmp_path / "b" / "1.png").write_bytes(b"other")
    assert digest(source_of(tmp_path / "b")) != first


# Decoding in order


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_comes_once_and_in_order(made: Made, name: str) -> None:
    source, pictures, _ = made[name]
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
def test_colours_are_those_that_pyav_gives_for_the_tags_of_the_frame(
    pix_fmt: str, tags: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(noise, format="rgb24").reformat(format=pix_fmt)
    frame.colorspace, frame.color_range = tags
    assert (RgbConverter()(frame) == frame.to_ndarray(format="rgb24")).all()


@pytest.mark.parametrize("tags", [(1, 1), (1, 2), (5, 1), (5, 2)])
def test_matrix_and_range_of_a_file_are_undone(tmp_path: Path, tags: tuple[int, int]) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (6, 3), dtype=np.uint8)
    pictures = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    path = write(tmp_path / "colours.mp4", pictures, options={"crf": "1"}, tags=tags)
    got = np.stack([p[16, 16] for p in decode(source_of(path)) if p is not None])
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
    pictures = [p for p in decode(source_of(path)) if p is not None]
    assert [number_of(p) for p in pictures] == list(range(5))
    assert pictures[0].shape == (48, 80, 3)
    assert (probe(source_of(path)).height, probe(source_of(path)).width) == (48, 80)


@pytest.mark.parametrize(("name", "place"), [("h264_b_frames.mp4", 25), ("vp9.webm", 30)])
def test_a_broken_packet_ends_the_video_and_what_came_before_is_kept(
    made: Made, tmp_path: Path, name: str, place: int
) -> None:
    source, pictures, _ = made[name]
    (tmp_path / name).write_bytes(source.path.read_bytes())
    decoding = decode(source_of(break_packet(tmp_path / name, place)))
    kept = list(decoding)
    assert place - 4 <= len(kept) <= place, "no frame of a later packet"
    assert all(p is not None and (p == q).all() for p, q in zip(kept, pictures, strict=False))
    assert decoding.problem is not None
    assert decoding.problem.startswith(f"ends after {len(kept)} frames, the next one does not decode (")


@pytest.mark.parametrize("name", ["lossless.mkv", "mjpeg_full_range.avi", "vp9.webm", "front.mp4"])
def test_a_file_that_was_cut_off_gives_the_frames_that_are_there_and_says_so(
    tmp_path: Path, name: str
) -> None:
    how = {**KINDS, "front.mp4": {"options": {"g": "2", "bf": "0"}, "muxer": {"movflags": "faststart"}}}[name]
    pictures = [numbered(n) for n in range(COUNT)]
    path = write(tmp_path / name, pictures, **how)  # type: ignore[arg-type]
    whole = list(decode(source_of(path)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    decoding = decode(source_of(path))
    kept = list(decoding)
    assert 5 < len(kept) < COUNT
    assert [number_of(p) for p in kept[:-1] if p is not None] == list(range(len(kept) - 1))
    assert all((p == q).all() for p, q in zip(kept[:-1], whole, strict=False))  # type: ignore[union-attr]
    assert decoding.problem is not None
    assert decoding.problem.startswith("ends a")


def test_a_change_of_size_ends_the_video(tmp_path: Path) -> None:
    small = write(tmp_path / "a.ts", [numbered(n) for n in range(5)], codec="mpeg2video")
    large = write(tmp_path / "b.ts", [numbered(n, 64, 96) for n in range(5)], codec="mpeg2video")
    (tmp_path / "c.ts").write_bytes(small.read_bytes() + large.read_bytes())
    decoding = decode(source_of(tmp_path / "c.ts"))
    assert {p.shape for p in decoding if p is not None} == {(48, 80, 3)}
    assert decoding.frames in (4, 5), (
        "MPEG-2 decoders may drop the frame that they hold when the size changes"
    )
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


def test_a_video_of_which_nothing_decodes_is_refused(made: Made, tmp_path: Path) -> None:
    (tmp_path / "a.webm").write_bytes(made["vp9.webm"][0].path.read_bytes())
    with pytest.raises(VideoError, match="ends after 0 frames, the next one does not decode"):
        list(decode(source_of(break_packet(tmp_path / "a.webm", 0))))


def test_a_name_like_a_network_address_is_a_file_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "http:clip%03d.mp4", [numbered(5)])
    monkeypatch.chdir(tmp_path)
    assert [number_of(p) for p in decode(source_of(Path("http:clip%03d.mp4"))) if p is not None] == [5]


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
    assert [number_of(p) for p in decode(source) if p is not None] == [1, 2]
    assert (probe(source).frames, probe(source).height, probe(source).width, probe(source).fps) == (
        2,
        48,
        80,
        None,
    )


# Reading at random


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(list(KINDS)), st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=20), st.booleans()
)
def test_frames_read_at_random_are_bit_for_bit_those_decoded_in_order(
    made: Made,
    name: str,
    frames: list[int],
    with_index: bool,
) -> None:
    source, pictures, index = made[name]
    got = read_frames(source, np.array(frames), index=index if with_index else None)
    assert (got == np.stack([pictures[frame] for frame in frames])).all()


@pytest.mark.parametrize(
    "name",
    ["h264_b_frames.mp4", "h264_open_groups.mkv", "h264_no_timestamps.avi", "vp9.webm", "mpeg4_b_frames.avi"],
)
def test_a_clip_far_in_costs_its_group_of_pictures_and_not_the_video(
    made: Made, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _, index = made[name]
    counted = decoded_count(monkeypatch)
    read_frames(source, np.arange(36, 40), index=index)
    assert 4 <= counted[0] <= 12, "frames 24 to 35 stayed undecoded"


@pytest.mark.parametrize("change", ["frame", "timestamp", "position"])
def test_an_index_that_leads_astray_costs_time_and_not_pixels(
    made: Made,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, pictures, index = made["h264_b_frames.mp4"]
    wrong = {"frame": {"frame": 13}, "timestamp": {"timestamp": 0}, "position": {"position": 7}}[change]
    entries = tuple(video_index.Entry(**{**vars(entry), **wrong}) for entry in index.entries[1:2])
    astray = FrameIndex(index.checksums, index.valid, entries)
    counted = decoded_count(monkeypatch)
    got = read_frames(source, np.arange(20, 24), index=astray)
    assert (got == np.stack(pictures[20:24])).all()
    assert counted[0] > 24, "the seek was tried, and the start taken after it"


def test_a_file_that_changed_is_noticed_by_an_old_index_and_indexed_anew_without_one(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", [numbered(n) for n in range(30)], options={"g": "5"})
    index = index_frames(source_of(path))
    assert number_of(read_frames(source_of(path), np.array([20]))[0]) == 20
    write(path, [numbered(n + 100) for n in range(40)], options={"g": "5"})
    os.utime(path, ns=(1, 1))
    with pytest.raises(VideoError, match=r"a\.mp4: changed since it was indexed"):
        read_frames(source_of(path), np.array([20]), index=index)
    assert number_of(read_frames(source_of(path), np.array([39]))[0]) == 139


def test_an_index_travels_to_other_processes(
    made: Made,
) -> None:
    source, pictures, index = made["vp9.webm"]
    travelled = pickle.loads(pickle.dumps(index))
    assert (read_frames(source, np.array([33]), index=travelled)[0] == pictures[33]).all()


@pytest.mark.parametrize("frames", [[-1, 3], [3, COUNT]])
def test_frames_outside_the_video_are_refused(made: Made, frames: list[int], tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"h264\.mp4: no frame (-1|40); expected 0 to 39"):
        read_frames(made["h264.mp4"][0], np.array(frames))
    with pytest.raises(VideoError, match="no frame"):
        read_frames(frame_folder(tmp_path / "clip", ["1.png", "2.png"]), np.array(frames))


# Writing


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".AVI"])
@pytest.mark.parametrize("size", [(48, 80), (47, 79)])
def test_what_is_written_is_read_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    pictures = [numbered(n, *size) for n in range(30)]
    path = tmp_path / f"clip{suffix}"
    assert write_video(path, iter(pictures), fps=12.5) == 30
    back = [p for p in decode(source_of(path)) if p is not None]
    assert [number_of(p) for p in back] == list(range(30))
    assert (
        np.abs(
            np.stack(back)[:, size[0] // 2 + 4 :].astype(int) - np.stack(pictures)[:, size[0] // 2 + 4 :]
        ).mean()
        < 6
    )
    facts = probe(source_of(path))
    assert (facts.frames, facts.fps, facts.height, facts.width) == (30, 12.5, *size)
    with av.open(str(path)) as container:
        stamps = sorted(float(p.dts * p.time_base) for p in container.demux(video=0) if p.dts is not None)
    assert np.allclose(np.diff(stamps), 1 / 12.5)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_equal_frames_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    digests = set()
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}{suffix}", (numbered(n) for n in range(30)))
        digests.add(digest(source_of(tmp_path / f"{name}{suffix}")))
    write_video(tmp_path / f"c{suffix}", (numbered(n + 1) for n in range(30)))
    assert len(digests) == 1
    assert digest(source_of(tmp_path / f"c{suffix}")) not in digests


def test_a_video_is_written_in_full_or_not_at_all(tmp_path: Path) -> None:
    def fails() -> Iterator[Picture]:
        yield numbered(0)
        raise RuntimeError("the source of the frames failed")

    with pytest.raises(RuntimeError):
        write_video(tmp_path / "a.mp4", fails())
    with pytest.raises(VideoError, match=r"frame 1 is \(20, 30, 3\)"):
        write_video(tmp_path / "a.mp4", [numbered(0), numbered(1, 20, 30)])
    with pytest.raises(VideoError, match="no frame to write"):
        write_video(tmp_path / "a.mp4", [])
    with pytest.raises(VideoError, match=r"a\.mov: cannot write .* use \.avi or \.mp4"):
        write_video(tmp_path / "a.mov", [numbered(0)])
    assert list(tmp_path.iterdir()) == []


# Real files


def plain_pyav(path: Path) -> Iterator[Picture]:
    """Every frame that PyAV gives by itself, turned by the angle that it reports."""
    with av.open(str(path)) as container, suppress(av.FFmpegError):
        for frame in container.decode(video=0):
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
    pictures = [p for p in decode(clip) if p is not None]
    assert (len(pictures), pictures[0].shape) == (40, (224, 384, 3))
    assert (read_frames(clip, np.array([39, 7])) == np.stack([pictures[39], pictures[7]])).all()


@pytest.mark.shared
def test_a_header_that_claims_100_times_its_frames_is_an_estimate_only(shared: Path) -> None:
    source = source_of(shared / "data" / "dhf1k" / "video" / "300.AVI")
    assert probe(source).frames == 21601
    assert len(index_frames(source).checksums) == 217
