"""Ctrl-C at a moment that a test chooses, for commands that run in the test's own process."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def interrupted_once_there(file: Path) -> Iterator[None]:
    """What runs in the context gets SIGINT as soon as a file exists. Nothing is sent once the context is left."""
    ended = threading.Event()

    def interrupt() -> None:
        while not ended.is_set():
            if file.exists():
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.001)

    waiting = threading.Thread(target=interrupt, daemon=True)
    waiting.start()
    try:
        yield
    finally:
        ended.set()
        waiting.join()
