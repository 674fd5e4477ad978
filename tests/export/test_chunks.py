"""Chunks hold the values of the variable, however they are read, in the same memory."""

import importlib

import numpy as np
import pytest

from psana_dask.export import codecs
from psana_dask.export.chunks import chunks, frames_of
from psana_dask.export.plan import Column, Piece
from psana_dask.fields import missing_value

module = importlib.import_module("psana_dask.export.chunks")  # the package has a function of this name


def piece_of(variable, start, stop, chunk=4):
    column = Column("/x", "x", variable.shape, str(variable.dtype), chunk, variable.shape[0])
    return Piece(0, column, start, stop)


def check_chunks(variable, start, stop, chunk=4):
    """Return the memory of each chunk, and whether its frames came straight from the files."""
    piece, memory = piece_of(variable, start, stop, chunk), []
    expected = variable.values[start:stop]
    for number, found in enumerate(chunks(variable, piece)):
        rows = expected[number * chunk : (number + 1) * chunk]
        strips = b"".join(strip.tobytes() for strip in found.strips())
        values = found.whole()
        assert values.shape == found.shape == (chunk, *variable.shape[1:])
        assert values.dtype == found.dtype == variable.dtype
        np.testing.assert_array_equal(values[: len(rows)], rows)
        assert not values[len(rows) :].any()
        assert strips == values.tobytes()
        memory.append(values.ctypes.data)
    assert len(memory) == -(-(stop - start) // chunk)
    return memory, frames_of(variable, piece) is not None


WAYS = {
    "all of it": (lambda raw: raw, True),
    "some panels": (lambda raw: raw.isel(panel=slice(1, 3)), True),
    "panels in another order": (lambda raw: raw.isel(panel=[2, 0]), True),
    "one panel": (lambda raw: raw.isel(panel=1), False),
    "some rows": (lambda raw: raw.isel(row=slice(2, 9)), False),
    "every other column": (lambda raw: raw.isel(col=slice(None, None, 2)), False),
    "rows in reverse": (lambda raw: raw.isel(row=slice(None, None, -1)), False),
    "values in memory": (lambda raw: raw.load(), False),
}


@pytest.fixture(params=[codecs.STRIP_BYTES, 1024, 136], autouse=True)
def _strips(request, monkeypatch):
    """Strips of several panels, of parts of one, and that end anywhere."""
    monkeypatch.setattr(module, "STRIP_BYTES", request.param)


@pytest.mark.parametrize("way", WAYS)
def test_chunks_are_the_values(rich_run, way):
    change, straight = WAYS[way]
    raw = change(rich_run.epix.field("raw", chunks=None)).variable
    assert raw.shape[0] > 10
    memory, found = check_chunks(raw, 3, raw.shape[0])
    assert found == straight
    assert len(set(memory)) == 1 or not straight


def test_chunks_of_a_selection_in_any_order(rich_run):
    chosen = rich_run.isel([9, 2, 2, 7, 5])
    assert check_chunks(chosen.epix.field("raw", chunks=None).variable, 0, 5, chunk=2)[1]


def test_missing_panels_are_marked_in_memory_that_was_used_before(rich_run):
    raw = rich_run.epix.field("raw", chunks=None).variable
    piece = piece_of(raw, 0, raw.shape[0], chunk=1)
    missing = frames_of(raw, piece).which < 0
    assert missing.any()
    assert not missing.all()
    for number, found in enumerate(chunks(raw, piece)):
        assert (found.whole()[0, missing[number]] == missing_value(raw.dtype)).all()


def test_every_field_of_fixed_shape(rich_run):
    straight = 0
    for detector in rich_run.detectors:
        for variable in rich_run[detector].dataset(chunks=None).data_vars.values():
            if variable.ndim and variable.dtype.kind in "iuf" and variable.shape[0]:
                straight += check_chunks(variable.variable, 0, variable.shape[0])[1]
    assert straight > 5
