"""The published networks score on DHF1K what was measured of them there, by the protocol of that measurement."""

from dataclasses import replace
from pathlib import Path

import pytest

from tinyhd_pipe.stages.evaluate import evaluate
from tinyhd_pipe.stages.gaze.datasets import find_annotated_videos
from tinyhd_pipe.stages.networks.network import load_student
from tinyhd_pipe.stages.predictions.contender import of_network
from tinyhd_pipe.stages.settings.evaluate import EvaluateOptions

# Of frames 15 and 207: what the whole protocol, every 8th frame from 15, gave of them with the means that were measured
# (video 002, S: .653 .493 4.72 .972, M: .666 .495 4.81 .975).
FRAMES = (15, 207)
OF_THEM = {
    "s": {
        "002.AVI": {"CC": 0.76958, "SIM": 0.58177, "NSS": 5.99189, "AUC-J": 0.9883},
        "300.AVI": {"CC": 0.44795, "SIM": 0.34552},
    },
    "m": {
        "002.AVI": {"CC": 0.75897, "SIM": 0.57824, "NSS": 5.84661, "AUC-J": 0.98742},
        "300.AVI": {"CC": 0.42721, "SIM": 0.32528},
    },
}


@pytest.mark.shared
@pytest.mark.slow
def test_the_published_networks_score_what_was_measured(shared: Path) -> None:
    networks = {name: load_student(shared / f"reference/weights/d123{name}_rc4_rc1T.pth") for name in OF_THEM}
    annotated = [
        replace(video, density_maps={frame: video.density_maps[frame] for frame in FRAMES})
        for video in find_annotated_videos(shared / "data/dhf1k").videos
    ]
    contenders = [of_network(name, network) for name, network in networks.items()]
    scored = evaluate(annotated, contenders, EvaluateOptions(postprocessing="tinyhd"))
    assert scored.frames == 4
    for name, videos in OF_THEM.items():
        for video, figures in videos.items():
            assert {of: scored.videos[name][video][of] for of in figures} == pytest.approx(figures, abs=1e-3)
