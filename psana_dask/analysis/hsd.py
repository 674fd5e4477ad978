"""High-speed digitisers: waveforms and peaks from the bytes of their channels."""

from __future__ import annotations

import numpy as np
import xarray as xr

from psana_dask.algorithms.hsd import PERIOD, HsdStreams
from psana_dask.algorithms.hsd import decode_hsd as decode_block
from psana_dask.analysis.events import EVENT


def decode_hsd(channel: xr.Dataset, *, panel: int | None = None) -> xr.Dataset:
    """Decode one channel of a high-speed digitiser; its bytes are read here.

    Parameters
    ----------
    channel : Dataset
        Bytes and their counts, as ``run.hsd.chan00`` gives them.
    panel : int, optional
        Position of the digitiser, where there are several.

    Returns
    -------
    Dataset
        ``raw`` (raw_item) with ``raw_count`` (time); peaks ``start`` (seconds), ``first`` (sample) and
        ``length`` (peak_item) with ``peak_count`` (time); their ``samples`` (sample_item) with
        ``sample_count`` (time); ``span`` (time): samples that the peaks' stream stands for; ``flags``
        (time): bits 0 out of range, 1 unlocked, 2 overflow, 3 malformed.

    Examples
    --------
    >>> found = analysis.decode_hsd(run.hsd.chan00)
    >>> found.start.values[: int(found.peak_count[0])]
    """
    time = channel[EVENT]
    found = _decoded(channel, panel)
    event = np.repeat(np.arange(len(time)), found.peak_count)
    samples = np.bincount(event, found.length, len(time)).astype(np.int64)
    seconds = {"units": "s"}
    return xr.Dataset(
        {
            "raw": ("raw_item", found.raw),
            "raw_count": (EVENT, found.raw_count),
            "start": ("peak_item", found.start * PERIOD, seconds),
            "first": ("peak_item", found.start),
            "length": ("peak_item", found.length),
            "peak_count": (EVENT, found.peak_count),
            "samples": ("sample_item", found.samples),
            "sample_count": (EVENT, samples),
            "span": (EVENT, found.span),
            "flags": (EVENT, found.flags),
        },
        {EVENT: time.values},
        {"period_seconds": PERIOD},
    )


def _decoded(channel: xr.Dataset, panel: int | None) -> HsdStreams:
    """Decode the bytes of one digitiser."""
    name = next((str(n) for n in channel.data_vars if f"{n}_count" in channel), None)
    if name is None:
        raise ValueError(f"no ragged bytes with their counts among {', '.join(map(str, channel.data_vars))}")
    payload, counts = np.asarray(channel[name].values), channel[f"{name}_count"].values
    if counts.ndim == 1:
        return decode_block(payload, counts)
    if panel is None and counts.shape[1] > 1:
        raise ValueError(f"{name} has {counts.shape[1]} digitisers: say which by panel=")
    chosen = np.zeros(counts.shape, bool)
    chosen[:, panel or 0] = True
    keep = np.repeat(chosen.reshape(-1), counts.reshape(-1))
    return decode_block(payload[keep], counts[:, panel or 0])
