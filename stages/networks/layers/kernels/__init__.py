"""Kernels in C that make training and predicting fast on a CPU, compiled when they are first needed.

torch's batch norm and its depthwise gradient took most of a TinyHD training step, and nothing that is put together from
torch's operators passes over a clip as seldom as a loop that does all at once. The decision that is not obvious: the
small files beside this one are handed to the machine's own C compiler, which takes some seconds, once, and knows the
processor; an extension that is built torch's way needs C++, torch's headers and a minute. Where there is no compiler
the layers go torch's way: the same values within rounding, in twice the time.

The library is kept in the user's cache folder under a digest of sources, compiler and processor, so machines that share
a home do not run each other's. TINYHD_PIPE_KERNELS=off goes without it, CC names another compiler.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from tinyhd_pipe.stages.networks.precision import processor_flags

FLAGS = ("-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp")
"""No sum may be reordered, and NaN stays NaN. torch's threads are OpenMP's, too, so both take the same ones."""
WIDE = "-mprefer-vector-width=512"
"""Compilers take half of an AVX-512 vector unless told so."""
FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Kernels:
    """The library, or why there is none."""

    library: ctypes.CDLL | None
    told: str
    """In one line, for people."""


@torch.compiler.assume_constant_result  # type: ignore[no-untyped-call,untyped-decorator,unused-ignore]
def kernels() -> Kernels:
    """The kernels of this process, compiled where that was not done yet; never raises."""
    return _kernels()


@functools.cache  # within, since torch.compile looks through a cache, and what it would see there it cannot trace
def _kernels() -> Kernels:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if os.environ.get("TINYHD_PIPE_KERNELS") == "off":
        return Kernels(None, "TINYHD_PIPE_KERNELS is off")
    if compiler is None:
        return Kernels(None, f"there is no C compiler ({os.environ.get('CC', 'cc')}) to compile our kernels")
    try:
        path = _kept_at(compiler)
        if not path.exists():
            _compile(compiler, path)
        return Kernels(ctypes.CDLL(str(path)), f"kernels compiled by {compiler}")
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines() or [f"it ended with {error.returncode}"]
        return Kernels(None, f"{compiler} does not compile our kernels: {said[0]}")
    except OSError as error:
        return Kernels(None, f"our kernels cannot be compiled: {error}")


_is_off = False


@contextmanager
def layers_of_torch() -> Iterator[None]:
    """Within, layers train in torch's own ways and with its gradients, as in the published code; for comparisons."""
    global _is_off
    _is_off = True
    try:
        yield
    finally:
        _is_off = False


def are_off() -> bool:
    """Whether this is within `layers_of_torch`."""
    return _is_off


def _kept_at(compiler: str) -> Path:
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, text=True).stdout
    machine = (version, _flags(), platform.machine(), sorted(processor_flags()))
    digest = hashlib.sha256(repr(machine).encode())
    for source in sorted(FOLDER.glob("*.[ch]")):
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tinyhd-pipe" / f"kernels-{digest.hexdigest()[:16]}.so"


def _compile(compiler: str, path: Path) -> None:
    """Compile beside and rename, since several processes may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        beside = Path(folder, path.name)
        sources = [str(source) for source in sorted(FOLDER.glob("*.c"))]
        command = [compiler, *_flags(), "-shared", "-fPIC", "-o", str(beside), *sources, "-lm"]
        subprocess.run(command, capture_output=True, check=True, text=True)
        beside.replace(path)


def _flags() -> tuple[str, ...]:
    return (*FLAGS, WIDE) if "avx512f" in processor_flags() else FLAGS
