"""Numbers in the words that people use: seconds, bytes and figures, in tables of the terminal and on pages alike."""

import math
import re


def duration(seconds: float) -> str:
    """Seconds in the words that one would use: 40 s, 3 min, 5 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """Bytes with a decimal prefix: 812 bytes, 3.96 kB, 26.4 GB."""
    if count < 1000:
        return f"{count:.0f} bytes"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.5:
            return f"{count:.3g} {unit}"
    return f"{count / 1000:.3g} TB"


def figure(value: float, digits: int = 3) -> str:
    """A metric as papers print it: .859, 4.263, −.02; – where it does not exist."""
    if not math.isfinite(value):
        return "–"
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.{digits}f}").replace("-", "−")


def counted(count: int, one: str, many: str = "") -> str:
    """1 video, 22 videos, 2,880 maps."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
