"""A table of an experiment: ``summary``."""

from __future__ import annotations

import json

import click

from psana_dask.cli.common import dir_option, json_option, run_list


@click.command()
@click.argument("experiment")
@dir_option
@click.option("-o", "--output", type=click.Path(dir_okay=False), help=".html, .parquet or .csv.")
@click.option("--columns", "column", help="module:function or file.py:function of a run.")
@click.option("--runs", help="Only these: 5,8-10.")
@click.option("--refresh", is_flag=True, help="Work out what is kept of earlier times, too.")
@json_option
def summary(
    experiment: str, folder: str | None, output: str | None, column: str | None, runs: str | None,
    refresh: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a table of EXPERIMENT: one row a run, with columns of your own.

    Runs that were looked at before are not read again.
    """
    from psana_dask.experiment_table import check_table_name, named_function, write_table
    from psana_dask.experiment_table import summary as make
    from psana_dask.progress import StepProgress

    if output:
        check_table_name(output)
    columns = None if column is None else named_function(column)
    with StepProgress("summary") as progress:
        table = make(
            experiment, columns, dir=folder, runs=run_list(runs), refresh=refresh,
            progress=None if as_json else progress,
        )  # fmt: skip
    if output:
        write_table(table, output, f"Summary of {experiment}")
        click.echo(output, err=True)
    if as_json:
        rows = table.reset_index().to_json(orient="records", date_format="iso", date_unit="ns")
        click.echo(json.dumps(json.loads(rows), indent=1))
    elif not output:
        click.echo(table.to_string(max_colwidth=60))
