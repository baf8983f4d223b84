"""One recording as the programs of several eye trackers export it, and as maps of it must be."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SIZE = (24, 32)
FPS = 10.0
SCREEN = (160, 120)
"""Width and height in pixels of the screen that the video fills."""


@dataclass(frozen=True)
class Gaze:
    """An observer's gaze at one moment, or for a while."""

    observer: str
    seconds: float
    x: float
    """Shares of the picture."""
    y: float
    duration: float = 0.0
    valid: bool = True
    fixating: bool = True

    @property
    def frame(self) -> int:
        return int(self.seconds * FPS)


def recording(samples: int = 40, observers: int = 2, seed: int = 0) -> list[Gaze]:
    """Samples of the first seconds, 25 a second, of which some are lost and some are saccades."""
    rng = np.random.default_rng(seed)
    made = []
    for observer in range(observers):
        for sample in range(samples):
            x, y = rng.uniform(0.05, 0.95, 2)
            lost, jumps = sample % 9 == 5, sample % 7 == 3
            made.append(Gaze(f"P{observer}", 0.04 * sample + 0.001, x, y, valid=not lost, fixating=not jumps))
    return made


def expected_maps(gaze: Sequence[Gaze], frames: int) -> dict[int, NDArray[np.bool_]]:
    """Frame to where anybody fixated, (y, x); frames that nobody looked at are not there."""
    maps: dict[int, NDArray[np.bool_]] = {}
    for one in gaze:
        if one.valid and one.fixating:
            last = max(one.frame, int(np.ceil((one.seconds + one.duration) * FPS - 1e-9)) - 1)
            for frame in range(one.frame, min(last, frames - 1) + 1):
                picture = maps.setdefault(frame, np.zeros(SIZE, bool))
                picture[int(one.y * SIZE[0]), int(one.x * SIZE[1])] = True
    return maps


def _table(header: Sequence[str], rows: Sequence[Sequence[object]], separator: str = "\t") -> str:
    return "".join(separator.join(map(str, row)) + "\n" for row in [header, *rows])


def tobii_pro_lab(gaze: Sequence[Gaze], video: str) -> str:
    """Samples among rows of other stimuli; times in microseconds since the recording began, decimal commas."""
    header = ["Recording timestamp", "Participant name", "Presented Stimulus name", "Eye movement type"]
    header += ["Validity left", "Validity right", "Gaze point X", "Gaze point X (MCSnorm)", "Gaze point Y (MCSnorm)"]
    header += ["Gaze event duration"]
    rows: list[list[object]] = []
    for observer in dict.fromkeys(one.observer for one in gaze):
        rows.append([100, observer, "Eyetracker Calibration", "", "", "", "", "", "", ""])
        rows.append([7_000_000, observer, video, "", "", "", "", "", "", ""])  # an event: the video begins
        for one in (one for one in gaze if one.observer == observer):
            place = [str(at).replace(".", ",") if one.valid else "" for at in (one.x, one.y)]
            kind = ("Fixation" if one.fixating else "Saccade") if one.valid else "EyesNotFound"
            seen = "Valid" if one.valid else "Invalid"
            time = 7_000_000 + round(1e6 * one.seconds)
            rows.append([time, observer, video, kind, "Invalid", seen, 7, *place, 250])
    return _table(header, rows)


def tobii_studio(gaze: Sequence[Gaze], video: str) -> str:
    header = ["ParticipantName", "RecordingTimestamp", "MediaName", "GazeEventType", "ValidityLeft", "ValidityRight"]
    header += ["GazePointX (MCSnorm)", "GazePointY (MCSnorm)"]
    rows: list[list[object]] = [[observer, 5000, video, "Unclassified", 4, 4, "", ""] for observer in ("P0", "P1")]
    for one in gaze:
        kind, code = ("Fixation" if one.fixating else "Saccade"), (0 if one.valid else 4)
        rows.append([one.observer, 5000 + 1000 * one.seconds, video, kind, 4, code, one.x, one.y])
    return _table(header, rows)


def eyelink_samples(gaze: Sequence[Gaze], video: str) -> str:
    """Binocular, `.` where an eye is lost, screen pixels, milliseconds of the tracker's clock."""
    header = ["RECORDING_SESSION_LABEL", "VIDEO_NAME", "TIMESTAMP", "TRIAL_START_TIME", "LEFT_GAZE_X", "LEFT_GAZE_Y"]
    header += ["RIGHT_GAZE_X", "RIGHT_GAZE_Y", "LEFT_IN_BLINK", "RIGHT_IN_BLINK", "LEFT_IN_SACCADE"]
    rows = []
    for one in gaze:
        x, y = one.x * SCREEN[0], one.y * SCREEN[1]
        eyes = [x - 1, y - 1, x + 1, y + 1] if one.valid else ["."] * 4
        flags = [0, 0, int(not one.fixating)]
        rows.append([one.observer, video, 913_000 + 1000 * one.seconds, 913_000, *eyes, *flags])
    return _table(header, rows)


