"""ONNX Runtime Web, which runs a network in a browser: three files of its npm package, fetched once and kept.

npm fetches the package where there is npm, by whatever registry it is set to; else the public registry is asked. The
decision that is not obvious: the three files are known by their own digests, whichever way they came, and nothing else
is kept, in the user's cache folder. They are the build without WebGPU, which knows no 3D convolution and would double
the size. Cost: 33 MB to fetch, 14 MB to keep.
"""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from tinyhd_pipe.store.errors import SettingError, TinyHDError
from tinyhd_pipe.store.whole_file import write_whole

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
ADDRESS = f"https://registry.npmjs.org/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"
DIGESTS: Mapping[str, str] = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""SHA-256 of the files that a page needs, which lie in the package's dist/."""
SECONDS = 300
"""How long a registry may take."""


def runtime_files(folder: Path | None) -> dict[str, Path]:
    """Name -> where each of the three files lies on this machine.

    Arguments:
        folder: with the files, or with a `dist` that has them, of any version; None takes the pinned ones that are
            kept, or fetches them now.

    Raises SettingError for a folder without them, TinyHDError where they cannot be fetched or kept.
    """
    if folder is not None:
        return _given(folder)
    kept = _cache()
    there = {name: kept / name for name in DIGESTS}
    if not all(path.is_file() and _digest(path.read_bytes()) == DIGESTS[name] for name, path in there.items()):
        contents = _unpacked(_fetched())
        try:
            kept.mkdir(parents=True, exist_ok=True)
            for name, content in contents.items():
                write_whole(kept / name, content)
        except OSError as error:
            raise TinyHDError(f"{kept}: cannot be written ({error.strerror}); set XDG_CACHE_HOME elsewhere") from error
    return there


def _given(folder: Path) -> dict[str, Path]:
    for place in (folder, folder / "dist", folder / "package" / "dist"):
        if all((place / name).is_file() for name in DIGESTS):
            return {name: place / name for name in DIGESTS}
    lacking = next(name for name in DIGESTS if not (folder / name).is_file())
    raise SettingError(f"--runtime {folder}: has no {lacking}; give the dist folder of the npm package {PACKAGE}")


def _cache() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "tinyhd-pipe" / f"{PACKAGE}-{VERSION}"


def _fetched() -> bytes:
    """The package, as npm's registry has it."""
    npm = shutil.which("npm")
    try:
        return _by_npm(npm) if npm else _by_address()
    except (OSError, HTTPException, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise TinyHDError(
            f"{PACKAGE} {VERSION} cannot be fetched ({_reason(said)}); this is needed once, 33 MB: try again with a "
            "network, or bring the npm package by other means and name its folder: --runtime DIR"
        ) from error


def _by_npm(npm: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pack = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", folder, "--fetch-retries=1", "--silent"]
        # In that folder: a package.json where we stand is none of npm's business.
        subprocess.run(
            [*pack, "--loglevel=error"], cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS
        )
        (packed,) = Path(folder).glob("*.tgz")
        return packed.read_bytes()


def _by_address() -> bytes:
    with urlopen(ADDRESS, timeout=SECONDS) as answer:
        content: bytes = answer.read()
        return content


def _unpacked(package: bytes) -> dict[str, bytes]:
    """The three files. Raises TinyHDError where one is not what it was when it was pinned."""
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as packed:
            for name in DIGESTS:
                file = packed.extractfile(f"package/dist/{name}")
                contents[name] = file.read() if file else b""
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise TinyHDError(f"{PACKAGE} {VERSION}: what was fetched is not the package ({error}); try again") from error
    for name, content in contents.items():
        if _digest(content) != DIGESTS[name]:
            raise TinyHDError(f"{name} of {PACKAGE} {VERSION}: has another digest than when it was pinned; not used")
    return contents


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _reason(said: str) -> str:
    """What went wrong, in a line: npm says it in several, the code first."""
    lines = [line.removeprefix("npm error ").removeprefix("npm ERR! ") for line in said.splitlines() if line.strip()]
    return " ".join(lines[:3])[:200].strip("<>") or "no answer"
