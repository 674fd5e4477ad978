"""Pages in the browser for events, constants and runs: ``browse``."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import click

from psana_dask.cli.common import dir_option
from psana_dask.errors import ConstantsNotFound


@click.command()
@click.argument("source", required=False)
@dir_option
@click.option("--calib", help="Constants: a folder, the address of the service, or web.")
@click.option("--write", is_flag=True, help="Let the pages put constants in force and take them back.")
@click.option("--live", "live_source", help="Also live plots of this source, as of psana-dask monitor.")
@click.option("--plot", "names", multiple=True, help="With --live: a detector to plot; several times.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port; a free one by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: open to the network.")
def browse(
    source: str | None,
    folder: str | None,
    calib: str | None,
    write: bool,
    live_source: str | None,
    names: tuple[str, ...],
    port: int,
    host: str,
) -> None:
    """Open pages for events, constants and runs of SOURCE in the browser.

    SOURCE is an experiment, or anything else that names runs; without it, all experiments of this
    machine, or those whose files lie in --dir. Everybody with the printed address sees the pages; nothing is
    written unless --write is given.
    """
    from psana_dask.pages.browse import pages
    from psana_dask.pages.choosing import Shelf
    from psana_dask.pages.serving import serve

    if (live_source is None) != (not names):
        raise click.UsageError("--live SOURCE and --plot DETECTOR belong together")
    if calib is not None and not write and _is_folder(calib) and not os.path.isdir(calib):
        raise ConstantsNotFound(f"{calib} is no calib directory: there is no such folder")
    shelf = Shelf(source, folder, calib)
    experiments = shelf.experiments()
    with ExitStack() as stack:
        live = None if live_source is None else stack.enter_context(_live(live_source, names, calib)).page
        server = stack.enter_context(serve(pages(shelf, write, live), host=host, port=port))
        click.echo(f"{', '.join(experiments[:8]) or 'no experiment'}{' ...' * (len(experiments) > 8)}; "
                   f"constants {'can be changed' if write else 'are read only'}")  # fmt: skip
        click.echo(f"{server.url}\n{server.hint}\nCtrl-C stops")
        server.wait()


def _is_folder(calib: str) -> bool:
    return calib != "web" and "://" not in calib


def _live(source: str, names: tuple[str, ...], calib: str | None) -> Any:
    from psana_dask.plot import live

    options: dict[str, Any] = {} if calib is None else {"calib": calib}
    return live(source, list(names), **options)
