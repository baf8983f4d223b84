"""Files that tell an encoder where people look, in the two forms that encoders read from a file.

    DIR/001.AVI.roi.ffmpeg.txt     a filter graph of FFmpeg that marks regions of interest, which its libx264, libx265,
                                   libvpx and the encoders of GPUs heed: -/filter_complex FILE -map "[roi]"
    DIR/001.AVI.roi.kvazaar.txt    Kvazaar's --roi: "columns rows" and as many offsets, in QP, for each frame

The decision that is not obvious: there is no QP file. Those of x264 and x265 hold a QP for each frame, and none for a
block; blocks can be told of through their programming interface only, and FFmpeg's regions are the way to it that needs
no program. FFmpeg's filter marks the same region in all frames, so the graph cuts the film into pieces of half a second
(and at cuts), marks each, and joins them again. It takes a second to be read for a film of five minutes and grows with
the square of its length; Kvazaar's file has a line a frame.

Cost: decoding once more, and 1 to 5 ms a frame (applications/quantisers.py).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tinyhd_pipe.stages.applications.quantisers import (
    BLOCK,
    Blocks,
    Quantising,
    attention,
    expense,
    grid,
    offsets,
    regions,
)
from tinyhd_pipe.stages.predictions.map_files import Add, Map
from tinyhd_pipe.stages.predictions.map_films import pictures_again
from tinyhd_pipe.stages.predictions.reframed_films import rows_file
from tinyhd_pipe.stages.video.decoding import Picture
from tinyhd_pipe.stages.video.shots import LATE, starts_shot
from tinyhd_pipe.stages.video.viewing import Viewing

_QP_RANGE = 51
"""What FFmpeg's offsets of -1 to 1 are multiplied by for H.264 and HEVC of 8 bits."""
_STEP = 2
"""QP between two offsets in FFmpeg's graph: half the regions of 1, and as good."""


@contextmanager
def roi_file(viewing: Viewing, path: Path, how: Quantising, fps: float) -> Iterator[Add]:
    """Writes the offsets of every frame; takes a map of every frame. Raises VideoError for what is no video."""
    facts = viewing.facts
    pieces = _Pieces(viewing, grid(facts.height, facts.width), how, max(1, round(how.seconds * (facts.fps or fps))))
    with rows_file(path) as file, closing(pictures_again(viewing)) as frames:
        written: list[int] = []

        def write(done: Iterator[tuple[int, Blocks]]) -> None:
            for count, blocks in done:
                if how.format == "kvazaar":
                    file.write(_kvazaar(blocks) * count)
                else:
                    file.write(_marked(blocks, len(written), (facts.height, facts.width)))
                written.append(count)

        def add(frame: int, saliency: Map) -> None:
            picture, _ = next(frames)
            write(pieces.add(saliency, picture))

        yield add
        write(pieces.end())
        if how.format == "ffmpeg":
            file.write(_joined(written))


@dataclass
class _Pieces:
    """Frames that have one set of offsets, as maps come."""

    viewing: Viewing
    shape: tuple[int, int]
    how: Quantising
    longest: int
    """Frames of a piece."""
    _unseen: deque[tuple[Blocks, Blocks]] = field(default_factory=deque)
    """Of frames of which it is not known yet whether they begin a shot."""
    _piece: list[tuple[Blocks, Blocks]] = field(default_factory=list)
    _place: int = 0
    _before: Picture | None = None

    def add(self, saliency: Map, picture: Picture) -> Iterator[tuple[int, Blocks]]:
        """(frames, offsets) of the pieces that are whole now."""
        self._unseen.append((attention(saliency, self.shape), expense(self._before, picture)))
        self._before = picture
        if len(self._unseen) > LATE:
            yield from self._seen()

    def end(self) -> Iterator[tuple[int, Blocks]]:
        while self._unseen:
            yield from self._seen()
        if self._piece:
            yield self._whole()

    def _seen(self) -> Iterator[tuple[int, Blocks]]:
        is_whole = len(self._piece) == self.longest or starts_shot(self.viewing.changes, self._place)
        if self._piece and is_whole:
            yield self._whole()
        self._piece.append(self._unseen.popleft())
        self._place += 1

    def _whole(self) -> tuple[int, Blocks]:
        looked_at, spent = (np.mean(blocks, axis=0) for blocks in zip(*self._piece, strict=True))
        count = len(self._piece)
        self._piece.clear()
        return count, offsets(looked_at, spent, self.how)


def _kvazaar(blocks: Blocks) -> str:
    rows, columns = blocks.shape
    return f"{columns} {rows}\n{' '.join(map(str, np.rint(blocks).astype(int).ravel().tolist()))}\n"


def _marked(blocks: Blocks, piece: int, size: tuple[int, int]) -> str:
    """The chain of filters that marks one piece of the film."""
    chain = [f"[s{piece}]setpts=PTS-STARTPTS"]
    for region in regions(np.rint(blocks / _STEP).astype(np.int64)):
        top, left = region.top * BLOCK, region.left * BLOCK
        height, width = min(region.bottom * BLOCK, size[0]) - top, min(region.right * BLOCK, size[1]) - left
        offset = region.offset * _STEP / _QP_RANGE
        chain.append(f"addroi=x={left}:y={top}:w={width}:h={height}:qoffset={offset:.4f}")
    return f"{','.join(chain)}[r{piece}];\n"


def _joined(counts: Sequence[int]) -> str:
    """The filters that cut the film into pieces of so many frames and join them again."""
    if len(counts) == 1:
        return "[0:v]null[s0];\n[r0]null[roi]\n"
    starts = "|".join(map(str, np.cumsum(counts)[:-1].tolist()))
    cut, marked = ("".join(f"[{name}{piece}]" for piece in range(len(counts))) for name in "sr")
    return f"[0:v]segment=frames={starts}{cut};\n{marked}concat=n={len(counts)}[roi]\n"
