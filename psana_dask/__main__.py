"""``python -m psana_dask``: the command line."""

from psana_dask.cli import main

if __name__ == "__main__":  # processes that this one starts import it too
    main()
