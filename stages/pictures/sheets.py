"""Pictures of maps for people: a map as colour, rows of panels with captions.

The colour scale is perceptually ordered and starts at black, so that "nobody looks here" is dark; it is made from a
few anchor colours instead of a plotting library. Only Pillow is needed.
"""

from collections.abc import Mapping, Sequence
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


def sheet(rows: Sequence[tuple[str, Mapping[str, NDArray[np.uint8]]]], path: Path, *, panel_width: int = 240) -> Path:
    """Write a PNG of rows of panels.

    Arguments:
        rows: (caption of the row, {title of the column: uint8 (y, x, 3)}); every row has the same titles.
        path: where the PNG is written (beside, then renamed).
    """
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
    path.parent.mkdir(parents=True, exist_ok=True)
    png = BytesIO()
    page.save(png, format="PNG")
    write_whole(path, png.getvalue())
    return path


def _fit(panel: NDArray[np.uint8], width: int) -> Image.Image:
    picture = Image.fromarray(panel)
    return picture.resize((width, max(1, round(picture.height * width / picture.width))), Image.Resampling.BILINEAR)
