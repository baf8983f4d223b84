"""The machine: the facts that a figure, or a report of a fault, means nothing without."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import av
import torch

from tinyhd_pipe.stages.networks.device import name_of
from tinyhd_pipe.stages.networks.precision import processor_flags

PACKAGES = ("torch", "zarr", "numcodecs", "dask", "distributed", "av", "numpy", "typer", "rich", "pydantic", "dvc")
UNITS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Units of a processor that change what networks cost on it, as Linux names them."""


def machine(device: str = "cpu") -> dict[str, str]:
    """Processor or GPU, threads, and the versions of what computes."""
    return {
        "processor": name_of(device),
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def environment() -> dict[str, str]:
    """All that a report of a fault should say, a name and a value each; `-` stands for what is not there."""
    flags = processor_flags()
    cuda = [torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count())]
    return {
        "tinyhd-pipe": _version("tinyhd-pipe"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": name_of(),
        "units": " ".join(unit for unit in UNITS if unit in flags) or "-",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads of torch": str(torch.get_num_threads()),
        "CUDA": f"{torch.version.cuda or 'not in this build'}; devices: {', '.join(cuda) or '-'}",
        "MPS": "there" if torch.backends.mps.is_available() else "-",
        **{package: _version(package) for package in PACKAGES},
        "FFmpeg": ", ".join(f"{name} {'.'.join(map(str, found))}" for name, found in av.library_versions.items()),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"
