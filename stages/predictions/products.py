"""What is made of a video: where it lies, what its bytes follow from, how it is written, and what of it is missing."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tinyhd_pipe.stages.applications.quantisers import Quantising
from tinyhd_pipe.stages.applications.reframing import Reframing
from tinyhd_pipe.stages.applications.thumbnails import Thumbnails
from tinyhd_pipe.stages.pictures.overlay import Overlay
from tinyhd_pipe.stages.predictions.map_files import Add, archive, first_name, frames_there, pictures, zarr_group
from tinyhd_pipe.stages.predictions.map_films import grey_film, overlay_film
from tinyhd_pipe.stages.predictions.records import Made, Record, differing, read_record
from tinyhd_pipe.stages.predictions.reframed_films import reframed_film
from tinyhd_pipe.stages.predictions.roi_files import roi_file
from tinyhd_pipe.stages.predictions.thumbnail_folders import thumbnail_folder
from tinyhd_pipe.stages.settings.predict import Brightness, Format
from tinyhd_pipe.stages.video.sources import VideoSource, digest
from tinyhd_pipe.stages.video.streams import Stream
from tinyhd_pipe.stages.video.viewing import Viewing
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
    reframing: Reframing | None = None
    """A film of the part that is looked at, in another shape."""
    roi: Quantising | None = None
    """A file that tells an encoder where people look."""
    thumbnails: Thumbnails | None = None
    """Pictures of the frames that draw most attention."""


@dataclass(frozen=True)
class Product:
    """One of the things that are made of a video."""

    name: str
    place: Path
    by: Mapping[str, Any]
    """What its bytes follow from."""
    write: Callable[[Viewing], AbstractContextManager[Add]]
    beside: tuple[Path, ...] = ()
    """Further files that it has."""

    def frames_there(self) -> frozenset[int]:
        """The absolute frames that it has, where it is made of files by frame."""
        return frames_there(self.place, self.by["first_name"]) if self.name == PICTURES else frozenset()

    def has(self, frames: int) -> bool:
        """Whether it is there with that many frames, once it was finished."""
        if not all(place.exists() for place in (self.place, *self.beside)):
            return False
        return self.name != PICTURES or len(self.frames_there()) >= frames

    def remove(self) -> None:
        """Of a folder, what was made here alone."""
        if self.place.is_dir() and self.name == PICTURES:
            for frame in self.frames_there():
                (self.place / f"{frame + self.by['first_name']:04d}.png").unlink(missing_ok=True)
        elif self.place.is_dir():
            shutil.rmtree(self.place)
        else:
            for place in (self.place, *self.beside):
                place.unlink(missing_ok=True)


@dataclass(frozen=True)
class Work:
    """What is to be made of one video."""

    source: VideoSource | Stream
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


def work_on(
    source: VideoSource | Stream, identity: Mapping[str, Any], out: Path, wanted: Wanted, *, overwrite: bool
) -> Work:
    """What of a video `out` does not have yet by a network of this identity.

    What was made of the video as it was before is made anew. Raises SettingError where the same video has maps by
    something else and `overwrite` is not asked for, or where something lies that was not made here, or where a stream
    has any maps; VideoError for a video that cannot be read.
    """
    if isinstance(source, Stream) and wanted.thumbnails:
        raise SettingError(
            "--thumbnail: a stream has gone by when its best frames are known; save it and give the file"
        )
    record = read_record(out / f"{source.id}.json")
    missing, anew = [], set()
    for product in _products(source, identity, out, wanted):
        made = record.products.get(product.name)
        if made is None and product.place.exists():
            raise SettingError(f"{product.place}: is there and was not made by predict; give another --out")
        if made and isinstance(source, Stream):
            if product.place.exists() and not overwrite:
                raise SettingError(
                    f"{product.place}: is there, and no stream comes twice; another --out, or --overwrite"
                )
            anew.add(product.name)
        elif made and (others := differing(made.by, product.by)):
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


def _products(source: VideoSource | Stream, identity: Mapping[str, Any], out: Path, wanted: Wanted) -> list[Product]:
    content = "a stream" if isinstance(source, Stream) else digest(source)
    made_by = json.loads(json.dumps({"video": content, **identity}))  # as a record gives it back
    place = out / source.id
    products = [_maps(source, place, made_by, wanted)]
    if wanted.overlay:
        products.append(_overlay(place, made_by, wanted, wanted.overlay))
    if wanted.reframing:
        products.append(_reframed(place, made_by, wanted, wanted.reframing))
    if wanted.roi:
        products.append(_roi(place, made_by, wanted, wanted.roi))
    if wanted.thumbnails:
        products.append(_thumbnails(place, made_by, wanted, wanted.thumbnails))
    return products


def _maps(source: VideoSource | Stream, place: Path, made_by: dict[str, Any], wanted: Wanted) -> Product:
    grey = {**made_by, "brightness": wanted.brightness}
    if wanted.format == "png":
        first = 1 if isinstance(source, Stream) else first_name(source)
        by = {**grey, "first_name": first}
        return Product(PICTURES, place, by, lambda viewing: pictures(place, first, wanted.brightness))
    if wanted.format == "video":
        film = place.with_name(f"{place.name}.mkv")
        return Product("video", film, grey, partial(grey_film, path=film, brightness=wanted.brightness, fps=wanted.fps))
    writer = {"npz": archive, "zarr": zarr_group}[wanted.format]
    file = place.with_name(f"{place.name}.{wanted.format}")
    return Product(wanted.format, file, made_by, lambda viewing: writer(file, made_by))


def _overlay(place: Path, made_by: dict[str, Any], wanted: Wanted, how: Overlay) -> Product:
    file = place.with_name(f"{place.name}.overlay.mp4")
    by = {**made_by, "brightness": wanted.brightness, **asdict(how)}
    write = partial(overlay_film, path=file, how=how, brightness=wanted.brightness, fps=wanted.fps)
    return Product("overlay", file, by, write)


def _reframed(place: Path, made_by: dict[str, Any], wanted: Wanted, how: Reframing) -> Product:
    shape = f"{how.shape.numerator}x{how.shape.denominator}"
    file, table = (place.with_name(f"{place.name}.{shape}.{end}") for end in ("mp4", "csv"))
    by = {**made_by, **asdict(how), "shape": shape}
    write = partial(reframed_film, path=file, table=table, how=how, fps=wanted.fps)
    return Product(f"reframe {shape}", file, by, write, beside=(table,))


def _roi(place: Path, made_by: dict[str, Any], wanted: Wanted, how: Quantising) -> Product:
    file = place.with_name(f"{place.name}.roi.{how.format}.txt")
    write = partial(roi_file, path=file, how=how, fps=wanted.fps)
    return Product(f"roi {how.format}", file, {**made_by, **asdict(how)}, write)


def _thumbnails(place: Path, made_by: dict[str, Any], wanted: Wanted, how: Thumbnails) -> Product:
    folder = place.with_name(f"{place.name}.thumbnails")
    write = partial(thumbnail_folder, path=folder, how=how, fps=wanted.fps)
    return Product("thumbnails", folder, {**made_by, **asdict(how)}, write)
