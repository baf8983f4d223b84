"""After how many epochs a dump has cost less than the teacher inside the training, in windows of the teacher.

The decision that is not obvious: windows are held against windows. Inside the training, where clips are drawn at random
and no neighbours share work, one costs at least as much as in a dump, so the dump pays for itself no later than this
says. Costs nothing: all of it is counting.
"""

from dataclasses import dataclass

from tinyhd_pipe.stages.video.clips import WINDOW


@dataclass(frozen=True)
class BreakEven:
    """After how many epochs of a student the whole dump has cost less than the teacher inside the training.

    As published, an epoch is one clip of every labelled video and as many of unlabelled ones.
    """

    clips_an_epoch: int
    windows_a_clip: tuple[int, int]
    """Teacher windows for one clip of an S and of an M student."""
    epochs_single: float
    """For an S student, which has one map a clip."""
    epochs_multi: float
    """For an M student, which has 16."""


def break_even(windows: int, clips_an_epoch: int, *, outputs: int) -> BreakEven:
    """Of a dump of so many windows, by a teacher that answers for `outputs` frames of a window, 1 or 16."""
    in_loop = (1, WINDOW if outputs == 1 else 1)
    single, multi = (windows / (count * clips_an_epoch) for count in in_loop)
    return BreakEven(clips_an_epoch, in_loop, epochs_single=single, epochs_multi=multi)


def windows_of(frames: int, *, outputs: int, every: int = 1, mirrored: bool = False) -> int:
    """Windows of the teacher in a dump of every `every`-th of `frames` frames, `mirrored` ones beside them or not."""
    windows = -(-frames // every) if outputs == 1 else -(-frames // WINDOW)
    return windows * (2 if mirrored else 1)
