"""Waveforms of digitisers in one form, (time, channel, sample); volts and seconds where settings say.

| digitiser | values | seconds |
|---|---|---|
| Acqiris (LCLS-1) | volts: counts x slope - offset | trigger position + i x sampling interval |
| Generic1D, Wave8 (LCLS-1) | as stored | (offset + i) x period of the channel |
| Imp (LCLS-1) | counts | |
| hsd (LCLS-II) | counts, from the raw stream or the peaks ("FEX") stream | i x 14 / (6.4e9 x 13) |
| wave8 (LCLS-II), any other | as stored | |

Channels of different lengths are filled up with NaN.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from psana_dask.algorithms.hsd import PERIOD, HsdStreams, decode_hsd
from psana_dask.catalog import Channel, Entry
from psana_dask.dataset import View, detector_dataset, event_coords, field_attrs
from psana_dask.errors import NameNotFound, ReadError
from psana_dask.fields import RaggedReader
from psana_dask.indexing import Key
from psana_dask.pipeline import EventArray, Target, ragged_reader
from psana_dask.slow import detector_config

if TYPE_CHECKING:
    import xarray as xr

Ints = NDArray[np.int64]
Stream = Literal["raw", "peaks"]

CHANNELS = re.compile(r"(?:\w*_)?(?:raw|chan|channel)_?(\d+)")
"""What fields are called that hold one channel each."""

LOOKED_AT = 16
"""Events whose lengths decide how many samples there are."""


def waveforms(
    view: View, entry: Entry, *, stream: Stream, samples: int | None, period: float | None, chunks: Any
) -> xr.Dataset:
    """Return the waveforms of a digitiser; see `Detector.waveforms`."""
    there = [name for name, channel in entry.channels.items() if view.exists(channel)]
    if "volts" in there:
        found = _acqiris(view, entry, chunks)
    elif channels := _numbered([name for name in there if _has_samples(view, entry.channels[name])]):
        ragged = isinstance(view.target(entry.channels[channels[0]]).reader(), RaggedReader)
        made_of = _hsd if ragged else _side_by_side
        found = made_of(view, entry, channels, stream, samples, chunks)
    else:
        found = _whole(view, entry, there, chunks)
    if period is not None:
        found = found.assign(seconds=("sample", np.arange(found.sizes["sample"]) * period, {"units": "s"}))
    return found


def _has_samples(view: View, channel: Channel) -> bool:
    """Tell whether an event has several values of a field: ``channel0`` of a monitor is one number."""
    reader = view.target(channel).reader()
    return isinstance(reader, RaggedReader) or bool(getattr(reader, "panel_shape", ()))


def _numbered(fields: Sequence[str]) -> list[str]:
    """Return the fields that hold one channel each, in the order of their numbers."""
    numbers = {name: int(found[1]) for name in fields if (found := CHANNELS.fullmatch(name))}
    return sorted(numbers, key=numbers.__getitem__)


def _plain(view: View, entry: Entry, fields: Sequence[str], chunks: Any) -> xr.Dataset:
    """Return fields, with the names of dimensions that all digitisers share."""
    data = detector_dataset(view, entry, chunks, fields)
    known = {f"{entry.name}_{dim}": dim for dim in ("channel", "segment", "sample")}
    own = {n: f"{entry.name}_{n}" for n in data.coords if str(n).endswith("present")}
    return data.rename({d: known[str(d)] for d in data.dims if str(d) in known} | own)[list(fields)]


def _acqiris(view: View, entry: Entry, chunks: Any) -> xr.Dataset:
    data = _plain(view, entry, ["volts", "times"], chunks).rename(volts="waveform", times="seconds")
    return data.isel(segment=0, drop=True) if data.sizes["segment"] == 1 else data


def _whole(view: View, entry: Entry, there: Sequence[str], chunks: Any) -> xr.Dataset:
    """Return the field that holds all channels."""
    for name in ("samples", "raw", "waveforms"):
        if name in there:
            data = _plain(view, entry, [name], chunks)
            inner = [d for d in data[name].dims if d not in ("time", "panel")]
            if 1 <= len(inner) <= 2 and "row" not in inner:
                names = ("channel", "sample")[-len(inner) :]
                renamed = data.rename({d: n for d, n in zip(inner, names, strict=True) if d != n})
                return renamed.rename({name: "waveform"})
    raise NameNotFound(f"{entry.name} has no waveforms among {', '.join(there)}")


def _side_by_side(
    view: View, entry: Entry, channels: Sequence[str], stream: Stream, samples: int | None, chunks: Any
) -> xr.Dataset:
    """Stack fields that hold one channel each."""
    import xarray as xr

    del stream, samples
    data = detector_dataset(view, entry, chunks, channels)
    columns = [data[name].rename({data[name].dims[-1]: "sample"}) for name in channels]
    longest = max(column.sizes["sample"] for column in columns)
    if any(column.sizes["sample"] < longest for column in columns):
        columns = [
            column.astype(np.result_type(column.dtype, np.float32)).pad(
                sample=(0, longest - column.sizes["sample"]), constant_values=np.nan
            )
            for column in columns
        ]
    numbers = [int(CHANNELS.fullmatch(name)[1]) for name in channels]  # type: ignore[index]
    stacked = xr.concat(columns, xr.Variable("channel", numbers), combine_attrs="drop_conflicts")
    stacked = stacked.transpose("time", ..., "channel", "sample")
    own = {n: f"{entry.name}_{n}" for n in stacked.coords if str(n).endswith("present")}
    whole = xr.Dataset({"waveform": stacked.rename("waveform").rename(own)})
    return _timed(view, entry, whole, numbers)


def _timed(view: View, entry: Entry, data: xr.Dataset, numbers: Sequence[int]) -> xr.Dataset:
    """Add the seconds of each channel, where the settings (Generic1D) have offsets and periods."""
    settings = detector_config(view.recording, entry.alias)
    period, offset = (np.atleast_1d(getattr(settings, name, ())) for name in ("period", "offset"))
    if max(numbers) >= min(len(period), len(offset)):
        return data
    at = offset[numbers][:, None] + np.arange(data.sizes["sample"])
    return data.assign(seconds=(("channel", "sample"), at * period[numbers][:, None], {"units": "s"}))


# ---- high-speed digitisers ----------------------------------------------------------------------
class HsdArray(EventArray):
    """Waveforms of a high-speed digitiser, decoded as they are read, float32; NaN where there are none.

    Parameters
    ----------
    targets : sequence of Target
        Of each channel.
    stream : {"raw", "peaks"}
        The waveforms, or the peaks in their places.
    samples : int, optional
        Their length; by default that of the first events that have any.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, targets: Sequence[Target], stream: Stream, samples: int | None) -> None:
        super().__init__(targets[0])
        self.targets, self.stream = tuple(targets), stream
        reader = ragged_reader(targets[0])
        panels = (len(reader.panels),) if reader.segmented else ()
        self.dims = ("time", *(("panel",) if panels else ()), "channel", "sample")
        self._samples = self._longest() if samples is None else samples
        self.shape = (len(targets[0].choice), *panels, len(targets), self._samples)

    @property
    def token(self) -> str:
        """Hash of the values."""
        return f"{super().token}-{'-'.join(t.digest for t in self.targets)}-{self.stream}-{self._samples}"

    def _longest(self) -> int:
        found = 0
        for target in self.targets:
            counts = ragged_reader(target).counts(target.choice.numbers)
            some = target.choice.numbers[np.flatnonzero(counts.any(axis=1))[:LOOKED_AT]]
            found = max(found, int(self._lengths(decoded(target, some)).max(initial=0)))
        return found

    def _lengths(self, streams: HsdStreams) -> Ints:
        return streams.raw_count if self.stream == "raw" else streams.span

    def read(self, key: Key) -> NDArray[np.float32]:
        """Decode the events that `key` picks."""
        events = self.numbers(key[0])
        out = np.empty((len(events), *self.shape[1:]), np.float32)
        for k, target in enumerate(self.targets):
            streams = decoded(target, events)
            longest = int(self._lengths(streams).max(initial=0))
            if longest > self._samples:
                what = f"{self.name}: an event has {longest} samples, not {self._samples}"
                raise ReadError(f"{what}: ask for waveforms(samples={longest})")
            values = streams.waveforms if self.stream == "raw" else streams.assembled
            out[..., k, :] = values(self._samples).reshape(out[..., k, :].shape)
        time = 0 if isinstance(key[0], int | np.integer) else slice(None)
        for axis in reversed(range(1, out.ndim)):
            out = out[(slice(None),) * axis + (key[axis],)]
        return out[time]


def decoded(target: Target, events: Ints) -> HsdStreams:
    """Return what the bytes of a channel hold: one entry for each event and digitiser."""
    reader = ragged_reader(target)
    return decode_hsd(reader.read(events), reader.counts(events).reshape(-1))


def _hsd(
    view: View, entry: Entry, channels: Sequence[str], stream: Stream, samples: int | None, chunks: Any
) -> xr.Dataset:
    import xarray as xr

    from psana_dask.variables import variable

    if stream not in ("raw", "peaks"):
        raise ValueError(f'stream={stream!r}: use "raw" or "peaks"')
    lazy = HsdArray([view.target(entry.channels[name]) for name in channels], stream, samples)
    attrs = {**field_attrs(view, entry, entry.channels[channels[0]]), "stream": stream, "units": "counts"}
    coords = {**event_coords(view), "channel": [int(CHANNELS.fullmatch(n)[1]) for n in channels]}  # type: ignore[index]
    seconds = ("sample", np.arange(lazy.shape[-1]) * PERIOD, {"units": "s"})
    if "panel" in lazy.dims:
        coords["panel"] = view.panels(entry)
    return xr.Dataset({"waveform": variable(lazy, attrs, chunks), "seconds": seconds}, coords)
