"""Made-up labelled and unlabelled clips, in the DHF1K layout: data to try the whole pipeline on, in seconds.

A clip shows several textured objects on a textured ground. One of them at a time moves or blinks, another one
later, and gaze goes there some frames after it starts.

The decision that is not obvious: what draws gaze must be visible over TIME only. All objects are made alike,
lie between pixels alike and stop where they stop, so that a single frame does not tell which one is the
mover; and they lie anywhere, so that the centre or the mean map says little. A network that scores well here
has learned motion. Tests hold that to numbers: a map of all objects in the frame stays far below one of the
mover.

Cost: 40 clips of 60 frames of 64x96 take some 8 s on one core and 17 MB on disk. Every clip is a function of
(seed, split, index): the held-out clips stay when more are made to train on.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from tinyhd_pipe.stages.settings.sample_data import SampleOptions
from tinyhd_pipe.stages.video.writing import write_video
from tinyhd_pipe.store.errors import DataError, SettingError

Floats = NDArray[np.float64]

SPLITS = ("train", "heldout", "unlabelled")
OBJECTS = 4
OBSERVERS = 12
DELAYS = (3, 6)
"""Frames from what happens to where an observer looks, shortest and longest."""
FACTS_FILE = "sample_data.json"

FPS = 30
# Lengths in pixels are for a frame of this height and grow with it.
REFERENCE_HEIGHT = 64
SMALLEST_SIDE = 32
FEWEST_FRAMES = 32


@dataclass(frozen=True)
class SampleData:
    """What was made, and where."""

    train: Path
    """Labelled clips in the DHF1K layout: `video/` and `annotation/`."""
    heldout: Path
    """The same, of other clips."""
    unlabelled: Path
    """Video files alone."""
    clips: tuple[int, int, int]
    """How many clips each of the three holds; they are numbered through, so no two share an id."""
    frames: int
    """Frames of every clip."""
    size: tuple[int, int]
    """Height and width of every frame, in pixels."""


@dataclass(frozen=True, eq=False)
class SampleClip:
    """One clip with the truth about it."""

    pictures: NDArray[np.uint8]
    """(frame, y, x, 3), RGB."""
    centres: Floats
    """(frame, object, 2): where each object is, (y, x) in pixels."""
    visible: NDArray[np.bool_]
    """(frame, object): False while an object blinks."""
    mover: NDArray[np.int64]
    """(frame,): the object that moves or blinks."""
    fixations: NDArray[np.int64]
    """(frame, observer, 2): the pixel (y, x) that each observer looks at."""


def make_sample_data(
    out: Path, options: SampleOptions = SampleOptions(), *, progress: Callable[[int, int], None] | None = None
) -> SampleData:
    """Write labelled and unlabelled clips below `out`; same options, same bytes.

    `progress` hears (clips done, clips in all). A second run with equal options writes the same files again.

    Raises SettingError for a setting out of range, and DataError when `out` holds something else, or sample
    data of other settings.
    """
    frames, size, seed = options.frames, options.size, options.seed
    counts = (options.train, options.heldout, options.unlabelled)
    _check_settings(counts, frames, size, seed)
    made = SampleData(out / "train", out / "heldout", out / "unlabelled", counts, frames, size)
    _claim(out, {"clips": counts, "frames": frames, "size": size, "seed": seed})
    clips = [(split, index) for split, count in zip(SPLITS, counts, strict=True) for index in range(count)]
    for number, (split, index) in enumerate(clips, start=1):
        clip = sample_clip(seed, split, index, frames=frames, size=size)
        if split == "unlabelled":
            _write_video(out / split, number, clip)
        else:
            _write_video(out / split / "video", number, clip)
            _write_annotation(out / split / "annotation" / f"{number:04d}", clip)
        if progress is not None:
            progress(number, len(clips))
    return made


def sample_clip(seed: int, split: str, index: int, *, frames: int, size: tuple[int, int]) -> SampleClip:
    """Make one clip in memory: clip `index`, counted from 0, of `split`, one of `SPLITS`."""
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    scale = size[0] / REFERENCE_HEIGHT
    radii = rng.uniform(6.5, 8.5, OBJECTS) * scale
    mover, starts = _draw_movers(rng, frames)
    centres, visible = _move(rng, mover, starts, radii, size)
    pictures = _render(rng, centres, visible, radii, size)
    fixations = _look(rng, centres, mover, size)
    return SampleClip(pictures, centres, visible, mover, fixations)


def density_maps(fixations: NDArray[np.int64], size: tuple[int, int]) -> Floats:
    """Density maps of (frame, observer, 2) fixations: (frame, y, x) in [0, 1], the maximum of each frame 1.

    Fixations are pooled over 5 frames, the frame's own in the middle, and blurred by a Gaussian, as is done
    with the records of eye trackers, where a frame has few fixations.
    """
    counts = np.zeros((len(fixations), *size))
    frame = np.arange(len(fixations))[:, None]
    np.add.at(counts, (frame, fixations[..., 0], fixations[..., 1]), 1.0)
    padded = np.pad(counts, ((2, 2), (0, 0), (0, 0)))
    pooled = sum(padded[shift : shift + len(counts)] for shift in range(5))
    sigma = 4.0 * size[0] / REFERENCE_HEIGHT
    blurred = gaussian_filter(pooled, (0.0, sigma, sigma), mode="constant", truncate=3.0)
    return np.asarray(blurred / blurred.max(axis=(1, 2), keepdims=True))


def _draw_movers(rng: np.random.Generator, frames: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Who moves at each frame, (frame,), and at which frames the mover changes, frame 0 among them."""
    turns = max(2, round(frames / rng.uniform(20.0, 30.0)))
    even = np.arange(1, turns) * frames / turns
    changes = np.rint(even + rng.uniform(-0.2, 0.2, turns - 1) * frames / turns).astype(np.int64)
    starts = np.concatenate([[0], changes])
    steps = rng.integers(1, OBJECTS, turns)  # never 0: the next one to move is another one
    movers = (rng.integers(OBJECTS) + np.cumsum(steps)) % OBJECTS
    return np.repeat(movers, np.diff([*starts, frames])), starts


