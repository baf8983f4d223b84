"""Pictures of maps for people: a map as colour, rows of panels with captions.

The colour scale is perceptually ordered and starts at black, so that "nobody looks here" is dark; it is made from a
few anchor colours instead of a plotting library. Only Pillow is needed.
"""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from tinyhd_pipe.store.whole_file import write_whole

# Dark to bright: black, violet, magenta, orange, pale yellow (the order of matplotlib's "inferno").
_ANCHORS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)


def colour(saliency: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A map (y, x) of any scale as colour, uint8 (y, x, 3); its own maximum is brightest."""
    top = float(saliency.max())
    scaled = np.clip(saliency / top if top > 0 else saliency, 0, 1) * (len(_ANCHORS) - 1)
    positions = np.arange(len(_ANCHORS))
    channels = [np.interp(scaled, positions, _ANCHORS[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def colour_loop(maps: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Maps (frame, y, x) of any scale as colour, uint8 (frame, y, x, 3); the maximum of all frames is brightest."""
    frames, height, width = maps.shape
    return colour(maps.reshape(frames * height, width)).reshape(frames, height, width, 3)


Row = tuple[str, Mapping[str, NDArray[np.uint8]]]
"""(caption of the row, {title of the column: uint8 (y, x, 3)}); every row of a sheet has the same titles."""


def sheet(rows: Sequence[Row], path: Path, *, panel_width: int = 240) -> Path:
    """Write a PNG of rows of panels (beside, then renamed)."""
    return _write(path, lambda file: _page(rows, panel_width).save(file, format="PNG"))


def moving_sheet(instants: Sequence[Sequence[Row]], path: Path, *, milliseconds: int, panel_width: int = 240) -> Path:
    """Write an animated WebP that shows one sheet after the other, each for so long, and begins again."""
    first, *others = [_page(rows, panel_width) for rows in instants]
    moving = {"save_all": True, "append_images": others, "duration": milliseconds, "loop": 0}
    return _write(path, lambda file: first.save(file, format="WEBP", quality=75, method=4, **moving))


def _page(rows: Sequence[Row], panel_width: int) -> Image.Image:
    font, gap, line = ImageFont.load_default(size=13), 6, 18
    pictures = [(caption, [_fit(panel, panel_width) for panel in panels.values()]) for caption, panels in rows]
    titles = list(rows[0][1])
    width = gap + len(titles) * (panel_width + gap)
    height = line + gap + sum(max(p.height for p in panels) + line + gap for _, panels in pictures)
    page = Image.new("RGB", (width, height), (18, 18, 22))
    draw = ImageDraw.Draw(page)
    for column, title in enumerate(titles):
        draw.text((gap + column * (panel_width + gap), 3), title, font=font, fill=(235, 235, 235))
    top = line + gap
    for caption, panels in pictures:
        for column, panel in enumerate(panels):
            page.paste(panel, (gap + column * (panel_width + gap), top))
        top += max(panel.height for panel in panels)
        draw.text((gap, top + 1), caption, font=font, fill=(150, 150, 160))
        top += line + gap
    return page


def _write(path: Path, save: Callable[[BytesIO], None]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = BytesIO()
    save(packed)
    write_whole(path, packed.getvalue())
    return path


def _fit(panel: NDArray[np.uint8], width: int) -> Image.Image:
    picture = Image.fromarray(panel)
    return picture.resize((width, max(1, round(picture.height * width / picture.width))), Image.Resampling.BILINEAR)
