"""What a run took, and after how many epochs its dump has paid for itself.

The decision that is not obvious: a store knows no clock, because its bytes are the same however often the dump was
interrupted. So the teacher's time is measured here, on the windows that the gallery needs anyway, and multiplied: it
stands on the page as an estimate for this machine, while the training's time is what the run has measured itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tinyhd_pipe.stages.dump.break_even import BreakEven, break_even, windows_of
from tinyhd_pipe.stages.reports.facts import Row
from tinyhd_pipe.stages.reports.gallery import Gallery
from tinyhd_pipe.stages.reports.places import TEACHER, Missing, RunFolder
from tinyhd_pipe.stages.reports.words import duration, size
from tinyhd_pipe.store.reader import Store

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True)
class Costs:
    """Rows of what was taken, and sentences on what that means."""

    rows: tuple[Row, ...]
    told: tuple[str, ...]


def costs(
    run: RunFolder, stores: Sequence[Store] | Missing, gallery: Gallery | Missing, price: float | None
) -> Costs | Missing:
    """Time, money and break-even of a run; Missing where none of it is known."""
    rows: list[Row] = []
    told: list[str] = []
    spent = run.record.seconds if run.record else 0.0
    if spent and run.record:
        samples = run.record.samples_an_epoch * len(run.history)
        speed = f", {samples / spent:,.1f} samples a second with validation and pictures" if samples else ""
        rows.append(("training, measured", duration(spent) + speed))
    teacher = None if isinstance(gallery, Missing) else gallery.speeds.get(TEACHER)
    a_map = teacher.seconds_a_map if teacher else None
    if not isinstance(stores, Missing):
        windows, outputs = _windows(stores)
        rows.append(("teacher's windows in the dump", f"{windows:,}"))
        if a_map:
            dumped = a_map * sum(store.info()["frames_with_maps"] for store in stores)
            rows.append(("dump, estimated on this machine", f"{duration(dumped)} at {a_map * 1e3:,.0f} ms a frame"))
            spent += dumped
        rows.append(("stores", size(sum(store.info()["bytes"] for store in stores))))
        if run.record and run.record.samples_an_epoch:
            even = break_even(windows, run.record.samples_an_epoch, outputs=outputs)
            told += _break_even_told(run, even, windows)
    for name, of in ({} if isinstance(gallery, Missing) else gallery.speeds).items():
        if of.seconds_a_map:
            rows.append((f"{name}, measured on this machine", f"{1 / of.seconds_a_map:,.1f} frames a second"))
    if price is not None and spent:
        rows.append((f"cost at {price:g} an hour", f"{price * spent / SECONDS_AN_HOUR:,.2f}"))
    if not rows:
        return Missing("The run does not say how long it took: it has no run.json, which trainings leave from now on.")
    return Costs(tuple(rows), tuple(told))


def _windows(stores: Sequence[Store]) -> tuple[int, int]:
    """Teacher windows of all dumps, and the outputs of the first teacher: 1 or 16."""
    windows = []
    for store in stores:
        outputs = 1 if store.description.temporal.map_of == "last frame of the window" else 16
        frames = store.info()["frames_with_maps"] * store.every
        windows.append((windows_of(frames, outputs=outputs, every=store.every, mirrored=store.mirrored), outputs))
    return sum(count for count, _ in windows), windows[0][1]


def _break_even_told(run: RunFolder, even: BreakEven, windows: int) -> list[str]:
    single = run.facts.get("outputs", 1) == 1
    epochs = even.epochs_single if single else even.epochs_multi
    a_clip = even.windows_a_clip[0 if single else 1]
    trained = len(run.history)
    in_loop = trained * even.clips_an_epoch * a_clip
    verdict = (
        f"this run alone had {trained}, so the dump has paid for itself"
        if trained >= epochs
        else f"this run had {trained}, so the dump pays from the {_nth(epochs, trained)} such student on"
    )
    return [
        f"With the teacher inside the training these {trained} epochs would have taken {in_loop:,} of its windows; "
        f"the dump took {windows:,}, once.",
        f"The dump costs as much as {epochs:,.1f} epochs with the teacher in the loop: {verdict}. Every further "
        "student from this store costs no window of the teacher.",
    ]


def _nth(epochs: float, trained: int) -> str:
    students = int(-(-epochs // max(trained, 1)))
    return {1: "1st", 2: "2nd", 3: "3rd"}.get(students, f"{students}th")
