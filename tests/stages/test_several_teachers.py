"""Several teachers in one dump: each has the store that it would have alone, and no frame is decoded twice."""

import json
import signal
from pathlib import Path

import pytest

from tests.small_dumps import LENGTHS, SETTINGS, dump_of, write_teacher, write_videos
from tests.store_tools import content_of
from tests.warm_command import WarmCommand
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.dump import shard_work
from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.weights import write_weights
from tinyhd_pipe.store import open_store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Videos, one of them broken, and a list of teachers that see windows of other kinds."""
    (write_videos(tmp_path / "videos") / "broken.mp4").write_text("no video")
    write_teacher(tmp_path / "m.safetensors")
    facts = {"kind": "hd2s", "size": [32, 32]}
    write_weights(tmp_path / "s.safetensors", HD2S(width=0.0625).state_dict(), facts)
    teachers = [
        {"store": str(tmp_path / "m.zarr"), "teacher": "tinyhd", "weights": str(tmp_path / "m.safetensors")},
        {"store": str(tmp_path / "s.zarr"), "weights": str(tmp_path / "s.safetensors")},
    ]
    (tmp_path / "teachers.yaml").write_text(json.dumps(teachers))  # JSON is YAML
    return tmp_path


def _several(place: Path, *more: str) -> list[str]:
    several = ["teacher-dump", "--videos", str(place / "videos"), "--teachers", str(place / "teachers.yaml"), "--json"]
    return [*several, *SETTINGS, *more]


def test_each_teacher_has_the_bytes_of_a_dump_of_its_own_and_each_video_is_decoded_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    decoded: list[str] = []
    decode = shard_work.decode
    monkeypatch.setattr(shard_work, "decode", lambda source: decoded.append(source.id) or decode(source))
    one_shard = ("--set", "teacher_dump.shard_megabytes=1")  # of small ones, either teacher's frames decide for both
    assert run(_several(place, *one_shard)) == 1, "one does not decode"
    several = json.loads(capsys.readouterr().out)
    assert decoded == list(LENGTHS)
    for dumped, name in zip(several, ("m", "s"), strict=True):
        assert (dumped["frames"], dumped["videos"]) == (sum(LENGTHS.values()), len(LENGTHS))
        assert list(dumped["problems"]) == ["broken.mp4"]
        kind = () if name == "m" else ("--teacher", "hd2s")
        alone = dump_of(place / "videos", place / f"{name}.safetensors", place / f"{name}-alone.zarr", *kind)
        assert run([*map(str, alone), *one_shard]) == 1
        assert content_of(place / f"{name}.zarr") == content_of(place / f"{name}-alone.zarr")
    decoded.clear()
    capsys.readouterr()
    assert run(_several(place, *one_shard)) == 1
    assert decoded == []
    assert [dumped["already_there"] for dumped in json.loads(capsys.readouterr().out)] == [len(LENGTHS) + 1] * 2


def test_what_one_store_has_already_only_the_others_get(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "videos/broken.mp4").unlink()
    first = dump_of(place / "videos/2.mp4", place / "m.safetensors", place / "m.zarr")
    assert run([*map(str, first)]) == 0
    capsys.readouterr()
    assert run(_several(place)) == 0
    made = {dumped["store"]: dumped["frames"] for dumped in json.loads(capsys.readouterr().out)}
    total = sum(LENGTHS.values())
    assert made == {str(place / "m.zarr"): total - LENGTHS["2.mp4"], str(place / "s.zarr"): total}
    assert open_store(place / "m.zarr").videos == open_store(place / "s.zarr").videos == list(LENGTHS)


def test_where_one_store_is_of_another_teacher_none_is_begun(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_teacher(place / "other.safetensors", seed=1)
    first = dump_of(place / "videos/2.mp4", place / "other.safetensors", place / "m.zarr")
    assert run([*map(str, first)]) == 0
    before = content_of(place / "m.zarr")
    (place / "teachers.yaml").write_text(json.dumps(json.loads((place / "teachers.yaml").read_text())[::-1]))
    assert run(_several(place)) == 1
    assert "m.zarr: made with teacher.weights_sha256" in capsys.readouterr().err
    assert not (place / "s.zarr").exists()
    assert content_of(place / "m.zarr") == before


@pytest.mark.slow
def test_a_dump_of_several_that_is_killed_goes_on_to_the_bytes_of_one_that_never_was(place: Path) -> None:
    (place / "videos/broken.mp4").unlink()
    with WarmCommand() as warm:
        running = warm.start(_several(place), place / "killed.log")
        running.until(lambda: len(list(place.glob("[ms].zarr/shards/*/zarr.json"))) > 3)
        running.signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        code, said = warm.run(_several(place), place / "rerun.log")
        assert code == 0, said
        after = [content_of(place / f"{name}.zarr") for name in "ms"]
        for name in "ms":
            (place / f"{name}.zarr").rename(place / f"{name}-killed.zarr")
        code, said = warm.run(_several(place), place / "whole.log")
        assert code == 0, said
    assert after == [content_of(place / f"{name}.zarr") for name in "ms"]


def test_a_plan_says_what_each_teacher_has_to_do_and_writes_nothing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dumped = dump_of(place / "videos", place / "m.safetensors", place / "m.zarr")
    assert run([*map(str, dumped)]) == 1, "one does not decode"
    before = content_of(place / "m.zarr")
    capsys.readouterr()
    assert run(_several(place, "--plan")) == 0
    (first, second) = json.loads(capsys.readouterr().out)
    assert (first["store"], second["store"]) == (str(place / "m.zarr"), str(place / "s.zarr"))
    assert first["maps_left"] == 0, "which is there"
    assert second["maps_left"] == sum(LENGTHS.values())
    assert list(second["problems"]) == ["broken.mp4"]
    assert content_of(place / "m.zarr") == before
    assert not (place / "s.zarr").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("store: a", "expected a list of teachers, as in"),
        ("- {store: a}", "teacher 1: weights"),
        ("- {store: a, weights: m.safetensors, colour: red}", "teacher 1: colour"),
        ("- {store: a, weights: b}\n- {store: a, weights: c}", "two teachers have one store"),
        ("- {store: a, weights: gone.pt}", "gone.pt: no such weights file"),
        ("- {store: [", "not YAML"),
    ],
)
def test_a_list_of_teachers_that_is_none_is_told_in_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    (place / "teachers.yaml").write_text(text)
    assert run(_several(place)) in (1, 2)
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_list_of_teachers_stands_for_itself(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_several(place, "--store", "a.zarr")) == 2
    assert "without --store, --weights, --workers, --scheduler" in capsys.readouterr().err
    assert run(["teacher-dump", "--videos", str(place / "videos")]) == 2
    assert "give both, or several teachers with --teachers FILE" in capsys.readouterr().err
