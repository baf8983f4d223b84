"""Chunks that we read ourselves, blosc frame and all, are held against numcodecs, which wrote them and may change."""

import base64

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Delta, blosc

from tinyhd_pipe.store import codec
from tinyhd_pipe.store.codec import CHECKSUM_BYTES, crc32c, decode_chunk, encode_chunk, stored_size
from tinyhd_pipe.store.encoding import Codes

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 24), st.integers(1, 24))


def moving(shape: tuple[int, int, int], noise: int, seed: int = 0) -> Codes:
    """Codes (frame, y, x) of something that moves; noise up to 255 is beyond compression."""
    frame, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    codes = 40 + 10 * y + 3 * x + frame * (x > y) + np.random.default_rng(seed).integers(0, noise + 1, shape)
    return codes.astype(np.uint8)


def decoded_by_numcodecs(stored: bytes, shape: tuple[int, int, int]) -> Codes:
    """The chain that the array's metadata names, each step by numcodecs or numpy, none by us."""
    residual = blosc.decompress(stored[:-CHECKSUM_BYTES])
    pixels_first = np.asarray(Delta(dtype="u1").decode(residual), np.uint8)
    return pixels_first.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1)


def encoded_by_numcodecs(codes: Codes, **options: object) -> bytes:
    """A chunk as another program may write it."""
    residual = np.asarray(Delta(dtype="u1").encode(codes.transpose(1, 2, 0).reshape(-1)))
    packed = blosc.compress(residual, **{"cname": b"zstd", "clevel": 5, "shuffle": blosc.SHUFFLE, **options})
    return packed + crc32c(packed).to_bytes(CHECKSUM_BYTES, "little")


@settings(deadline=None)
@given(SHAPES, st.sampled_from([0, 1, 5, 60, 255]), st.integers(0, 9))
def test_our_decoding_is_that_of_numcodecs(shape: tuple[int, int, int], noise: int, seed: int) -> None:
    codes = moving(shape, noise, seed)
    stored = encode_chunk(codes)
    np.testing.assert_array_equal(decode_chunk(memoryview(stored), shape), codes)
    np.testing.assert_array_equal(decoded_by_numcodecs(stored, shape), codes)
    assert stored_size(stored[:16]) == len(stored)


@pytest.mark.parametrize("shape", [(16, 24, 32), (32, 96, 128), (16, 192, 256)])
def test_the_frames_that_numcodecs_writes_for_maps_are_those_that_we_read_ourselves(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int, int]
) -> None:
    """Were they laid out in another way, all maps would still be read, but slowly: so it is looked at."""
    codes = moving(shape, noise=3)
    stored = encode_chunk(codes)
    monkeypatch.setattr(codec.blosc, "decompress", None)
    np.testing.assert_array_equal(decode_chunk(memoryview(stored), shape), codes)


@pytest.mark.parametrize(
    "options",
    [
        {"blocksize": 512},
        {"typesize": 1},
        {"typesize": 4},
        {"cname": b"lz4"},
        {"shuffle": blosc.BITSHUFFLE},
        {"shuffle": blosc.NOSHUFFLE},
        {"clevel": 0},
        {"clevel": 9},
    ],
    ids=str,
)
def test_frames_that_another_program_wrote_are_read_as_well(options: dict[str, object]) -> None:
    codes = moving((16, 24, 32), noise=3)
    stored = encoded_by_numcodecs(codes, **{"typesize": 16, "blocksize": codes.nbytes, **options})
    np.testing.assert_array_equal(decode_chunk(memoryview(stored), codes.shape), codes)


WRITTEN_ONCE = base64.b64decode(
    """
    AgGRCOABAADgAQAATQAAABQAAAA1AAAAKLUv/WDgAF0BAIAoA/zoAwMDAwMAAQAAAAAADaBALg9gw3QMZV/Rl5LSX4LIHO42O93N
    OgmP8K6Z
    """
)
"""`moving((8, 6, 10), noise=0)` as numcodecs 0.16.6 wrote it: stores are read for years."""


def test_a_chunk_of_long_ago_is_read_by_both() -> None:
    codes = moving((8, 6, 10), noise=0)
    np.testing.assert_array_equal(decode_chunk(memoryview(WRITTEN_ONCE), codes.shape), codes)
    np.testing.assert_array_equal(decoded_by_numcodecs(WRITTEN_ONCE, codes.shape), codes)


@pytest.mark.parametrize("shape", [(15, 24, 32), (16, 24, 31), (17, 24, 32)])
def test_a_chunk_of_another_size_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="chunk does not hold"):
        decode_chunk(memoryview(encode_chunk(moving((16, 24, 32), noise=3))), shape)