def eyelink_fixations(gaze: Sequence[Gaze], video: str) -> str:
    header = ["RECORDING_SESSION_LABEL", "video", "CURRENT_FIX_START", "CURRENT_FIX_DURATION", "CURRENT_FIX_X"]
    header += ["CURRENT_FIX_Y", "CURRENT_FIX_PUPIL"]
    rows = [
        [one.observer, video, 1000 * one.seconds, 1000 * one.duration, one.x * SCREEN[0], one.y * SCREEN[1], 812]
        for one in gaze
        if one.valid and one.fixating
    ]
    return _table(header, rows)


def pupil_core(gaze: Sequence[Gaze], video: str) -> str:
    """By frame of the video, y from the lower edge; who looked is not in it. It knows no saccades."""
    header = ["gaze_timestamp", "world_index", "confidence", "norm_pos_x", "norm_pos_y", "base_data"]
    rows = [
        [8123.1 + one.seconds, one.frame, 0.98 if one.valid and one.fixating else 0.31, one.x, 1 - one.y, "a, b"]
        for one in gaze
    ]
    return _table(header, rows).replace("a, b", '"a, b"')


def pupil_core_fixations(gaze: Sequence[Gaze], video: str) -> str:
    header = ["id", "start_timestamp", "duration", "start_frame_index", "end_frame_index", "norm_pos_x", "norm_pos_y"]
    rows = []
    for number, one in enumerate(gaze):
        if one.valid and one.fixating:
            last = max(one.frame, int(np.ceil((one.seconds + one.duration) * FPS - 1e-9)) - 1)
            times = [8123.1 + one.seconds, 1000 * one.duration, one.frame, last]
            rows.append([number, *times, one.x, 1 - one.y])
    return _table(header, rows, ",")


def neon_gaze(gaze: Sequence[Gaze], video: str) -> str:
    """As mapped onto a surface; the recording begins with its first row."""
    header = ["section id", "recording id", "timestamp [ns]", "gaze detected on surface"]
    header += ["gaze position on surface x [normalized]", "gaze position on surface y [normalized]", "fixation id"]
    begun = 1_700_000_000_000_000_000
    rows: list[list[object]] = [["s", observer, begun, "False", "", "", ""] for observer in ("P0", "P1")]
    for one in gaze:
        fixation = 12 if one.fixating else ""
        time = begun + 1000 * round(1e6 * one.seconds)
        rows.append(["s", one.observer, time, one.valid, one.x, one.y, fixation])
    return _table(header, rows, ",")


def neon_fixations(gaze: Sequence[Gaze], video: str) -> str:
    header = ["recording id", "fixation id", "start timestamp [ns]", "end timestamp [ns]", "duration [ms]"]
    header += ["fixation detected on surface", "fixation x [normalized]", "fixation y [normalized]"]
    begun = 1_700_000_000_000_000_000
    rows: list[list[object]] = [[one, 0, begun, begun, 1, "False", 0.5, 0.5] for one in ("P0", "P1")]
    for one in gaze:
        if one.valid and one.fixating:
            time = begun + 1000 * round(1e6 * one.seconds)
            rows.append([one.observer, 1, time, time, 1000 * one.duration, "True", one.x, one.y])
    return _table(header, rows, ",")


def plain(gaze: Sequence[Gaze], video: str) -> str:
    header = ["video", "observer", "time_ms", "x_norm", "y_norm", "duration_s", "valid", "event"]
    rows = [
        [video, one.observer, 1000 * one.seconds, one.x, one.y, one.duration, int(one.valid), _event(one)]
        for one in gaze
    ]
    return _table(header, rows, ";")


def _event(one: Gaze) -> str:
    return "fixation" if one.fixating else "saccade"


def as_fixations(gaze: Sequence[Gaze], duration: float = 0.25) -> list[Gaze]:
    """The same as events that last."""
    return [replace(one, duration=duration) for one in gaze]


Export = Callable[[Sequence[Gaze], str], str]
SAMPLES: tuple[Export, ...] = (tobii_pro_lab, tobii_studio, eyelink_samples, pupil_core, neon_gaze, plain)
FIXATIONS: tuple[Export, ...] = (eyelink_fixations, pupil_core_fixations, neon_fixations, plain)
