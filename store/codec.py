"""The bytes of one chunk of maps, and the zarr v3 metadata that lets any zarr reader decode them.

A chunk is (frame, y, x) codes of one level. The codec chain, all of it known to zarr-python and numcodecs:
transpose to (y, x, frame), delta along the flattened result (so along time, within a pixel), blosc zstd
with a byte shuffle as wide as the chunk has frames, crc32c. The shuffle gathers the residuals of each frame
into one plane; that is what makes the chain 1.6 times as dense as the same without delta. `numcodecs.delta`
is outside the zarr v3 specification (zarr-python warns of it); everything else is inside.

A chunk is one blosc block. Blosc would otherwise compress blocks in threads and write them in the order in
which they finish, and the same maps would not always give the same bytes. It also lets us decode without
undoing the shuffle: inside the block lies one zstd frame whose content already is (frame, y, x).
"""

import json
from collections.abc import Sequence

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

from tinyhd_pipe.store.encoding import Codes

CHECKSUM_BYTES = 4
COMPRESSION_LEVEL = 5  # read a tenth faster than 4 and a hundredth smaller; 6 takes twice as long to write
_BLOSC_HEADER = 16  # version, flags, sizes: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst
_BLOSC_FORMAT = 2
_ZSTD_START = _BLOSC_HEADER + 8  # then the offset of the only block and its compressed size, 4 bytes each
_SHUFFLED_ZSTD_UNSPLIT = 0x91


def crc32c(payload: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli), the checksum of zarr's crc32c codec."""
    return int(google_crc32c.value(bytes(payload)))


def encode_chunk(codes: Codes) -> bytes:
    """The stored bytes of one chunk: uint8 (frame, y, x) in, checksum included out."""
    frames = codes.shape[0]
    pixels_first = np.ascontiguousarray(codes.transpose(1, 2, 0)).reshape(-1)
    residual = pixels_first.copy()
    residual[1:] -= pixels_first[:-1]  # modulo 256
    packed = blosc.compress(
        residual, b"zstd", COMPRESSION_LEVEL, blosc.SHUFFLE, blocksize=residual.nbytes, typesize=frames
    )
    return bytes(packed) + crc32c(packed).to_bytes(CHECKSUM_BYTES, "little")


def is_intact(stored: bytes | memoryview) -> bool:
    """Whether a chunk's checksum is that of its bytes."""
    return crc32c(stored[:-CHECKSUM_BYTES]) == int.from_bytes(stored[-CHECKSUM_BYTES:], "little")


def stored_size(header: bytes) -> int | None:
    """How long a chunk says it is, from its first 16 bytes; None where they are not the start of one."""
    if len(header) < _BLOSC_HEADER or header[0] != _BLOSC_FORMAT:
        return None
    return int.from_bytes(header[12:16], "little") + CHECKSUM_BYTES


def decode_chunk(stored: memoryview, shape: tuple[int, int, int]) -> Codes:
    """The codes of one chunk, uint8 (frame, y, x). Raises `ValueError` where checksum or content is wrong."""
    if not is_intact(stored):
        raise ValueError("checksum does not match")
    planes = np.empty((shape[0], shape[1] * shape[2]), np.uint8)
    _read_residuals(stored[:-CHECKSUM_BYTES], planes)
    _undo_delta(planes)
    return planes.reshape(shape)


def _read_residuals(payload: memoryview, planes: Codes) -> None:
    """Fill (frame, pixel) with the temporal residuals as they lie in the compressed block."""
    if int.from_bytes(payload[4:8], "little") != planes.nbytes:
        raise ValueError(f"chunk does not hold {planes.nbytes} codes")
    one_block = int.from_bytes(payload[8:12], "little") == planes.nbytes
    a_plane_a_frame = payload[3] == len(planes)
    if payload[2] == _SHUFFLED_ZSTD_UNSPLIT and one_block and a_plane_a_frame:
        zstd.decompress(payload[_ZSTD_START:], planes)
    else:  # incompressible, or written by another program in blocks and with a shuffle of its own
        pixels_first = np.frombuffer(blosc.decompress(payload), np.uint8)
        planes[:] = pixels_first.reshape(planes.shape[::-1]).T


def _undo_delta(planes: Codes) -> None:
    """Turn residuals (frame, pixel) into codes in place; all sums are modulo 256.

    The delta ran pixel after pixel, so a pixel's first residual is against the *last* frame of the pixel
    before. The sum of a pixel's residuals is the change of the last frame from pixel to pixel: one
    cumulative sum gives the last frame, the frames follow by adding plane to plane.
    """
    change = planes.sum(axis=0, dtype=np.uint8)
    last = np.cumsum(change, dtype=np.uint32).astype(np.uint8)  # four times as fast as summing in uint8
    planes[0, 1:] += last[:-1]
    for frame in range(1, len(planes)):
        np.add(planes[frame], planes[frame - 1], out=planes[frame])


def array_metadata(shape: tuple[int, int, int], chunk_frames: int, scale: float, offset: float, level: str) -> bytes:
    """The zarr.json of one level of one shard: uint8 (frame, y, x) in a single sharding_indexed file."""
    rows, y, x = shape
    chunk_codecs: Sequence[dict[str, object]] = [
        {"name": "transpose", "configuration": {"order": [1, 2, 0]}},
        {"name": "numcodecs.delta", "configuration": {"dtype": "|u1"}},
        {"name": "bytes"},
        {
            "name": "blosc",
            "configuration": {
                "cname": "zstd",
                "clevel": COMPRESSION_LEVEL,
                "shuffle": "shuffle",
                "typesize": chunk_frames,
                "blocksize": chunk_frames * y * x,
            },
        },
        {"name": "crc32c"},
    ]
    sharding = {
        "chunk_shape": [chunk_frames, y, x],
        "codecs": chunk_codecs,
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [rows, y, x],
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [rows, y, x]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": ["frame", "y", "x"],
        "attributes": {
            "long_name": f"{level} map in logits",
            "units": "1",
            "scale_factor": scale,
            "add_offset": offset,
        },
    }
    return json.dumps(document, indent=1).encode()


def pack_index(sizes: Sequence[int]) -> bytes:
    """The index at the end of a shard file: offset and size of every chunk, uint64, and its crc32c.

    Zarr v3 sharding codec:
    https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
    """
    ends = np.cumsum(np.asarray(sizes, np.uint64))
    index = np.empty((len(sizes), 2), "<u8")
    index[:, 1] = sizes
    index[:, 0] = ends - index[:, 1]
    packed = index.tobytes()
    return packed + crc32c(packed).to_bytes(CHECKSUM_BYTES, "little")


def index_bytes(chunks: int) -> int:
    """Size of the index of a shard file with that many chunks."""
    return chunks * 16 + CHECKSUM_BYTES


def parse_index(packed: bytes) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    """(chunk, 2) offset and size. Raises `ValueError` where the checksum does not match."""
    body = packed[:-CHECKSUM_BYTES]
    if crc32c(body) != int.from_bytes(packed[-CHECKSUM_BYTES:], "little"):
        raise ValueError("checksum of the index does not match")
    return np.frombuffer(body, "<u8").reshape(-1, 2)
