"""Which precision a network computes in where nobody names one: by a written rule, never by a stopwatch.

Maps in two precisions must not share a store, so what decides has to be the same every time. Timings are not: a window
of one published TinyHD file takes about three quarters of its float32 time in bfloat16, and six loads in a row chose
now this, now that. The rule asks for facts of network and device only, and its answer says which ones. `bench predict`
times both, and says where a machine would have it otherwise.

The rule, and what it rests on: bfloat16 for HD2S at its published width on a device with units for it, 1.7 to 4 times
as fast at 192x256; float32 for everything else. Narrow networks wait for memory rather than for arithmetic, TinyHD's
depthwise layers do so at any width, and a processor without the units was 70 times as slow in it.

float32 means float32 on a GPU, too: cuDNN would by itself round what it multiplies to TensorFloat-32's ten bits, with
which maps of the published M network are off by 9e-4 instead of 9e-7. bfloat16 is there for those who want speed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["float32", "bfloat16", "auto"]
PROCESSOR_UNITS = ("amx_bf16", "avx512_bf16")
"""Flags of an x86 processor with arithmetic for bfloat16."""
CUDA_UNITS = 8
"""Compute capability, whole part, from which a CUDA device has it."""


@dataclass(frozen=True)
class Choice:
    """A precision, and in one line why it is this one."""

    precision: Precision
    """float32 or bfloat16."""
    reason: str


def by_rule(hd2s_width: float | None, units: tuple[str, ...]) -> Choice:
    """The precision of a network.

    Arguments:
        hd2s_width: of an HD2S network as a share of the published channels; None for TinyHD.
        units: what the device has for bfloat16, as from `units_of`.
    """
    if not units:
        return Choice("float32", "by rule: the device has no units for bfloat16")
    there = f"the device has {' and '.join(units)}"
    if hd2s_width is None:
        return Choice("float32", f"by rule: {there}, which TinyHD gains too little from")
    if hd2s_width < 1:
        return Choice("float32", f"by rule: {there}, which HD2S of width {hd2s_width:g} gains too little from")
    return Choice("bfloat16", f"by rule: {there}, and this is HD2S at its published width")


def units_of(device: torch.device) -> tuple[str, ...]:
    """What a device has for bfloat16, as its maker calls it; empty where it has nothing, or nothing that we know."""
    if device.type == "cpu":
        return tuple(sorted(processor_flags().intersection(PROCESSOR_UNITS)))
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        return (f"compute capability {capability[0]}.{capability[1]}",) if capability[0] >= CUDA_UNITS else ()
    return ()


def keep_float32(device: str | torch.device) -> None:
    """Let cuDNN compute in float32 what is asked for in float32, in this process from now on.

    For the whole process, not for a while: a network may answer in one thread while another is trained in the next.
    """
    if torch.device(device).type == "cuda":
        torch.backends.cudnn.allow_tf32 = False


def processor_flags() -> frozenset[str]:
    """What the kernel says that this processor can do; nothing where there is no such list."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(
        next((line.split(":", 1)[1].split() for line in lines if line.startswith(("flags", "Features"))), ())
    )