def _move(
    rng: np.random.Generator,
    mover: NDArray[np.int64],
    starts: NDArray[np.int64],
    radii: Floats,
    size: tuple[int, int],
) -> tuple[Floats, NDArray[np.bool_]]:
    """Where every object is and whether it is seen: (frame, object, 2) and (frame, object)."""
    frames = len(mover)
    place = _scatter(rng, radii, size)
    centres, visible = np.empty((frames, OBJECTS, 2)), np.ones((frames, OBJECTS), dtype=bool)
    for start, stop in zip(starts, [*starts[1:], frames], strict=True):
        centres[start:stop] = place
        turn = mover[start]
        if rng.random() < 0.25:
            visible[start:stop, turn] = _blink(rng, stop - start)
        else:
            path = _walk(rng, place[turn], radii[turn], stop - start, size)
            centres[start:stop, turn], place[turn] = path, path[-1]
    return centres, visible


def _scatter(rng: np.random.Generator, radii: Floats, size: tuple[int, int]) -> Floats:
    """Places (object, 2) for the objects, anywhere in the frame and apart where that is soon found."""
    best, widest = np.empty((OBJECTS, 2)), -np.inf
    for _ in range(50):
        places = rng.uniform(radii[:, None], np.array(size) - radii[:, None])
        gaps = np.linalg.norm(places[:, None] - places[None], axis=-1) - radii[:, None] - radii[None]
        gap = gaps[np.triu_indices(OBJECTS, 1)].min()
        if gap > widest:
            best, widest = places, gap
        if gap > 1.0:
            break
    return best


