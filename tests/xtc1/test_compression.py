"""The Hist16 and HistN codecs: what is written is read, what is corrupt is refused."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn

from psana_dask.errors import FormatError
from psana_dask.readers.compression import Engine, compress, decompress

CODECS = (Engine.HIST16, Engine.HISTN)
ENGINES = [(Engine.NONE, False), *((engine, runs) for engine in CODECS for runs in (False, True))]


def read(payload):
    return decompress(np.frombuffer(payload, np.uint8)).tobytes()


def frame(seed=0, size=2000):
    rng = np.random.default_rng(seed)
    pixels = rng.normal(1300, 40, size).astype("<u2")
    pixels[rng.integers(0, size, 20)] = rng.integers(0, 65536, 20)
    return pixels


@pytest.mark.parametrize(("engine", "runs"), ENGINES)
def test_blocks_of_headers_and_pixels(engine, runs):
    pieces = [(b"head" * 3, frame(1)), (b"", frame(2, 15)), (b"x" * 7, frame(3, 1))]
    expected = b"".join(head + pixels.tobytes() for head, pixels in pieces)
    assert read(compress(pieces, engine, runs=runs)) == expected


@settings(max_examples=60, deadline=None)
@given(
    pixels=stn.arrays(st.sampled_from([np.dtype("<u2"), np.dtype("u1")]), st.integers(1, 70)),
    runs=st.booleans(),
)
def test_any_pixels(pixels, runs):
    engines = [Engine.NONE, Engine.HISTN] + ([Engine.HIST16] if pixels.itemsize == 2 else [])
    for engine in engines:
        assert read(compress([(b"", pixels)], engine, runs=runs)) == pixels.tobytes()


def test_pixels_stored_as_they_are():
    pixels = frame(4, 10)
    total = int(pixels.astype(np.uint64).sum())
    hist16 = struct.pack("<3I", 0, total, 20) + pixels.tobytes()
    histn = struct.pack("<2H2I", 0, 2, total, 20) + pixels.tobytes()
    for engine, data in ((Engine.HIST16, hist16), (Engine.HISTN, histn)):
        assert read(struct.pack("<5I", 0, engine, 0, 20, len(data)) + data) == pixels.tobytes()


def test_nothing_decompresses_to_nothing():
    assert read(b"") == b""


def test_compression_saves_space():
    pixels = frame(5, 10_000)
    for engine in (Engine.HIST16, Engine.HISTN):
        assert len(compress([(b"", pixels)], engine, runs=True)) < 0.7 * pixels.nbytes


@pytest.mark.parametrize(("engine", "runs"), ENGINES[1:])
def test_a_cut_payload_is_an_error(engine, runs):
    payload = compress([(b"head", frame(6, 100))], engine, runs=runs)
    for size in range(4, len(payload) - 4):
        with pytest.raises(FormatError, match="compressed"):
            read(payload[:size])


@pytest.mark.parametrize(("engine", "runs"), ENGINES[1:])
def test_any_flipped_bit_gives_an_error_or_the_same_length(engine, runs):
    pixels = frame(7, 60)
    payload = bytearray(compress([(b"head", pixels)], engine, runs=runs))
    refused = 0
    for bit in range(8 * len(payload)):
        payload[bit // 8] ^= 1 << bit % 8
        try:
            read(bytes(payload))
        except FormatError:
            refused += 1
        payload[bit // 8] ^= 1 << bit % 8
    assert refused > 0.8 * 8 * len(payload)  # headers and padding carry no checksum


def test_a_wrong_checksum_is_refused():
    payload = bytearray(compress([(b"", frame(8, 50))], Engine.HIST16))
    payload[4 + 16 + 4] ^= 1
    with pytest.raises(FormatError, match="checksum"):
        read(bytes(payload))


def test_an_unknown_engine_is_refused():
    with pytest.raises(FormatError, match="engine 7"):
        read(struct.pack("<5I", 0, 7, 0, 4, 4) + bytes(4))
