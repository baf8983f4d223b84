"""The published networks score on DHF1K what was measured of them there, by the protocol of that measurement."""

from pathlib import Path

import pytest

from tinyhd_pipe.stages.evaluate import evaluate
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.predictions.contender import of_network
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions

# Of frames 15, 207, 399 and 591 of video 002 and frames 15 and 207 of 300: what the whole protocol, every 8th frame
# from 15, gave of them with the means that were measured (002, S: .653 .493 4.72 .972, M: .663 .495 4.80 .975).
ON_SIX_FRAMES = {
    "s": {"002.AVI": {"CC": 0.66679, "SIM": 0.51192, "NSS": 5.38858, "AUC-J": 0.98074}, "300.AVI": {"CC": 0.44795}},
    "m": {"002.AVI": {"CC": 0.64789, "SIM": 0.49691, "NSS": 5.11072, "AUC-J": 0.98147}, "300.AVI": {"CC": 0.39163}},
}


@pytest.mark.shared
@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["s", "m"])
def test_the_published_networks_score_what_was_measured(shared: Path, outputs: str) -> None:
    network = load_student(shared / f"reference/weights/d123{outputs}_rc4_rc1T.pth")
    annotated = find_annotated_videos(shared / "data/dhf1k").videos
    options = EvaluateOptions(every=192, first=15, postprocessing="tinyhd")
    scored = evaluate(annotated, [of_network(outputs, network)], options)
    assert scored.frames == 6
    for video, figures in ON_SIX_FRAMES[outputs].items():
        assert {metric: scored.videos[outputs][video][metric] for metric in figures} == pytest.approx(figures, abs=1e-3)
