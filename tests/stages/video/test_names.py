"""Ids are text, and lead back to the names of files whatever bytes those are made of."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.small_dumps import clip, dump_of, write_teacher
from tests.video_files import frame_folder, touch
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.student_train import stored_videos
from tinyhd_pipe.stages.training.targets import Targets
from tinyhd_pipe.stages.video.index import read_frames
from tinyhd_pipe.stages.video.names import as_id, escaped, unescaped
from tinyhd_pipe.stages.video.sources import digest, find_videos
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store import open_store

NAMES = st.binary(max_size=12).map(lambda name: name.replace(b"\0", b"")) | st.text(r"\x5ce9fA8", max_size=12).map(
    os.fsencode
)


@given(NAMES)
@example(rb"\x" + b"\xe9")
@example(b"\\\xe9")
@example(rb"\\xe9\x5c\x5cxe9")
def test_every_name_leads_to_text_and_back(name: bytes) -> None:
    given_name = os.fsdecode(name)
    text = escaped(given_name)
    text.encode()  # raises where it is no text
    assert unescaped(text) == given_name


@given(NAMES, NAMES)
def test_different_names_have_different_ids(one: bytes, other: bytes) -> None:
    assert (escaped(os.fsdecode(one)) == escaped(os.fsdecode(other))) == (one == other)


def test_names_that_are_text_are_their_own_ids() -> None:
    for name in ("001.AVI", "café 日本.mp4", "100%20.mp4", r"a\b.mp4", r"\x41", r"\xE9"):
        assert escaped(name) == as_id(name) == name
    assert escaped(os.fsdecode(b"caf\xe9.mp4")) == as_id(os.fsdecode(b"caf\xe9.mp4")) == r"caf\xe9.mp4"
    assert as_id(r"caf\xe9.mp4") == r"caf\xe9.mp4"


def test_videos_folders_and_frames_may_have_any_name(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"d\xe9p\xf4t")
    touch(root, os.fsdecode(b"\xfc/caf\xe9.mp4"))
    touch(tmp_path / "b", os.fsdecode(b"\xfc/caf\xe9.mp4"))
    frames = frame_folder(root / os.fsdecode(b"c\xf6pie"), [os.fsdecode(b"\xe91.png"), os.fsdecode(b"\xe92.png")])
    assert [source.id for source in find_videos([root])] == [r"\xfc/caf\xe9.mp4", r"c\xf6pie"]
    assert [source.id for source in find_videos([root, tmp_path / "b"])] == [
        r"b/\xfc/caf\xe9.mp4",
        r"c\xf6pie",
        r"d\xe9p\xf4t/\xfc/caf\xe9.mp4",
    ]
    assert len(digest(frames)) == 64


def test_a_name_that_is_no_utf_8_is_dumped_learned_from_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos, store = tmp_path / "videos", tmp_path / "maps.zarr"
    videos.mkdir()
    raw = os.fsdecode(b"caf\xe9.mp4")
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        write_video(videos / name, clip(20, seed))
    (videos / "b.mp4").rename(videos / raw)
    (videos / os.fsdecode(b"br\xfb.mp4")).write_bytes(b"no video")
    frame_folder(videos / "frames", ["1.png", os.fsdecode(b"\xe92.png")])
    (videos / "frames" / os.fsdecode(b"\xe92.png")).write_bytes(b"no picture")

    dump = dump_of(videos, write_teacher(tmp_path / "teacher.safetensors"), store)
    assert run([str(word) for word in dump]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert list(problems) == [r"br\xfb.mp4", "frames"]
    assert r"\xe92.png the first" in problems["frames"]
    maps = open_store(store)
    assert maps.videos == ["a.mp4", r"br\xfb.mp4", r"caf\xe9.mp4", "frames"]
    assert maps.video(r"caf\xe9.mp4").rows == 20

    for asked in (raw, r"caf\xe9.mp4"):
        show = ["store", "show", str(store), asked, "--videos", str(videos), "--out", str(tmp_path / "sheet.png")]
        assert run(show) == 0
        assert (tmp_path / "sheet.png").stat().st_size > 0

    only = tmp_path / "only"
    only.mkdir()
    (videos / raw).rename(only / raw)
    learned = stored_videos(Targets.of([maps]), find_videos([only / raw, videos / "a.mp4"]), [])
    assert [video.stored_as for video in learned] == ["a.mp4", r"caf\xe9.mp4"]
    assert read_frames(learned[1].source, np.array([19])).shape == (1, 48, 96, 3)
