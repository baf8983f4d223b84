"""MobileNetV2's ImageNet weights from their public address, fetched when that is asked for and never otherwise.

torch's own downloader does it: the file is written beside, held against the digest in its name, and renamed. The
decision that is not obvious: it goes where torch keeps such files (`$TORCH_HOME`, by default in the user's cache
folder), so whoever has used torchvision's MobileNetV2 has it already. Cost: 14 MB, once.
"""

import hashlib
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

import torch

from tinyhd_pipe.store.errors import WeightsError

MOBILENET_V2 = "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth"
"""torchvision's weights; the name ends with the first digits of the file's SHA-256."""


def kept_at(url: str) -> Path:
    """Where the file of that address is kept on this machine."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])


def fetched(url: str) -> Path:
    """The file of that address, which is named `…-<digest>.pth`: the one that is kept, or fetched now.

    Raises WeightsError where it cannot be fetched or written, or is not what its name says.
    """
    path = kept_at(url)
    digest = path.stem.rpartition("-")[2]
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest().startswith(digest):
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another digest
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        reason = str(error).strip("<>")
        raise WeightsError(
            f"{url}: cannot be fetched to {path} ({reason}); bring the file by other means and name it in "
            "student_train.encoder_weights"
        ) from error
    return path
