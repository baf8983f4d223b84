"""OpenVINO within a process that goes on after it."""

import subprocess
import sys
from pathlib import Path

from tests.lively_networks import lively
from tinyhd_pipe.stages.export import Wanted, export
from tinyhd_pipe.stages.networks.network import ready

LET_GO_IN_A_THREAD = """
import os, signal, sys, threading, time
from pathlib import Path
from tinyhd_pipe.stages.exports.openvino_files import OpenVinoNetwork

networks = [OpenVinoNetwork(Path(sys.argv[1]))]
thread = threading.Thread(target=networks.clear)
thread.start()
thread.join()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_interrupts_after_another_thread_has_let_a_network_go(tmp_path: Path) -> None:
    student = ready("tinyhd", lively(7, decoders=("d3",), reduction=4), size=(32, 64))
    made = export(student, tmp_path, "m", Wanted("openvino"))
    command = [sys.executable, "-c", LET_GO_IN_A_THREAD, str(made.files[0])]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
