"""``python -m psana_dask``: the command line."""

from psana_dask.cli import main

main()
