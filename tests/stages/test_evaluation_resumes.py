"""A killed evaluation goes on: what was scored is kept, and taken for what made it and for nothing else."""

import json
import signal
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.moving_dot import dot, make_data
from tests.warm_command import WarmCommand
from tinyhd_pipe.pipeline.app import run
from tinyhd_pipe.stages.evaluate import Watch, evaluate
from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.gaze.label_videos import EachFrame
from tinyhd_pipe.stages.predictions.contender import Contender, Predictions
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions
from tinyhd_pipe.stages.video.writing import write_video


class Asked:
    """A contender that notes which videos it was asked for."""

    def __init__(self, identity: str = "dots") -> None:
        self.videos: list[str] = []
        self.contender = Contender("dots", {"kind": identity}, self._maps)

    def _maps(self, video: AnnotatedVideo, frames: Collection[int]) -> Predictions:
        self.videos.append(video.source.id)
        yield from ((frame, dot(frame, row=10)) for frame in sorted(frames))


def test_what_is_kept_is_taken_and_gives_the_same_figures(tmp_path: Path) -> None:
    annotated = make_data(tmp_path / "dots", videos=2)
    first, again, others = Asked(), Asked(), Asked("others")
    watch = Watch(kept=tmp_path / "kept")
    before, after = (json.dumps(asdict(evaluate(annotated, [one.contender], watch=watch))) for one in (first, again))
    assert after == before
    assert (first.videos, again.videos) == (["001", "002"], [])
    evaluate(annotated, [others.contender], watch=watch)
    assert others.videos == ["001", "002"], "maps of another identity"


def test_labels_that_lie_in_one_video_are_told_apart_by_it(tmp_path: Path) -> None:
    (plain,) = make_data(tmp_path / "dots", videos=1)
    pictures = [np.repeat((255 * dot(frame, row=12)).astype(np.uint8)[..., None], 3, axis=2) for frame in range(24)]
    write_video(tmp_path / "maps.avi", pictures)
    labelled = AnnotatedVideo(plain.source, tmp_path, EachFrame("maps.avi", 24), {})
    watch = Watch(kept=tmp_path / "kept")
    first, again, changed = Asked(), Asked(), Asked()
    evaluate([labelled], [first.contender], watch=watch)
    evaluate([labelled], [again.contender], watch=watch)
    write_video(tmp_path / "maps.avi", pictures[::-1])
    evaluate([labelled], [changed.contender], watch=watch)
    assert (first.videos, again.videos, changed.videos) == (["001"], [], ["001"])


@pytest.mark.parametrize("changed", ["annotation", "video", "protocol", "postprocessing", "seed", "frames"])
def test_what_has_changed_is_scored_again(tmp_path: Path, changed: str) -> None:
    annotated = make_data(tmp_path / "dots", videos=2)
    watch, options = Watch(kept=tmp_path / "kept"), EvaluateOptions()
    evaluate(annotated, [Asked().contender], options, watch)
    if changed == "annotation":
        Image.fromarray((255 * dot(3)).astype(np.uint8)).save(tmp_path / "dots/annotation/0002/maps/0001.png")
    elif changed == "video":
        Image.new("RGB", (64, 32)).save(tmp_path / "dots/video/002/0001.png")
    else:
        other = {"protocol": "mit", "postprocessing": "tinyhd", "seed": 1, "frames": 2}[changed]
        options = replace(options, **{{"frames": "every"}.get(changed, changed): other})
    asked = Asked()
    evaluate(find_annotated_videos(tmp_path / "dots").videos, [asked.contender], options, watch)
    assert asked.videos == (["002"] if changed in ("annotation", "video") else ["001", "002"])


def _maps(folder: Path) -> None:
    for number in (1, 2):
        (folder / f"{number:03d}").mkdir(parents=True)
        for frame in range(24):
            Image.fromarray((255 * dot(frame)).astype(np.uint8)).save(folder / f"{number:03d}/{frame + 1:04d}.png")


@pytest.mark.slow
def test_a_killed_evaluation_costs_the_open_video_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_data(tmp_path / "dots", videos=2)
    _maps(tmp_path / "maps")
    arguments = ["evaluate", "--data", f"{tmp_path / 'dots'}", "--maps", f"{tmp_path / 'maps'}"]
    arguments += ["--out", f"{tmp_path / 'out'}", "--json"]
    kept = tmp_path / "out/kept"
    with WarmCommand() as warm:
        killed = warm.start(arguments, tmp_path / "said")
        killed.until(lambda: any(kept.glob("*.json")))
        killed.signal(signal.SIGKILL)
        assert killed.wait() == -signal.SIGKILL
    there = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert there
    assert run([*arguments, "--resume"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in there} == there
    assert run(arguments) == 0
    assert json.loads(capsys.readouterr().out) == resumed
    assert there.keys() <= set(kept.glob("*.json"))
    assert all(path.stat().st_mtime_ns != changed for path, changed in there.items()), "begun again"


def test_frames_are_a_row_each_and_count_from_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_data(tmp_path / "dots", videos=2)
    _maps(tmp_path / "maps")
    out = f"--out {tmp_path / 'out'} --frames --set evaluate.every=8"
    assert run(f"evaluate --data {tmp_path / 'dots'} --maps {tmp_path / 'maps'} {out} --json".split()) == 0
    rows = (tmp_path / "out/frames/maps.csv").read_text().splitlines()
    assert rows[0].startswith("video,frame,CC,")
    assert [row.split(",")[:2] for row in rows[1:]] == [[video, str(f)] for video in ("001", "002") for f in (0, 8, 16)]
    scored = json.loads(capsys.readouterr().out)
    assert scored["frames"] == 6
    assert len(scored["intervals"]["maps"]["CC"]) == 2
    assert {of["other"] for of in scored["differences"]} == {"centre prior"}
