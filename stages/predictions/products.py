"""What is made of a video: where it lies, what its bytes follow from, how it is written, and what of it is missing."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tinyhd_pipe.stages.pictures.overlay import Overlay
from tinyhd_pipe.stages.predictions.map_files import Add, archive, first_name, frames_there, pictures, zarr_group
from tinyhd_pipe.stages.predictions.map_films import grey_film, overlay_film
from tinyhd_pipe.stages.predictions.records import Made, Record, differing, read_record
from tinyhd_pipe.stages.settings.predict import Brightness, Format
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.store.errors import SettingError

PICTURES = "png"


@dataclass(frozen=True)
class Wanted:
    """What is made of each video."""

    format: Format = "png"
    brightness: Brightness = "peak"
    """Of 8 bits: peak, a map's own maximum is 255; absolute, 1 is."""
    overlay: Overlay | None = None
    """A film of the maps over the frames, too."""
    fps: float = 25.0
    """Frames a second of films where the original does not say."""


@dataclass(frozen=True)
class Product:
    """One of the things that are made of a video."""

    name: str
    place: Path
    by: Mapping[str, Any]
    """What its bytes follow from."""
    write: Callable[[], AbstractContextManager[Add]]

    def frames_there(self) -> frozenset[int]:
        """The absolute frames that it has, where it is made of files by frame."""
        return frames_there(self.place, self.by["first_name"]) if self.name == PICTURES else frozenset()

    def has(self, frames: int) -> bool:
        """Whether it is there with that many frames, once it was finished."""
        return self.place.exists() and (self.name != PICTURES or len(self.frames_there()) >= frames)

    def remove(self) -> None:
        """Of a folder, what was made here alone."""
        if self.place.is_dir() and self.name == PICTURES:
            for frame in self.frames_there():
                (self.place / f"{frame + self.by['first_name']:04d}.png").unlink(missing_ok=True)
        elif self.place.is_dir():
            shutil.rmtree(self.place)
        else:
            self.place.unlink(missing_ok=True)


@dataclass(frozen=True)
class Work:
    """What is to be made of one video."""

    source: VideoSource
    record: Record
    products: tuple[Product, ...]
    """Those that are not there, or not in full."""
    anew: frozenset[str]
    """Names of those that are there by something else, and are removed first."""

    @property
    def frames_there(self) -> frozenset[int]:
        """Absolute frames whose maps are there, and are not made again."""
        (product, *others) = self.products
        return frozenset() if others or product.name in self.anew else product.frames_there()


def work_on(source: VideoSource, identity: Mapping[str, Any], out: Path, wanted: Wanted, *, overwrite: bool) -> Work:
    """What of a video `out` does not have yet by a network of this identity.

    What was made of the video as it was before is made anew. Raises SettingError where the same video has maps by
    something else and `overwrite` is not asked for, or where something lies that was not made here; VideoError for a
    video that cannot be read.
    """
    record = read_record(out / f"{source.id}.json")
    missing, anew = [], set()
    for product in _products(source, identity, out, wanted):
        made = record.products.get(product.name)
        if made is None and product.place.exists():
            raise SettingError(f"{product.place}: is there and was not made by predict; give another --out")
        if made and (others := differing(made.by, product.by)):
            _refuse_mixing(product, made, others, overwrite=overwrite)
            anew.add(product.name)
        elif made and made.frames is not None and product.has(made.frames):
            continue
        missing.append(product)
    return Work(source, record, tuple(missing), frozenset(anew))


def _refuse_mixing(product: Product, made: Made, others: Sequence[str], *, overwrite: bool) -> None:
    """A video that has changed is made anew without being asked: its maps are of nothing that is still there."""
    if "video" in others or overwrite:
        return
    said = f"made with {others[0]} = {made.by.get(others[0])}, not {product.by.get(others[0])}"
    raise SettingError(f"{product.place}: {said}; give another --out, or --overwrite")


def _products(source: VideoSource, identity: Mapping[str, Any], out: Path, wanted: Wanted) -> list[Product]:
    made_by = json.loads(json.dumps({"video": digest(source), **identity}))  # as a record gives it back
    place = out / source.id
    overlays = [_overlay(source, place, made_by, wanted, wanted.overlay)] if wanted.overlay else []
    return [_maps(source, place, made_by, wanted), *overlays]


def _maps(source: VideoSource, place: Path, made_by: dict[str, Any], wanted: Wanted) -> Product:
    if wanted.format == "png":
        by = {**made_by, "brightness": wanted.brightness, "first_name": first_name(source)}
        return Product(PICTURES, place, by, partial(pictures, place, by["first_name"], wanted.brightness))
    if wanted.format == "video":
        file, by = place.with_name(f"{place.name}.mkv"), {**made_by, "brightness": wanted.brightness}
        return Product("video", file, by, partial(grey_film, source, file, wanted.brightness, wanted.fps))
    writer = {"npz": archive, "zarr": zarr_group}[wanted.format]
    file = place.with_name(f"{place.name}.{wanted.format}")
    return Product(wanted.format, file, made_by, partial(writer, file, made_by))


def _overlay(source: VideoSource, place: Path, made_by: dict[str, Any], wanted: Wanted, how: Overlay) -> Product:
    file = place.with_name(f"{place.name}.overlay.mp4")
    by = {**made_by, "brightness": wanted.brightness, **asdict(how)}
    return Product("overlay", file, by, partial(overlay_film, source, file, how, wanted.brightness, wanted.fps))
