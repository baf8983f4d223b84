"""The C library's allocator, set for networks: freed memory is kept for the next step.

glibc hands buffers of many megabytes back to the kernel as soon as they are freed, and the next step pays for every
page again. Threads have arenas of their own, which hold no buffer over 64 MB whatever the settings, so all share one
here. Kept, a training step took 1.12 to 1.27 times less processor time (HD2S at a quarter width; TinyHD S rc4
at 64x96, rc2 at 192x256), for 0 to 5 % more memory at its peak; a dump of the published 16-output TinyHD at 192x256
took 1.4 times less time, most of which the kernel had used. It is a setting of the whole process, so the command line
makes it and no library function does.
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
_NEVER = 2**31 - 1
_LARGEST = 2**30


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed; False where the process has another C library, and nothing is changed."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {_MMAP_THRESHOLD: _LARGEST, _TRIM_THRESHOLD: _NEVER, _ARENA_MAX: 1}
    return all(mallopt(setting, value) for setting, value in settings.items())
