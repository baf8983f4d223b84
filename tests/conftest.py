"""What every test may use: real clips, published weights, golden maps, a browser; signals as a terminal has them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser import NAMES, chromium, launched

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    """Let Ctrl-C interrupt again: under nohup, or below a parent that ignores it, every child would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need ../shared or a browser where it is missing; in CI its absence is an error, never a skip.

    Those that need a GPU are skipped where there is none, each with a line of its own in the report.
    """
    _skip_what_needs_a_gpu([item for item in items if item.get_closest_marker("cuda")])
    if not SHARED.is_dir():
        _skip_what_is_marked("shared", items, missing=str(SHARED))
    if chromium() is None:
        _skip_what_is_marked("browser", items, missing=f"Chromium ({', '.join(NAMES)})")


def _skip_what_is_marked(marker: str, items: list[pytest.Item], *, missing: str) -> None:
    marked = [item for item in items if item.get_closest_marker(marker)]
    if marked and os.environ.get("CI"):
        raise pytest.UsageError(f"{missing} is missing: in CI the tests marked {marker!r} must run")
    for item in marked:
        item.add_marker(pytest.mark.skip(reason=f"needs {missing}: {item.name}"))


def _skip_what_needs_a_gpu(items: list[pytest.Item]) -> None:
    if not items:
        return
    import torch  # slow to import

    for item in items if not torch.cuda.is_available() else []:
        item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU: {item.name}"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, published weights and golden maps."""
    return SHARED


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """Chromium without a window, for tests marked `browser`.

    One for each file of tests: while Playwright runs, its event loop is that of the whole thread.
    """
    with launched() as running:
        yield running


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch computes in one thread, as the commands of `WarmCommand` do: other bits come of another number."""
    import torch  # slow to import

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
