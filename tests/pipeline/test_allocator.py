"""The allocator's setting: big buffers that come and go are not paid for page by page."""

import subprocess
import sys

import pytest

PROBE = """
import resource, sys, threading
from tinyhd_pipe.pipeline.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def probe():
    bytearray(100 << 20)
    before = faults()
    for _ in range(5):
        bytearray(100 << 20)
    print(faults() - before)
if sys.argv[2] == "thread":
    thread = threading.Thread(target=probe)
    thread.start()
    thread.join()
else:
    probe()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
@pytest.mark.parametrize("where", ["main", "thread"])
def test_freed_memory_is_used_again_without_page_faults(where: str) -> None:
    def probe(how: str) -> int:
        command = [sys.executable, "-c", PROBE, how, where]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    faults = {how: probe(how) for how in ("kept", "as it is")}
    assert faults["kept"] < faults["as it is"] / 10, faults
