"""The machine of a benchmark: the facts that a figure means nothing without."""

import platform
from pathlib import Path

import torch


def machine(device: str = "cpu") -> dict[str, str]:
    """Processor or GPU, threads, and the versions of what computes."""
    return {
        "processor": torch.cuda.get_device_name(device) if device != "cpu" else _processor(),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
