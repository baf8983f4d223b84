"""Exported networks as teachers: every map is of the frames it should be of, what is not as said is refused."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.exported_networks import (
    PIXELS,
    SIZE,
    Carries,
    Told,
    carries_onnx,
    greys,
    mean_onnx,
    value_of,
    write_pt2,
)
from tinyhd_pipe.stages.dump.exported_check import check_moving, check_values, followed_frame
from tinyhd_pipe.stages.dump.exported_loading import load_exported_teacher
from tinyhd_pipe.stages.dump.exported_maps import ExportedMaps, as_logits
from tinyhd_pipe.stages.networks.weights import read_weights
from tinyhd_pipe.stages.settings.exported_teacher import ExportedTeacher
from tinyhd_pipe.stages.video.clips import student_window, teacher_window
from tinyhd_pipe.stages.video.sources import VideoSource
from tinyhd_pipe.stages.video.window_rules import WindowRule, blocks
from tinyhd_pipe.store.errors import SettingError, WeightsError

NO_VIDEO = VideoSource("none", Path("none"))
NOISE = list(np.random.default_rng(0).integers(0, 255, (4, *SIZE, 3)).astype(np.uint8))


def _values(
    maps: ExportedMaps, pictures: Sequence[NDArray[np.uint8] | None], every: int = 1, level: str = "final"
) -> list[float]:
    """What the middle pixel of every map is, by rising frame."""
    made = [work([level]) for work in maps.work(NO_VIDEO, iter(pictures), every)]
    logits = torch.cat([one.logits[level] for one in made])
    return logits.sigmoid()[:, 16, 16].tolist()  # type: ignore[no-any-return]


def _of(frames: Sequence[Sequence[float]]) -> Any:
    return pytest.approx([float(np.mean([value_of(frame) for frame in seen])) for seen in frames], abs=1e-4)


@pytest.fixture(scope="module")
def mean_of_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mean_onnx(tmp_path_factory.mktemp("mean") / "mean.onnx")


def _mean(path: Path, **told: Any) -> ExportedMaps:
    return load_exported_teacher("onnx", path, ExportedTeacher(layout="B T C Y X", **PIXELS, **told))


def test_a_causal_window_ends_with_its_frame_and_its_head_is_reversed(mean_of_four: Path) -> None:
    expected = [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]
    assert _values(_mean(mean_of_four), greys(7)) == _of(expected)
    assert _values(_mean(mean_of_four), greys(7), every=3) == _of(expected[::3])


def test_the_head_repeats_frame_0_where_that_is_said(mean_of_four: Path) -> None:
    expected = [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4]]
    assert _values(_mean(mean_of_four, head="repeat"), greys(5)) == _of(expected)


def test_a_centred_window_sees_what_is_to_come(mean_of_four: Path) -> None:
    expected = [[0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 4], [3, 4, 4, 4]]
    maps = _mean(mean_of_four, answers=(1,))
    assert _values(maps, greys(5)) == _of(expected)
    assert maps.temporal(1).map_of == "frame 1 of the window, counted from 0"


def test_a_spaced_window_passes_over_frames(mean_of_four: Path) -> None:
    expected = [[0, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0], [0, 0, 0, 3], [1, 0, 0, 4], [5, 2, 0, 0], [6, 3, 0, 0]]
    assert _values(_mean(mean_of_four, head="repeat", spacing=3), greys(7)) == _of(expected)


def test_a_map_of_the_middle_frame_is_of_that_frame_in_either_runtime(tmp_path: Path) -> None:
    path = write_pt2(tmp_path / "middle.pt2", Told(lambda clip: clip[:, :, 2].mean(1)), (3, 5, *SIZE))
    maps = load_exported_teacher("torch", path, ExportedTeacher(answers=(2,), **PIXELS), batch=3)
    assert _values(maps, greys(9)) == _of([[frame] for frame in range(9)])
    assert followed_frame(maps) == pytest.approx(2, abs=0.5)
    assert check_moving(maps) == []
    late = load_exported_teacher("torch", path, ExportedTeacher(answers=(4,), **PIXELS))
    assert _values(late, greys(9))[4:] == _of([[2], [3], [4], [5], [6]]), "two frames late, as its shape does not show"
    (warning,) = check_moving(late)
    assert "in frame 2.0 of the window" in warning
    assert "frame 4" in warning


def test_windows_of_several_maps_tile_the_video_and_the_last_one_moves_back(tmp_path: Path) -> None:
    path = write_pt2(
        tmp_path / "all.pt2", Told(lambda clip: clip.mean(1) / 2 + clip.mean((1, 2))[:, None] / 2), (3, 3, *SIZE)
    )
    maps = load_exported_teacher("torch", path, ExportedTeacher(answers=(0, 1, 2), **PIXELS), batch=2)
    windows = [(0, 1, 2)] * 3 + [(3, 4, 5)] * 3 + [(4, 5, 6)]
    expected = [(value_of(frame) + np.mean([value_of(one) for one in seen])) / 2 for frame, seen in enumerate(windows)]
    assert _values(maps, greys(7)) == pytest.approx(expected, abs=1e-4)
    assert maps.temporal(1).map_of == "every frame of the window"


def test_a_network_of_single_pictures_gives_each_its_map(tmp_path: Path) -> None:
    path = write_pt2(tmp_path / "image.pt2", Told(lambda picture: picture.mean(1, keepdim=True)), (3, *SIZE))
    maps = load_exported_teacher("torch", path, ExportedTeacher(layout="B C Y X", **PIXELS), batch=4)
    assert _values(maps, greys(6)) == _of([[frame] for frame in range(6)])
    assert maps.temporal(1).window == 1


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_a_state_goes_from_frame_to_frame_and_begins_anew_with_every_video(tmp_path: Path, kind: Any) -> None:
    if kind == "onnx":
        path = carries_onnx(tmp_path / "most.onnx")
    else:
        path = write_pt2(tmp_path / "most.pt2", Carries(), (3, *SIZE), SIZE, free_batch=False)
    maps = load_exported_teacher(kind, path, ExportedTeacher(layout="B C Y X", **PIXELS))
    up_and_down = [greys(9)[frame] for frame in (3, 1, 5, 2, 8, 0)]
    assert _values(maps, up_and_down) == _of([[3], [3], [5], [5], [8], [8]])
    assert _values(maps, up_and_down, every=2) == _of([[3], [5], [8]]), "frames between dumped ones are seen, too"
    assert _values(maps, greys(3)) == _of([[0], [1], [2]])
    assert maps.threads == 1


def test_windows_wait_for_their_turn_in_whichever_threads_they_run(tmp_path: Path) -> None:
    """As beside another teacher of the same dump, which may have threads for itself."""
    maps = load_exported_teacher(
        "onnx", carries_onnx(tmp_path / "most.onnx"), ExportedTeacher(layout="B C Y X", **PIXELS)
    )
    work = list(maps.work(NO_VIDEO, iter(greys(8)[::-1][:5]), 1))
    made: dict[int, float] = {}

    def run_one(place: int) -> None:
        made[place] = float(work[place](["final"]).logits["final"].sigmoid().mean())

    threads = [Thread(target=run_one, args=(place,)) for place in reversed(range(5))]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    for thread in threads:
        thread.join(10)
    assert [made[place] for place in range(5)] == _of([[7]] * 5)


def test_a_picture_that_does_not_decode_shows_its_neighbour_and_has_no_map(mean_of_four: Path) -> None:
    pictures = [*greys(4), None, *greys(7)[5:]]
    made = [work(["final"]) for work in _mean(mean_of_four).work(NO_VIDEO, iter(pictures), 1)]
    assert [place for one in made for place in one.failed] == [4]
    assert _values(_mean(mean_of_four), pictures)[5] == pytest.approx(
        np.mean([value_of(frame) for frame in (2, 3, 3, 5)]), abs=1e-4
    )


@given(
    frames=st.integers(1, 9),
    answered=st.integers(1, 9),
    first=st.integers(0, 8),
    spacing=st.integers(1, 4),
    length=st.integers(1, 40),
    head=st.sampled_from(["reverse", "repeat"]),
    carries=st.booleans(),
)
def test_every_frame_gets_exactly_one_map_and_lies_where_the_map_is_taken(
    frames: int, answered: int, first: int, spacing: int, length: int, head: Any, carries: bool
) -> None:
    answers = tuple(range(min(first, frames - 1), min(first + answered, frames)))
    rule = WindowRule(frames, spacing, answers, head if len(answers) == 1 else "repeat", carries=carries)
    seen = [window for block in blocks(rule, iter(range(length))) for window in block]
    assert sorted(frame for _, rows in seen for frame in rows) == list(range(length))
    for window, rows in seen:
        assert len(window) == frames
        assert all(window[answers[place]] == frame for frame, place in rows.items())
    for frame in range(length):
        (window,) = rule.windows_at([frame], length)
        assert (list(window.seen), dict(window.answered)) in seen


@given(frame=st.integers(0, 40), length=st.integers(1, 41))
def test_one_map_of_16_frames_sees_what_the_other_teachers_see(frame: int, length: int) -> None:
    frame = min(frame, length - 1)
    windows = {head: WindowRule(16, 1, (15,), head).window(frame, length).seen for head in ("reverse", "repeat")}  # type: ignore[arg-type]
    assert windows["reverse"] == tuple(teacher_window(frame, length).tolist())
    assert windows["repeat"] == tuple(student_window(frame).tolist())


@pytest.mark.parametrize(
    ("values", "made"),
    [
        ("logits", lambda shares: torch.logit(shares)),
        ("probabilities", lambda shares: shares),
        ("shares", lambda shares: shares / shares.sum()),
        ("log-probabilities", lambda shares: (shares / shares.sum()).log()),
    ],
)
def test_maps_of_all_values_have_the_same_shape_as_logits(values: str, made: Callable[[Any], Any]) -> None:
    shares = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)) / 4 + 0.1
    stored = as_logits(made(shares), values).sigmoid()
    torch.testing.assert_close(stored / stored.sum(), shares / shares.sum(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("function", "told", "says"),
    [
        (lambda clip: clip[:, :, -1].mean(1) * 3, {}, "values from .* expected probabilities"),
        (lambda clip: clip[:, :, -1].mean(1).flatten(1).softmax(1).view(-1, *SIZE), {}, "maps that sum to 1"),
        (lambda clip: clip[:, :, -1].mean(1) / 0, {}, "not finite"),
        (lambda clip: clip[:, :, -1].mean(1), {"values": "log-probabilities"}, "whose shares sum to 1"),
        (lambda clip: clip.mean(1), {}, "shape 1x4x32x32 for 1 windows; expected 1"),
        (lambda clip: (clip[:, :, -1].mean(1), clip), {}, "must be the final map"),
    ],
)
def test_what_is_not_as_it_was_said_is_refused_before_anything_is_written(
    tmp_path: Path, function: Callable[[Any], Any], told: dict[str, Any], says: str
) -> None:
    path = write_pt2(tmp_path / "odd.pt2", Told(function), (3, 4, *SIZE))
    with pytest.raises((WeightsError, SettingError), match=says):
        check_values(load_exported_teacher("torch", path, ExportedTeacher(**PIXELS, **told)), NOISE)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"frames": 5}, "takes 4; leave the setting out"),
        ({"layout": "B C T Y X"}, "takes clip of .x4x3x32x32"),
        ({"layout": "B C Y X"}, "4 axes"),
        ({"answers": (4,)}, "of 0 to 3"),
        ({"answers": (0, 2)}, "follow one another"),
        ({"answers": (2, 3), "head": "reverse"}, "use repeat"),
        ({"levels": ("final", "d2")}, "has 1 outputs"),
        ({"levels": ("d2",)}, "must be the final map"),
    ],
)
def test_settings_that_the_file_contradicts_are_refused_in_a_line(
    mean_of_four: Path, told: dict[str, Any], says: str
) -> None:
    with pytest.raises(SettingError, match=says):
        load_exported_teacher("onnx", mean_of_four, ExportedTeacher(**{"layout": "B T C Y X", **told}))


def test_a_file_of_another_kind_says_which_teacher_takes_it(mean_of_four: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"mean\.onnx is a file of onnx by its name; use --teacher onnx"):
        load_exported_teacher("torch", mean_of_four)
    path = write_pt2(tmp_path / "net.pt2", Told(lambda clip: clip[:, :, -1].mean(1)), (3, 4, *SIZE))
    path.rename(tmp_path / "net.pth")
    for weights, kind in ((tmp_path / "net.pth", "torch"), (mean_of_four, "onnx")):
        with pytest.raises(WeightsError, match=f"a whole network, not weights; .* --teacher {kind}"):
            read_weights(weights)


def test_without_its_package_a_line_says_what_to_install(mean_of_four: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(SettingError, match=rf"{package} is missing; pip install 'tinyhd-pipe\[export\]'"):
                _mean(mean_of_four)


def test_an_identity_differs_wherever_maps_would(mean_of_four: Path) -> None:
    maps = _mean(mean_of_four)
    others = [
        replace(maps, told=replace(maps.told, **change))
        for change in ({"colours": "BGR"}, {"spacing": 2}, {"answers": (2,)}, {"head": "repeat"}, {"values": "logits"})
    ]
    assert len({str(one.identity) for one in (maps, *others)}) == 6
