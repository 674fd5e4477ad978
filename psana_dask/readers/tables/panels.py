"""Area detectors as stacks of panels: where the pixels of each panel lie in a payload.

`panels_of` says it for one payload, `panel_table` for many events at once, from a few bytes of each: so
a reader can take single panels and rows straight from the file.  `panel_stack` gives the pixels of one
payload as (panel, row, col).  The CSPAD has always 32 panels (8 sections of 4 quads), whatever
regions of interest were read out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import FormatError
from psana_dask.readers.records import Bytes, Record, View, resolve

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Panels:
    """Where the panels of one payload lie.

    Parameters
    ----------
    starts : (panel,) int64
        Byte of the first pixel from the start of the payload, -1 where a panel is absent.
    shape : (int, int)
        Rows and columns of a panel.
    dtype : numpy.dtype
    step : int
        Bytes from one pixel to the next of the same panel; rows follow each other without gaps.
    """

    starts: Ints
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    step: int

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """Which panels are there."""
        return self.starts >= 0


ReadHeads = Callable[[Ints, int], Bytes]
"""``read(offsets, size)``: for each event `size` bytes from its offset in the payload, as (event, size)."""


@dataclass(frozen=True)
class PanelTable:
    """Where the panels of many payloads lie; as `Panels`, with ``starts`` (event, panel)."""

    starts: Ints
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    step: int


def panel_table(record: Record, cfg: View | None, events: int, read: ReadHeads) -> PanelTable:
    """Return where the panels of many payloads of one record and configuration lie.

    Parameters
    ----------
    record : Record
        Of an area detector.
    cfg : View or None
        Their configuration, if the record needs one.
    events : int
        Number of payloads.
    read : callable
        Gives a few bytes of each payload; not called where the configuration says everything.

    Raises
    ------
    FormatError
        If the frames differ in shape, or contradict the configuration.
    """
    if record.title.startswith("CsPad.Data"):
        return _cspad_table(record, cfg, events, read)
    head = _head_size(record)
    heads = read(np.zeros(events, np.int64), head) if head and events else np.zeros((events, 0), np.uint8)
    first = np.zeros(max(head, 1), np.uint8) if not len(heads) else heads[0]
    panels = panels_of(View(record, first, 0, _UNKNOWN_SIZE, cfg))
    if head:
        _check_alike(record, heads)
    return PanelTable(np.tile(panels.starts, (events, 1)), panels.shape, panels.dtype, panels.step)


_UNKNOWN_SIZE = 1 << 40
"""Stands for the end of a payload of which only the head is in hand."""

_HEADS = {"Camera.FrameV1": 12, "Bld.BldDataPimV1": 32, "Timepix.DataV2": 4}
"""Bytes at the start of a payload that say its shape, where the payload itself does."""


def _head_size(record: Record) -> int:
    return _HEADS.get(record.title, 0)


def _check_alike(record: Record, heads: Bytes) -> None:
    """Refuse frames of different shapes: width, height and depth are the last words of each head."""
    shape = heads[:, 20 if record.title == "Bld.BldDataPimV1" else 0 :]
    other = np.flatnonzero((shape != shape[:1]).any(axis=1))
    if other.size:
        raise FormatError(f"{record.title}: frame {other[0]} of the block has another shape than the first")


def _cspad_table(record: Record, cfg: View | None, events: int, read: ReadHeads) -> PanelTable:
    starts, everyone = np.full((events, 32), -1, np.int64), np.arange(events)
    size = 2 * 185 * 388
    for quad, sections, at, _ in _quads(record, cfg, events, read, 4, 4):
        first = at + QUAD_HEAD
        for section in range(8):
            there = sections >> section & 1 == 1
            starts[everyone[there], (8 * quad + section)[there]] = first[there]
            first = first + size * there
    return PanelTable(starts, (185, 388), np.dtype("<i2"), 2)


QUAD_HEAD = 32
"""Bytes of a CSPAD quad before its sections; 4 follow them."""


def quad_heads(record: Record, cfg: View | None, events: int, read: ReadHeads) -> Bytes:
    """Return the heads of the quads of CSPAD payloads, as (event, quad, QUAD_HEAD).

    Parameters
    ----------
    record, cfg, events, read
        As for `panel_table`.
    """
    found = [head for *_, head in _quads(record, cfg, events, read, 0, QUAD_HEAD)]
    return np.stack(found, axis=1) if found else np.zeros((events, 0, QUAD_HEAD), np.uint8)


def _quads(
    record: Record, cfg: View | None, events: int, read: ReadHeads, first: int, size: int
) -> Iterator[tuple[Ints, Ints, Ints, Bytes]]:
    """Yield for each quad stored its number, section mask, first byte and a piece of its head, per event.

    The piece is `size` bytes from byte `first` on; byte 7 must be in it.
    """
    at = np.zeros(events, np.int64)
    for _ in range(resolve(View(record, _NO_BYTES, 0, _UNKNOWN_SIZE, cfg), "cfg.num_quads")):
        head = read(at + first, size)
        quad = head[:, 7 - first].astype(np.int64) & 3
        sections = _section_masks(record, cfg)[quad]
        yield quad, sections, at, head
        stored = sum(sections >> section & 1 for section in range(8))
        at = at + QUAD_HEAD + 2 * 185 * 388 * stored + 4


_NO_BYTES = np.zeros(0, np.uint8)


def _section_masks(record: Record, cfg: Any) -> Ints:
    """Return which sections each of the four quads stores."""
    if record.title == "CsPad.DataV1":
        return np.full(4, 3 if cfg.asic_mask & 15 == 1 else 255, np.int64)
    return np.array([cfg.roi_mask(quad) for quad in range(4)], np.int64)


def panels_of(view: View) -> Panels:
    """Return where the panels of an area detector's payload lie.

    Parameters
    ----------
    view : View
        Of a frame, element or quad record.

    Raises
    ------
    FormatError
        If the record is no area detector's, or contradicts its configuration.
    """
    find = _FINDERS.get(view.record.title)
    if find is None:
        raise FormatError(f"{view.record.title} is no area detector's frame", offset=view.start)
    return find(view)


def is_imager(title: str) -> bool:
    """Tell whether a record (by title) holds the frames of an area detector."""
    return title in _FINDERS


def panel_stack(view: View) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Return the pixels as (panel, row, col), and which panels are there; absent ones are 0."""
    panels = panels_of(view)
    out = np.zeros((len(panels.starts), *panels.shape), panels.dtype)
    row = panels.step * panels.shape[1]
    for target, start in zip(out, panels.starts.tolist(), strict=True):
        if start >= 0:
            at = view.start + start
            target[:] = np.ndarray(panels.shape, panels.dtype, view.buffer, at, (row, panels.step))
    return out, panels.present


