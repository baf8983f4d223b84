"""What every test may use: real clips, published weights and golden maps; and signals as a terminal has them."""

import os
import signal
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    """Let Ctrl-C interrupt again: under nohup, or below a parent that ignores it, every child would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need ../shared where it is missing; in CI its absence is an error, never a skip."""
    if SHARED.is_dir():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(f"{SHARED} is missing: in CI the tests marked 'shared' must run")
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=f"needs {SHARED}"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real clips, published weights and golden maps."""
    return SHARED
