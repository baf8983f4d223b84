"""What every test may use: real clips, published weights and golden maps; and signals as a terminal has them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_configure() -> None:
    """Let Ctrl-C interrupt again: under nohup, or below a parent that ignores it, every child would inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need ../shared where it is missing; in CI its absence is an error, never a skip.

    Those that need a GPU are skipped where there is none, each with a line of its own in the report.
    """
    _skip_what_needs_a_gpu([item for item in items if item.get_closest_marker("cuda")])
    if SHARED.is_dir():
        return
    if os.environ.get("CI"):
        raise pytest.UsageError(f"{SHARED} is missing: in CI the tests marked 'shared' must run")
    for item in items:
        if item.get_closest_marker("shared"):
            item.add_marker(pytest.mark.skip(reason=f"needs {SHARED}"))


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
def one_thread() -> Iterator[None]:
    """torch computes in one thread, as the commands of `WarmCommand` do: other bits come of another number."""
    import torch  # slow to import

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
