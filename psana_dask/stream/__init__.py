"""Live data from other processes and machines: `open_stream` gives a `Stream`.

How it goes::

    a tap (shared memory, ZMQ) delivers datagrams
    assembly puts them into memory that looks like the files of a run, and gives out micro-batches
    Stream hands these to the user, as Datasets, Runs, maps and reductions

so streams and files share index, catalog, fields, calibration and names.
"""

from psana_dask.stream.stream import Stream, open_stream

__all__ = ["Stream", "open_stream"]
