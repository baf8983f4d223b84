"""Small local files that are whole or not there, whenever the process is killed."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write beside, as `<name>.partial`, bring that to the disk and rename it; what was there stays until then.

    Raises OSError, which names the file (a full disk does not by itself), where it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
