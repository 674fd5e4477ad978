"""Judge a run: ``quality``."""

from __future__ import annotations

import json
import math
from typing import Any

import click

from psana_dask.cli.common import dir_option, json_option, open_source, run_option, source_argument

SHOWN = ("present", "missing", "damaged", "longest_absence", "saturated", "dead", "hot")


@click.command()
@source_argument
@run_option
@dir_option
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Write an HTML page there.")
@click.option("--sample", default=32, show_default=True, help="Events read of each detector.")
@click.option("--dropped-code", default=162, show_default=True, help="Event code of shots without beam.")
@json_option
def quality(
    source: tuple[str, ...],
    run: int | None,
    folder: str | None,
    output: str | None,
    sample: int,
    dropped_code: int,
    as_json: bool,
) -> None:
    """Judge a run: what is missing, damaged, late, saturated, dead, hot, off by one."""
    from psana_dask.checks import findings
    from psana_dask.checks import quality as judge

    opened = open_source(source, run, folder)
    found = judge(opened, dropped_code=dropped_code, sample=sample, html=output)
    said = findings(found)
    if as_json:
        facts = {name: _plain(value) for name, value in found.attrs.items()}
        rows = {**_by(found, "detector"), **_by(found, "scalar")}
        click.echo(json.dumps({**facts, "findings": said, **rows}))
        return
    click.echo("\n".join(said) or "Nothing conspicuous.")
    click.echo(found[list(SHOWN)].to_dataframe().to_string(na_rep="-"))
    if output:
        click.echo(output)


def _by(found: Any, dim: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the variables along one dimension as plain values; what is not known is null."""
    names = [n for n, v in found.data_vars.items() if v.dims == (dim,)]
    rows = {str(k): {str(n): _plain(found[n].sel({dim: k}).item()) for n in names} for k in found[dim].values}
    return {f"{dim}s": rows}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
