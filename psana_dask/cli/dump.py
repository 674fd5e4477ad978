"""Look at the bytes of files: ``dump``."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from typing import Any

import click

from psana_dask.cli.common import dir_option, json_option, run_option, source_argument


@click.command()
@source_argument
@run_option
@dir_option
@click.option("--offset", default=0, help="Begin with the first datagram at or behind this byte.")
@click.option("-n", "--count", type=click.IntRange(1), help="Stop after this many datagrams of a file.")
@click.option("--events", type=click.IntRange(1), help="Stop after this many events of a file.")
@click.option("--brief", is_flag=True, help="One line for each datagram.")
@click.option("--format", "form", type=click.Choice(["xtc", "xtc2"]), help="Read as this format.")
@json_option
def dump(
    source: tuple[str, ...],
    run: int | None,
    folder: str | None,
    offset: int,
    count: int | None,
    events: int | None,
    brief: bool,
    form: str | None,
    as_json: bool,
) -> None:
    """Show what is in files, byte by byte: datagrams, nesting, types, damage and decoded fields.

    Both formats, whole or damaged files: what is wrong is shown with its byte (!), and the look
    goes on behind it. With --json one object a line.
    """
    from psana_dask.dump import datagrams, lines, plain_json
    from psana_dask.files import find_runs

    paths = [p for s in source for r in find_runs(s, run, folder) for p in r.paths]
    for path in paths:
        if len(paths) > 1 and not as_json:
            click.echo(path)
        for item in _limited(datagrams(path, offset, form), count, events):
            if as_json:
                shown = {"file": path, **item}
                if brief:
                    shown.pop("containers", None)
                click.echo(json.dumps(plain_json(shown)))
            else:
                click.echo("\n".join(lines(item, brief=brief)))


def _limited(items: Iterable[Any], count: int | None, events: int | None) -> Iterator[Any]:
    """Yield items up to the given number of datagrams and of events."""
    seen = itertools.count(1)
    left = events
    for item in items:
        yield item
        if "service" not in item:
            continue
        if item["service"] == "L1_ACCEPT" and left is not None:
            left -= 1
        if next(seen) == count or left == 0:
            return
