"""Live plots in a browser: ``monitor``."""

from __future__ import annotations

from typing import Any

import click

from psana_dask.cli.common import dir_option, run_option


@click.command()
@click.argument("source")
@click.argument("detectors", nargs=-1, required=True, metavar="DETECTOR...")
@run_option
@dir_option
@click.option("--live", "is_live", is_flag=True, help="The run is still being written.")
@click.option("--calib", help="Where constants come from; see psana_dask.open.")
@click.option(
    "--policy", type=click.Choice(["latest", "complete"]), help="What becomes of events that come too fast."
)
@click.option("--rate", type=float, help="Events a second of a closed run; by default as it was taken.")
@click.option("--window", type=int, help="Means of the last so many events; of all by default.")
@click.option("--half-life", type=float, help="Means that fade: an event counts half after so many.")
@click.option("--no-means", is_flag=True, help="Read only the events that are shown.")
@click.option("--updates", default=10.0, show_default=True, help="Pictures a second, at most.")
@click.option("--log", is_flag=True, help="Colours on a logarithmic scale.")
@click.option("--limits", nargs=2, type=float, help="Lowest and highest colour; by percentiles by default.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: open to the network.")
@click.option("--port", default=0, help="A free one by default.")
def monitor(
    source: str,
    detectors: tuple[str, ...],
    run: int | None,
    folder: str | None,
    is_live: bool,
    calib: str | None,
    limits: tuple[float, float] | None,
    no_means: bool,
    host: str,
    port: int,
    **choices: Any,
) -> None:
    """Show events of SOURCE as they come: images, waveforms and numbers of each DETECTOR (or DETECTOR.FIELD).

    SOURCE is a stream (shmem://TAG, tcp://HOST:PORT), a run that is being written (live:RUN, or --live),
    or a closed run, which is replayed. The page asks for the token in the address that is printed.
    """
    from psana_dask.plot import live

    opened = {"run": run, "dir": folder, "live": is_live or None, "calib": calib}
    options: dict[str, Any] = {name: value for name, value in opened.items() if value is not None}
    with live(source, list(detectors), limits=limits, means=not no_means, **choices, **options) as plots:
        server = plots.serve(host=host, port=port)
        click.echo(f"{server.url}\n{server.hint}\nCtrl-C stops")
        server.wait()
