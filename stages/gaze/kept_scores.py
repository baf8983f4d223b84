"""Scores that are kept beside an evaluation's output, a file for each contender on each video, so that a killed one
goes on: at most the open video is scored again.

The decision that is not obvious: a file is named by a digest of all that made its scores (what made the maps, the
video's content, the annotation's files, the protocol, the set from which other frames are drawn), and is never looked
at under another one. So nothing has to be compared, and what has changed is not found.

Cost: a kilobyte for four frames.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinyhd_pipe.stages.gaze.annotated import AnnotatedVideo
from tinyhd_pipe.stages.gaze.label_videos import file_of
from tinyhd_pipe.stages.gaze.scoring import METRICS, Scores, Scoring
from tinyhd_pipe.stages.gaze.truth import Comparable
from tinyhd_pipe.stages.video.sources import digest
from tinyhd_pipe.store.whole_file import write_whole

FORMAT = 1
"""Counted up where the same maps and truth get other scores than before."""
ByFrame = Mapping[int, Scores]
"""Absolute frame -> metric -> figure."""


@dataclass(frozen=True)
class KeptScores:
    """What a folder keeps of one video."""

    folder: Path
    scoring: Scoring
    video: AnnotatedVideo
    frames: tuple[int, ...]
    """Those that are compared."""
    digest: str
    """Of the video's content."""

    @classmethod
    def of(cls, folder: Path, scoring: Scoring, looked_at: Comparable) -> "KeptScores":
        """Raises VideoError for a video that cannot be read."""
        return cls(folder, scoring, looked_at.video, looked_at.frames, digest(looked_at.video.source))

    def read(self, identity: Mapping[str, Any]) -> ByFrame | None:
        """The scores of a contender of this identity, or None where they were not kept."""
        try:
            text = self._path(identity).read_text()
        except FileNotFoundError:
            return None
        kept = json.loads(text)["scores"]
        return {
            int(frame): {metric: math.nan if of is None else of for metric, of in zip(METRICS, figures, strict=True)}
            for frame, figures in kept.items()
        }

    def write(self, identity: Mapping[str, Any], scores: ByFrame) -> None:
        """Keep them; whole or not at all."""
        plain = {
            str(frame): [None if math.isnan(figures[metric]) else figures[metric] for metric in METRICS]
            for frame, figures in scores.items()
        }
        text = json.dumps({"video": self.video.source.id, "metrics": METRICS, "scores": plain})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self._path(identity), text.encode())

    def _path(self, identity: Mapping[str, Any]) -> Path:
        annotation = (*self.video.density_maps.values(), *self.video.fixations.values())
        made_by = {
            "format": FORMAT,
            "metrics": METRICS,
            "contender": identity,
            "video": (self.video.source.id, self.digest),
            "frames": self.frames,
            "annotation": [_state(self.video, file) for file in annotation],
            "protocol": asdict(self.scoring.protocol),
            "postprocessing": self.scoring.postprocessing,
            "seed": self.scoring.gaze.seed,
            "others": self.scoring.gaze.frames,
        }
        name = hashlib.sha256(json.dumps(made_by, sort_keys=True, default=str).encode()).hexdigest()
        return self.folder / f"{name[:32]}.json"


def _state(video: AnnotatedVideo, file: str) -> tuple[str, int, int]:
    stat = file_of(video.folder / file).stat()
    return file, stat.st_size, stat.st_mtime_ns
