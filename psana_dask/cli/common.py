"""What commands share: how a source is named and opened."""

from __future__ import annotations

from typing import Any

import click

source_argument = click.argument("source", nargs=-1, required=True)
run_option = click.option("--run", type=int, help="Run number.")
dir_option = click.option("--dir", "folder", type=click.Path(), help="Folder of the files.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def run_list(text: str | None) -> list[int] | None:
    """Return the run numbers of ``5,8-10``; None for None."""
    from psana_dask.files import number_list

    return None if text is None else list(number_list(text))


def open_source(source: tuple[str, ...], run: int | None, folder: str | None, **options: Any) -> Any:
    """Open the run that the arguments of a command name."""
    from psana_dask.opening import open_run

    return open_run(source[0] if len(source) == 1 else list(source), run, dir=folder, **options)
