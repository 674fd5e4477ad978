"""Work on runs as they appear: ``watch``."""

from __future__ import annotations

from pathlib import Path

import click

from psana_dask.cli.common import dir_option


@click.command()
@click.argument("experiment")
@dir_option
@click.option("-o", "--output", type=click.Path(file_okay=False), help="Folder; by default EXPERIMENT-watch.")
@click.option("--dark-runs", help="Runs without beam: 5,8-10; 5+6+7 is one dark in three gain ranges.")
@click.option("--dark-rule", help="module:function or file.py:function: of a run True, or detectors.")
@click.option("--detectors", help="Of --dark-runs, with commas; by default all with frames.")
@click.option("--columns", "column", help="module:function or file.py:function of a run, for the summary.")
@click.option("--calib", help="Where constants come from: a calib directory, or web.")
@click.option("--once", is_flag=True, help="Look once and leave: for cron.")
@click.option("--every", type=float, default=30.0, show_default=True, help="Seconds between two looks.")
@click.option("--settle", type=float, default=30.0, show_default=True,
              help="Seconds without a change after which a run is complete.")
@click.option("--sample", type=int, default=32, show_default=True, help="Frames that quality looks at.")
@click.option("--memory", type=float, default=2.0, show_default=True, help="GiB that darks may use.")
def watch(
    experiment: str, folder: str | None, output: str | None, dark_runs: str | None, dark_rule: str | None,
    detectors: str | None, column: str | None, calib: str | None, once: bool, every: float, settle: float,
    sample: int, memory: float,
) -> None:  # fmt: skip
    """Make pages of quality, the summary and constants from dark runs as the runs of EXPERIMENT appear.

    Constants are proposed, never put in force. A run is dark if its scan says so (LCLS-II pedestal
    scans), if --dark-runs names it, or if --dark-rule says so. Ctrl-C ends it; started again, it
    goes on where it was.
    """
    from psana_dask.dark_rules import dark_groups
    from psana_dask.experiment_table import named_function
    from psana_dask.watching import Watch, WatchSettings

    settings = WatchSettings(
        Path(output or f"{Path(experiment).name}-watch"),
        None if column is None else named_function(column),
        () if dark_runs is None else dark_groups(dark_runs),
        None if dark_rule is None else named_function(dark_rule),
        tuple(detectors.split(",")) if detectors else (),
        settle, sample, int(memory * 2**30), {} if calib is None else {"calib": calib},
    )  # fmt: skip
    try:
        Watch(experiment, folder, settings, click.echo).keep_looking(every, 1 if once else None)
    except KeyboardInterrupt:
        click.echo("stopped: started again, it goes on where it was", err=True)
        raise