def pnccd_image(links: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the pnCCD as one image, as psana assembles it.

    Parameters
    ----------
    links : (4, 512, 512) array
        As the four links read it.

    Returns
    -------
    (1024, 1024) array
        Top: link 0 and link 3; bottom: link 1 and link 2, turned by 180 degrees.
    """
    top = np.concatenate([links[0], links[3]], axis=1)
    bottom = np.concatenate([links[1][::-1, ::-1], links[2][::-1, ::-1]], axis=1)
    return np.concatenate([top, bottom])


def _stack(field: str) -> Callable[[View], Panels]:
    """Return the finder of records whose `field` is (row, col) or (panel, row, col)."""

    def find(view: View) -> Panels:
        place = view.place(field)
        dtype = np.dtype("<u2")
        count = place.shape[0] if len(place.shape) == 3 else 1
        rows, columns = place.shape[-2:]
        starts = place.start - view.start + np.arange(count) * (rows * columns * dtype.itemsize)
        return Panels(starts, (rows, columns), dtype, dtype.itemsize)

    return find


def _camera(view: View) -> Panels:
    place = view.place("pixel_bytes")
    rows, columns, depth = place.shape
    if depth not in {1, 2, 4, 8}:
        raise FormatError(f"a camera frame with {depth} bytes for a pixel", offset=view.start)
    return Panels(np.array([place.start - view.start]), (rows, columns), np.dtype(f"<u{depth}"), depth)


def _pim(view: View) -> Panels:
    frame = view.frame
    inner = _camera(frame)
    return Panels(inner.starts + frame.start - view.start, inner.shape, inner.dtype, inner.step)


def _cspad(view: View) -> Panels:
    starts = np.full(32, -1, np.int64)
    for quad in view.quads:
        place = quad.place("data")
        sections = [s for s in range(8) if quad.section_mask >> s & 1]
        if len(sections) != place.shape[0]:
            raise FormatError(f"quad {quad.quad} has {place.shape[0]} sections", offset=quad.start)
        size = place.shape[1] * place.shape[2] * 2
        first = place.start - view.start
        starts[[8 * quad.quad + s for s in sections]] = first + np.arange(len(sections)) * size
    return Panels(starts, (185, 388), np.dtype("<i2"), 2)


def _cspad2x2(view: View) -> Panels:
    first = view.place("data").start - view.start
    return Panels(np.array([first, first + 2]), (185, 388), np.dtype("<i2"), 4)


def _pnccd(view: View) -> Panels:
    places = [link.place("words") for link in view.frame]
    if any(place.shape != (512 * 512,) for place in places):
        raise FormatError("pnCCD links are not of 512 x 512 pixels", offset=view.start)
    starts = np.array([place.start - view.start for place in places], np.int64)
    return Panels(starts, (512, 512), np.dtype("<u2"), 2)


_FINDERS: dict[str, Callable[[View], Panels]] = {
    "Camera.FrameV1": _camera,
    "Bld.BldDataPimV1": _pim,
    "CsPad.DataV1": _cspad,
    "CsPad.DataV2": _cspad,
    "CsPad2x2.ElementV1": _cspad2x2,
    "PNCCD.FramesV1": _pnccd,
    "Epix.ElementV1": _stack("frame"),
    "Epix.ElementV2": _stack("frame"),
    "Epix.ElementV3": _stack("frame"),
    "Epix.ArrayV1": _stack("frame"),
    "Jungfrau.ElementV1": _stack("frame"),
    "Jungfrau.ElementV2": _stack("frame"),
    "Uxi.FrameV1": _stack("frames"),
    "Princeton.FrameV1": _stack("data"),
    "Princeton.FrameV2": _stack("data"),
    "Pimax.FrameV1": _stack("data"),
    "Pixis.FrameV1": _stack("data"),
    "Andor.FrameV1": _stack("data"),
    "Andor3d.FrameV1": _stack("data"),
    "Fli.FrameV1": _stack("data"),
    "Zyla.FrameV1": _stack("data"),
    "Vimba.FrameV1": _stack("data"),
    "Timepix.DataV1": _stack("data"),
    "Timepix.DataV2": _stack("data"),
}
