"""JSON documents that carry their own checksum.

Every zarr.json that we write with attributes of ours has, as the last of them, the CRC-32C of the
document's own bytes, computed with eight zeros in its place. The whole file is covered, to the last blank,
without a second file.
"""

import json
from typing import Any

from tinyhd_pipe.store.codec import crc32c

_KEY = "document_crc32c"
_ZEROS = "0" * 8


def sealed_json(attributes: dict[str, Any], *, indent: int | None = None) -> bytes:
    """A zarr v3 group's zarr.json with `attributes` under the key "tinyhd", and its checksum.

    A quote inside a string is escaped in JSON, so the place of the checksum is found by its key. Half of a surrogate
    pair, which Python makes of a byte that is no UTF-8, has no encoding: it is written as JSON escapes it.
    """
    tinyhd = {**attributes, _KEY: _ZEROS}
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"tinyhd": tinyhd}}
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(document, indent=indent, separators=separators, ensure_ascii=False).encode(
        errors="backslashreplace"
    )
    return _with_checksum(text, f"{crc32c(text):08x}")


def opened_json(text: bytes) -> dict[str, Any]:
    """The attributes of such a document. Raises `ValueError` where it is not one or is damaged."""
    try:
        attributes = json.loads(text)["attributes"]["tinyhd"]
        checksum = attributes.pop(_KEY)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:  # any JSON, however deep
        raise ValueError("not a document of tinyhd-pipe, or damaged") from error
    if f"{crc32c(_with_checksum(text, _ZEROS)):08x}" != checksum:
        raise ValueError("checksum does not match")
    return dict(attributes)


def _with_checksum(text: bytes, checksum: str) -> bytes:
    start = text.rindex(f'"{_KEY}"'.encode()) + len(_KEY) + 2
    start = text.index(b'"', start) + 1
    return text[:start] + checksum.encode() + text[start + len(checksum) :]
