"""Which frames a network sees for which maps, for windows of any shape: causal, centred, spaced, of one frame.

    frames 5, spacing 1, answers [4]      map f sees   f-4 f-3 f-2 f-1 f          causal
    frames 5, spacing 1, answers [2]      map f sees   f-2 f-1 f f+1 f+2          centred
    frames 3, spacing 4, answers [2]      map f sees   f-8 f-4 f                  spaced
    frames 4, spacing 1, answers 0 to 3   maps 0 to 3, 4 to 7, ... see themselves
    frames 2, spacing 2, answers 0 and 1  maps 0 2 | 1 3 | 4 6 | 5 7 | ...        spaced, several maps a window

The decision that is not obvious: windows of several maps tile the video in blocks, and the last block moves back until
it ends with the video, as 16-output students see it; a network that carries a state must not see a frame twice, so its
last window repeats the last frame instead. Frames before the start are made as `head` says, those behind the end
repeat the last one. Whole numbers alone: for one causal map a window this is `clips.teacher_window`.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Window:
    """What a network sees at once, by place in the video."""

    seen: tuple[int, ...]
    """Frames in the order in which it sees them."""
    answered: Mapping[int, int]
    """Frame that gets a map -> which of the network's maps that is, counted from 0."""


@dataclass(frozen=True)
class WindowRule:
    """How windows are cut from a video."""

    frames: int
    spacing: int
    answers: tuple[int, ...]
    """Places in the window, one after another."""
    head: Literal["reverse", "repeat"]
    carries: bool = False
    """Whether a state goes from window to window."""

    @property
    def block(self) -> int:
        """Frames that neighbouring windows answer for together."""
        return self.spacing * len(self.answers)

    def anchors(self, block: int) -> range:
        """The first answered frame of every window of a block."""
        return range(block * self.block, block * self.block + self.spacing)

    def window(self, anchor: int, length: int) -> Window:
        """The window whose first answered frame is `anchor`, in a video of `length` frames."""
        count = len(self.answers)
        wanted = [at for k in range(count) if (at := anchor + k * self.spacing) < length]
        over = anchor + (count - 1) * self.spacing - (length - 1)
        if over > 0 and count > 1 and not self.carries:
            anchor -= -(-over // self.spacing) * self.spacing
        places = self._places(anchor)
        if self.head == "reverse" and min(places) < 0:
            places = [2 * anchor - place for place in places]
        seen = tuple(min(max(place, 0), length - 1) for place in places)
        return Window(seen, {frame: (frame - anchor) // self.spacing for frame in wanted})

    def reach(self, block: int) -> tuple[int, int]:
        """(first, last) frame that any window of a block, or of a later one, looks back to, or of this one ahead."""
        anchors = self.anchors(block)
        first = self._places(anchors[0])[0] - (len(self.answers) - 1) * self.spacing
        last = max(self._places(anchors[-1])[-1], anchors[0] + self.block - 1)
        if self.head == "reverse" and self._places(anchors[0])[0] < 0:
            last = max(last, *(2 * anchor - self._places(anchor)[0] for anchor in anchors))
        return first, last

    def windows_at(self, wanted: Iterable[int], length: int) -> list[Window]:
        """The windows that answer for some frames of a video."""
        anchors: dict[int, None] = {}
        for frame in sorted(wanted):
            block, within = divmod(frame, self.block)
            anchors[block * self.block + within % self.spacing] = None
        return [self.window(anchor, length) for anchor in anchors]

    def _places(self, anchor: int) -> list[int]:
        return [anchor + (place - self.answers[0]) * self.spacing for place in range(self.frames)]


def blocks(rule: WindowRule, frames: Iterable[Item]) -> Iterator[list[tuple[list[Item], dict[int, int]]]]:
    """The windows of every block of a stream whose length nobody knows yet: [(items seen, `Window.answered`), ...].

    Each frame is taken once and never before it is needed; held are those alone that a later window sees.
    """
    source, held, ended, block = iter(frames), dict[int, Item](), False, 0
    length = 0
    while not ended or block * rule.block < length:
        first, last = rule.reach(block)
        while not ended and length <= last:
            try:
                held[length] = next(source)
                length += 1
            except StopIteration:
                ended = True
        if block * rule.block >= length:
            return
        for place in [place for place in held if place < min(first, length - 1)]:
            del held[place]
        windows = [rule.window(anchor, length) for anchor in rule.anchors(block) if anchor < length]
        yield [([held[place] for place in window.seen], dict(window.answered)) for window in windows]
        block += 1
