"""Send a run as if it were taken now: ``serve``."""

from __future__ import annotations

import signal
import time
from typing import Any

import click

from psana_dask.cli.common import dir_option, open_source, run_option, source_argument


@click.command()
@source_argument
@run_option
@dir_option
@click.option("--zmq", "url", help="Listen at tcp://HOST:PORT (and at PORT + 1).")
@click.option("--shmem", "tag", help="Serve the shared memory of this partition tag.")
@click.option("--rate", type=float, help="Events a second; as fast as they are taken by default.")
@click.option(
    "--pub", is_flag=True, help="With --zmq: every event to every receiver, without waiting for them."
)
@click.option("--loop", is_flag=True, help="Begin again at the end.")
@click.option("--wait", default=0.0, help="Seconds before the first event.")
@click.option("--wait-clients", default=0, help="With --shmem: clients that the first event waits for.")
@click.option("--clients", default=2, show_default=True, help="With --shmem: how many clients there may be.")
@click.option("--buffers", type=int, help="With --shmem: buffers for events (8 to 32, by size).")
def serve(
    source: tuple[str, ...],
    run: int | None,
    folder: str | None,
    url: str | None,
    tag: str | None,
    rate: float | None,
    pub: bool,
    loop: bool,
    wait: float,
    wait_clients: int,
    clients: int,
    buffers: int | None,
) -> None:
    """Send the events of SOURCE to other programs: over ZMQ, or as a shared-memory server does.

    They are read with psana_dask.open("tcp://HOST:PORT") and psana_dask.open("shmem://TAG").
    """
    if (url is None) == (tag is None):
        raise click.UsageError("say where to: --zmq tcp://HOST:PORT or --shmem TAG")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: shared memory is taken away
    opened = open_source(source, run, folder)
    if url is not None:
        _zmq(opened, url, rate, pub, loop, wait)
    else:
        from psana_dask.stream.shmem_server import serve_run

        click.echo(f"serving {opened.experiment} run {opened.number} as shmem://{tag}; Ctrl-C stops")
        sent = serve_run(
            str(tag), opened._recording, rate, loop=loop, wait=wait, clients=clients, buffers=buffers,
            wait_clients=wait_clients,
        )  # fmt: skip
        click.echo(sent)


def _zmq(opened: Any, url: str, rate: float | None, pub: bool, loop: bool, wait: float) -> None:
    from psana_dask.stream.replay import moments
    from psana_dask.stream.sending import Sender, repeated
    from psana_dask.stream.sending import serve as send

    with Sender(url, opened.format, "pub" if pub else "push") as sender:
        click.echo(f"serving {opened.experiment} run {opened.number} at {url}; Ctrl-C stops")
        time.sleep(wait)
        send(sender, repeated(lambda: moments(opened._recording), None if loop else 1), rate)
        sender.end()
        sent = sender.sent
    click.echo(f"sent {sent.events:,} events, {sent.bytes / 1e9:.3f} GB, in {sent.messages:,} messages")
