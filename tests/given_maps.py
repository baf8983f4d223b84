"""Maps of a moving dot, as others would have left them: in every kind of file, for small videos."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

from tests.moving_dot import STEP, dot
from tests.video_files import write as write_film
from tinyhd_pipe.stages.dump.dumping import Listeners
from tinyhd_pipe.stages.dump.map_files import Credit
from tinyhd_pipe.stages.settings.teacher_dump import DumpOptions
from tinyhd_pipe.stages.store_import import Imported, find_given_maps, import_maps
from tinyhd_pipe.stages.video.sources import find_videos
from tinyhd_pipe.store import Store

Dots = NDArray[np.float32]
CREDIT = Credit("Dots", "CC BY 4.0", "a test")
SIZE = (32, 64)
OPTIONS = DumpOptions(fidelity=0.002)


def dots(frames: int, first: int = 0) -> Dots:
    """Maps (frame, y, x) of which each shows its frame's number, with a background that is nowhere 0."""
    return np.stack([dot(frame) * 0.8 + 0.02 for frame in range(first, first + frames)]).astype(np.float32)


def grey(maps: Dots) -> NDArray[np.uint8]:
    """8 bits, each map divided by its maximum."""
    return np.rint(maps / maps.max(axis=(1, 2), keepdims=True) * 255).astype(np.uint8)


def pictures(folder: Path, maps: Dots, *, first: int = 1, ending: str = ".png") -> None:
    """A picture for each frame; frame 0 is called `first`."""
    folder.mkdir(parents=True)
    for number, picture in enumerate(grey(maps), start=first):
        Image.fromarray(picture).save(folder / f"{number:04d}{ending}", quality=98)


def sixteen_bits(folder: Path, maps: Dots) -> None:
    folder.mkdir(parents=True)
    for number, one in enumerate(maps, start=1):
        Image.fromarray((one / one.max() * 65535).astype(np.uint16)).save(folder / f"{number:04d}.png")


def arrays(folder: Path, maps: Dots) -> None:
    folder.mkdir(parents=True)
    for number, one in enumerate(maps, start=1):
        np.save(folder / f"map_{number}.npy", one)


def npz_by_number(path: Path, maps: Dots) -> None:
    """As `predict --format npz` leaves them: the last frame is named, and not in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = np.array(json.dumps({}))
    np.savez(
        path.with_name(f"{path.name}.npz"),
        maps=maps[3:].astype(np.float16),
        frames=np.arange(3, len(maps)),
        facts=facts,
    )


def npy(path: Path, maps: Dots) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path.with_name(f"{path.name}.npy"), maps * 1e-4)


def mat(path: Path, maps: Dots) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path.with_name(f"{path.name}.mat"), {"maps": np.moveaxis(maps, 0, -1)})


def zarr_array(path: Path, maps: Dots) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    zarr.create_array(str(path.with_name(f"{path.name}.zarr")), data=maps, chunks=(4, *maps.shape[1:]))


def film(path: Path, maps: Dots) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [np.repeat(one[..., None], 3, axis=-1) for one in grey(maps)]
    write_film(path.with_name(f"{path.name}.mkv"), frames, codec="ffv1", pix_fmt="gray")


KINDS: dict[str, Callable[[Path, Dots], None]] = {
    "png from 1": pictures,
    "png from 0": lambda folder, maps: pictures(folder, maps, first=0),
    "jpeg": lambda folder, maps: pictures(folder, maps, ending=".jpg"),
    "png of 16 bits": sixteen_bits,
    "npy a frame": arrays,
    "npz with frames": npz_by_number,
    "npy": npy,
    "mat": mat,
    "zarr": zarr_array,
    "film": film,
}


def imported(root: Path, videos: Sequence[Path], url: Path, options: DumpOptions = OPTIONS, **how: int) -> Imported:
    """Import what lies below a folder, at the size of the dots."""
    given = find_given_maps(root, find_videos(videos), CREDIT, size=SIZE, **how)
    return import_maps(given, str(url), options, Listeners())


def shown(store: Store, video: str, frames: Sequence[int]) -> list[float]:
    """The frame number that each stored map shows."""
    maps = store.read(video, frames, size=SIZE)["final"]
    return [(int(one.sum(axis=0).argmax()) - 2) / STEP for one in maps]
