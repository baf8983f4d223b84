"""Ctrl-C and SIGTERM wait for the end of what must not be cut in two, a training step or a checkpoint."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Hold:
    """Signals wait from here on, until `release`. Outside the main thread, which alone they reach, nothing changes."""

    def __init__(self) -> None:
        self.waiting: int | None = None
        """The first signal that came."""
        self._before: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def release(self) -> None:
        """Let signals do again what they did, and the one that has waited do it now."""
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: not set from Python
        self._before = {}
        if self.waiting is not None:
            waited, self.waiting = self.waiting, None
            os.kill(os.getpid(), waited)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.waiting = self.waiting or number


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until this is done."""
    hold = Hold()
    try:
        yield
    finally:
        hold.release()
