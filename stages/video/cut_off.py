"""Whether a video ends before its end: what the container promises of the picture, held against what came.

The decision that is not obvious: most containers promise nothing of the picture. MP4 and AVI say how long each stream
is; Matroska often says it in a tag; all others (FLV, WMV, Matroska without tags) know one duration, that of
the longest stream, which is often sound or subtitles. There a short picture is cut off only if every other stream
ends early, too, because a file that is cut loses the ends of all streams together.

Not noticed: a cut MPEG-TS, MPEG-PS or WMV, of which FFmpeg knows no duration then; a file that is cut while a
subtitle is shown that lasts to its end. Cost: nothing for a video that reaches the promised end; else one read of the
file, without decoding.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer

BELOW = 0.9
"""Share of the promised time below which a video counts as cut off: rounding makes up the rest."""


@dataclass(frozen=True)
class Span:
    """When something is shown, in seconds."""

    start: float
    length: float

    @property
    def end(self) -> float:
        return self.start + self.length

    def reached_by(self, end: float) -> bool:
        """Whether what ends at `end` is all of it, to within rounding."""
        return end >= self.start + BELOW * self.length


def cut_off(end: float, path: Path, container: InputContainer, stream: av.VideoStream) -> str | None:
    """What to say of a video whose last decoded frame ends at `end` seconds; None where nothing is missing."""
    whole = Span((container.start_time or 0) / av.time_base, (container.duration or 0) / av.time_base)
    promised = _promised_of(stream, container, whole)
    if (promised or whole).reached_by(end):
        return None
    if promised is None and whole.reached_by(_end_of_others(path, stream.index)):
        return None
    return f"ends at {end:.2f} of {(promised or whole).end:.2f} seconds that the header promises"


def _promised_of(stream: av.VideoStream, container: InputContainer, whole: Span) -> Span | None:
    """What the header says of this stream alone; None where it says nothing.

    What FFmpeg gives as a stream's duration is that in MP4 and AVI alone; elsewhere it is the container's, or a guess
    from the end of the file. Of an AVI that is cut it is a guess, too, but the frames are the header's.
    """
    formats = container.format.name.split(",")
    length = stream.duration or 0
    if "avi" in formats:
        length = max(length, stream.frames)  # its time base is one frame
    if ("avi" in formats or "mov" in formats) and length and stream.time_base:
        return Span(float((stream.start_time or 0) * stream.time_base), float(length * stream.time_base))
    tagged = _tagged(stream.metadata.get("DURATION", ""))
    # A tag that is left over from a longer film says more than the header, which is then right.
    return Span(0.0, tagged) if 0 < tagged <= whole.end else None


def _tagged(text: str) -> float:
    """Seconds of Matroska's DURATION tag, HH:MM:SS.nnnnnnnnn; 0 where there is none that can be read."""
    with suppress(ValueError, OverflowError):
        hours, minutes, seconds = text.split(":")
        return timedelta(hours=int(hours), minutes=int(minutes), seconds=float(seconds)).total_seconds()
    return 0.0


def _end_of_others(path: Path, video: int) -> float:
    """When the last packet of all streams but the video ends, in seconds; 0 where there are no others."""
    end = Fraction(0)
    with suppress(av.FFmpegError), av.open(str(path.absolute()), metadata_errors="replace") as container:
        others = [stream for stream in container.streams if stream.index != video]
        if not others:
            return 0.0
        for packet in container.demux(others):
            if packet.pts is not None and packet.time_base:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
    return float(end)
