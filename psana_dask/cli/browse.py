"""Pages in the browser for events, constants and runs: ``browse``."""

from __future__ import annotations

import os

import click

from psana_dask.cli.common import dir_option
from psana_dask.errors import ConstantsNotFound


@click.command()
@click.argument("source", required=False)
@dir_option
@click.option("--calib", help="Constants: a folder, the address of the service, or web.")
@click.option("--write", is_flag=True, help="Let the pages put constants in force and take them back.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; a free one by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
def browse(
    source: str | None, folder: str | None, calib: str | None, write: bool, port: int, host: str
) -> None:
    """Open pages for events, constants and runs of SOURCE in the browser.

    SOURCE is an experiment, or anything else that names runs; without it, all experiments of this
    machine, or those whose files lie in --dir. Everybody with the printed address sees the pages; nothing is
    written unless --write is given.
    """
    from psana_dask.pages.browse import pages
    from psana_dask.pages.choosing import Shelf
    from psana_dask.pages.serving import serve

    if calib is not None and calib != "web" and "://" not in calib and not os.path.isdir(calib) and not write:
        raise ConstantsNotFound(f"{calib} is no calib directory: there is no such folder")
    shelf = Shelf(source, folder, calib)
    count = len(shelf.experiments())
    with serve(pages(shelf, write), host=host, port=port, title="psana_dask") as server:
        click.echo(f"{count} experiment{'' if count == 1 else 's'}; "
                   f"constants {'can be changed' if write else 'are read only'}; Ctrl-C ends")  # fmt: skip
        click.echo(server.url)
        click.echo(server.hint, err=True)
        server.wait()