def _blink(rng: np.random.Generator, frames: int) -> NDArray[np.bool_]:
    """(frame,): gone, there, gone … for 4 to 6 frames each."""
    return np.asarray((np.arange(frames) // rng.integers(4, 7)) % 2 == 1)


def _walk(rng: np.random.Generator, place: Floats, radius: float, frames: int, size: tuple[int, int]) -> Floats:
    """A path (frame, 2) from `place` on, at an even speed, in a slow curve, off the borders of the frame."""
    speed = rng.uniform(0.7, 1.3) * size[0] / REFERENCE_HEIGHT
    heading, curve = rng.uniform(0.0, 2 * np.pi), rng.uniform(-0.06, 0.06)
    path = np.empty((frames, 2))
    low, high = np.full(2, radius), np.array(size) - radius
    for frame in range(frames):
        step = speed * np.array([np.sin(heading), np.cos(heading)])
        if not low[0] <= place[0] + step[0] <= high[0]:
            heading = -heading
        if not low[1] <= place[1] + step[1] <= high[1]:
            heading = np.pi - heading
        place = np.clip(place + speed * np.array([np.sin(heading), np.cos(heading)]), low, high)
        path[frame] = place
        heading += curve
    return path


def _render(
    rng: np.random.Generator,
    centres: Floats,
    visible: NDArray[np.bool_],
    radii: Floats,
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """Draw the objects over the ground: (frame, y, x, 3)."""
    scale = size[0] / REFERENCE_HEIGHT
    ground = _texture(rng, size, scales=np.array([1.2, 3.0, 8.0, 20.0]) * scale, contrast=0.15)
    sprites = [_sprite(rng, radius, scale) for radius in radii]
    margin = max(len(sprite) for sprite in sprites)  # so that nothing needs cutting at the borders
    around = ((margin, margin), (margin, margin), (0, 0))
    pictures = np.repeat(np.pad(ground, around)[None], len(centres), axis=0)
    for frame, index in np.argwhere(visible):
        _paste(pictures[frame], sprites[index], centres[frame, index] + margin)
    inside = pictures[:, margin:-margin, margin:-margin]
    return np.rint(inside * 255).astype(np.uint8)


def _texture(rng: np.random.Generator, size: tuple[int, int], scales: Floats, contrast: float) -> Floats:
    """Random coloured texture (y, x, 3) in [0, 1]: smooth noise of several scales about a random colour."""
    layers = np.zeros((*size, 3))
    for sigma in scales:
        noise = gaussian_filter(rng.standard_normal((*size, 3)), (sigma, sigma, 0.0), mode="wrap")
        noise = noise - noise.mean(axis=(0, 1))
        layers += noise / (noise.std() * np.sqrt(len(scales)))
    # Most of the contrast is in brightness, as in natural pictures: video codecs keep little of the rest.
    brightness = np.sqrt(3) * layers.mean(axis=-1, keepdims=True)
    texture = rng.uniform(0.35, 0.65, 3) + contrast * (0.6 * brightness + 0.4 * layers)
    return np.asarray(texture.clip(0.0, 1.0))


def _sprite(rng: np.random.Generator, radius: float, scale: float) -> Floats:
    """An object as (y, x, 4), colour and opacity: a textured blob with two to five bulges."""
    side = 2 * int(np.ceil(1.25 * radius + 2)) + 1
    y, x = np.mgrid[:side, :side] - side // 2
    bulges, angle = rng.integers(2, 6), rng.uniform(0.0, 2 * np.pi)
    outline = radius * (1 + 0.15 * np.cos(bulges * np.arctan2(y, x) + angle))
    opacity = np.clip(outline - np.hypot(y, x) + 0.5, 0.0, 1.0)
    texture = _texture(rng, (side, side), scales=np.array([1.2, 3.0]) * scale, contrast=0.25)
    return np.concatenate([texture, opacity[..., None]], axis=-1)


def _paste(picture: Floats, sprite: Floats, centre: Floats) -> None:
    """Draw a sprite into a picture (y, x, 3), its middle at `centre`, which may lie between pixels."""
    corner = centre - len(sprite) // 2
    top, left = (int(at) for at in np.floor(corner))
    down, right = corner - (top, left)
    drawn = (1 - down) * sprite[1:] + down * sprite[:-1]  # row 0 of what is drawn lies at top + 1
    drawn = (1 - right) * drawn[:, 1:] + right * drawn[:, :-1]
    patch = picture[top + 1 : top + len(sprite), left + 1 : left + len(sprite)]
    patch += drawn[..., 3:] * (drawn[..., :3] - patch)  # a view: this draws into the picture


def _look(
    rng: np.random.Generator, centres: Floats, mover: NDArray[np.int64], size: tuple[int, int]
) -> NDArray[np.int64]:
    """Where each observer looks at each frame: (frame, observer, 2).

    Each follows the mover with a delay of their own and an error that drifts; now and then one of them rests
    near the middle for ten frames, which makes the centre bias.
    """
    frames, scale = len(mover), size[0] / REFERENCE_HEIGHT
    delays = rng.integers(DELAYS[0], DELAYS[1] + 1, OBSERVERS)
    seen = np.maximum(np.arange(frames)[:, None] - delays, 0)  # (frame, observer)
    error = _drift(rng, frames) * 2.5 * scale
    followed = centres[seen, mover[seen]] + error
    rests = np.arange(frames) // 10
    resting = (rng.random((frames, OBSERVERS)) < 0.22)[rests]
    middle = ((rng.standard_normal((frames, OBSERVERS, 2)) * 0.1 + 0.5) * size)[rests] + error / 2
    gaze = np.where(resting[..., None], middle, followed)
    return np.clip(np.rint(gaze), 0, np.array(size) - 1).astype(np.int64)


def _drift(rng: np.random.Generator, frames: int) -> Floats:
    """Smooth noise of unit variance, (frame, observer, 2): gaze drifts, it does not jump at every frame."""
    noise = rng.standard_normal((frames, OBSERVERS, 2))
    for frame in range(1, frames):
        noise[frame] = 0.85 * noise[frame - 1] + np.sqrt(1 - 0.85**2) * noise[frame]
    return noise


def _write_video(folder: Path, number: int, clip: SampleClip) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_video(folder / f"{number:03d}.mp4", clip.pictures, fps=FPS)


def _write_annotation(folder: Path, clip: SampleClip) -> None:
    """Density and fixation maps as 8-bit PNG; file 0001.png is frame 0."""
    size = clip.pictures.shape[1], clip.pictures.shape[2]
    for name in ("maps", "fixation"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for frame, density in enumerate(density_maps(clip.fixations, size)):
        looked_at = np.zeros(size, dtype=np.uint8)
        looked_at[tuple(clip.fixations[frame].T)] = 255
        file = f"{frame + 1:04d}.png"
        Image.fromarray(np.rint(density * 255).astype(np.uint8)).save(folder / "maps" / file)
        Image.fromarray(looked_at).save(folder / "fixation" / file)


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Note the settings in `out`; refuse a folder that holds anything else, where old clips would mix in."""
    facts = json.dumps(settings, indent=2) + "\n"
    file = out / FACTS_FILE
    if file.is_file():
        if file.read_text() != facts:
            raise DataError(f"{file}: sample data of other settings than asked for; give a new folder")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: is not an empty folder; give a new one")
    out.mkdir(parents=True, exist_ok=True)
    file.write_text(facts)


def _check_settings(counts: tuple[int, int, int], frames: int, size: tuple[int, int], seed: int) -> None:
    if min(counts) < 0 or not any(counts):
        raise SettingError(f"clips {counts}: expected at least one, and no negative number of them")
    if frames < FEWEST_FRAMES:
        raise SettingError(f"frames {frames}: expected at least {FEWEST_FRAMES}, so that a second object moves")
    if min(size) < SMALLEST_SIDE:
        raise SettingError(f"size {size[0]}x{size[1]}: expected at least {SMALLEST_SIDE} pixels each way")
    if seed < 0:
        raise SettingError(f"seed {seed}: expected 0 or more")
