"""Where networks run: the device that was asked for, or the best one that is there.

The decision that is not obvious: Apple's MPS is taken by itself only where it has just answered as the CPU does, for
both kinds of network, since not every operation of theirs exists in every version of it. Cost: a second on a Mac,
nothing elsewhere.
"""

import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from tinyhd_pipe.stages.networks.hd2s import HD2S
from tinyhd_pipe.stages.networks.tinyhd import TinyHD
from tinyhd_pipe.store.errors import SettingError

DIFFERENCE = 1e-3
"""Largest difference of maps in [0, 1] at which a device counts as right."""


@dataclass(frozen=True)
class Chosen:
    """A device, and why it was taken."""

    device: str
    """As torch spells it: cpu, cuda, cuda:1, mps."""
    why: str


def choose_device(wanted: str) -> Chosen:
    """The device that is meant by `auto`, cpu, cuda, cuda:1 or mps.

    Raises SettingError for another name, or a device that is not there.
    """
    if wanted != "auto":
        return Chosen(_there(wanted), "as asked for")
    if torch.cuda.is_available():
        return Chosen("cuda", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
    if not torch.backends.mps.is_available():
        return Chosen("cpu", f"{torch.get_num_threads()} threads; no CUDA device is there")
    if (reason := why_not("mps")) is None:
        return Chosen("mps", "its maps were held against the CPU's")
    return Chosen("cpu", f"MPS is there, but {reason}; --device mps takes it all the same")


def device_of(device: str, worker: object, count: int) -> str:
    """The device of one of our processes: they share out all CUDA devices, unless the user named one of them.

    cuda, worker 5, 4 devices   ->  cuda:1
    cuda:2, cpu                 ->  as they are
    """
    return f"cuda:{int(str(worker)) % count}" if device == "cuda" and count else device


def make_current(device: str) -> None:
    """Make a CUDA device that of this thread, which pinned memory and NCCL go by; other devices need nothing."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(torch.device(device).index or 0)


def name_of(device: str = "cpu") -> str:
    """What a device is called by its maker: the GPU, else the processor."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        told = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        told = []
    named = (line.split(":", 1)[1].strip() for line in told if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _there(wanted: str) -> str:
    known = "use auto, cpu, cuda, cuda:N or mps"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise SettingError(f"device {wanted!r} is not known; {known}") from error
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise SettingError(f"device {wanted!r} is not there: torch sees {count} CUDA devices; {known}")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingError(f"device {wanted!r} is not there: it needs a Mac with Apple's processor; {known}")
    if device.type not in ("cpu", "cuda", "mps"):
        raise SettingError(f"device {wanted!r} was never tried with these networks; {known}")
    return wanted


def why_not(device: str) -> str | None:
    """Why a device cannot be relied on, or None where both kinds of network answer on it as they do on the CPU."""
    clip = torch.rand(1, 3, 16, 32, 64, generator=torch.Generator().manual_seed(0))
    networks = (HD2S(width=0.0625), TinyHD(decoders=("d1", "d2", "d3"), reduction=4, outputs=16))
    for module in networks:
        try:
            with torch.inference_mode():
                right = module.eval()(clip)
                there = module.to(device)(clip.to(device))
        except (NotImplementedError, RuntimeError) as error:
            return f"an operation of {type(module).__name__} is missing on it ({str(error).splitlines()[0]})"
        worst = max(float((right[level].sigmoid() - maps.cpu().sigmoid()).abs().max()) for level, maps in there.items())
        if not worst <= DIFFERENCE:
            return f"its maps of {type(module).__name__} differ from the CPU's by {worst:.1e}"
    return None
