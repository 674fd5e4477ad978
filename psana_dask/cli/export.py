"""Write what was chosen: ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from psana_dask.cli.common import dir_option, open_source, run_option
from psana_dask.errors import ExportError
from psana_dask.export.original import SUFFIXES, export_original, streams_of

ENDINGS = ".zarr, .h5, .nxs, .cxi, .parquet, or as the data do: .xtc2, .xtc"


@click.command()
@click.argument("source")
@click.argument("names", nargs=-1)
@run_option
@dir_option
@click.option("-o", "--output", required=True, type=click.Path(), help=f"Ends with {ENDINGS}.")
@click.option("--select", "condition", help='Events to keep: "gmd.milliJoulesPerPulse > 0.3 and step == 2".')
@click.option("--events", type=int, help="Only the first so many events (after --select).")
@click.option("--roi", multiple=True, metavar="DETECTOR:DIM=START:STOP", help="Region; may be repeated.")
@click.option("--photon-energy", help="Of .nxs and .cxi: eV, or DETECTOR.FIELD; else the accelerator's.")
@click.option("--distance", type=float, help="Of .nxs and .cxi: sample to detector, m; else the geometry's.")
@click.option("--per-file", type=int, help="Events in a CXI file, with lists for CrystFEL; -o is a folder.")
@click.option("--compression", type=click.Choice(["lz4", "zstd", "none"]), default="lz4", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace a finished export.")
@click.option("--begin", "step", flag_value="begin", help="Only make the skeleton, say how many pieces.")
@click.option("--piece", type=int, help="Only write this piece (for job arrays).")
@click.option("--finish", "step", flag_value="finish", help="Only put the complete export into place.")
def export(
    source: str,
    names: tuple[str, ...],
    run: int | None,
    folder: str | None,
    output: str,
    condition: str | None,
    events: int | None,
    roi: tuple[str, ...],
    photon_energy: str | None,
    distance: float | None,
    per_file: int | None,
    compression: str,
    overwrite: bool,
    step: str | None,
    piece: int | None,
) -> None:
    """Export NAMES (DETECTOR or DETECTOR.FIELD; everything by default) of a run to Zarr or HDF5.

    -o frames.nxs and frames.cxi take the frames of one detector (epix.calib) for DIALS and CrystFEL,
    -o table.parquet the scalars.

    With -o small.xtc2 (LCLS-II) or small.xtc (LCLS-1) whole events are copied into files of the run's own
    format; NAMES then choose the streams that carry these detectors.

    An export that was interrupted goes on where it stopped when the same command is given again.
    """
    from psana_dask import export as exports

    if step == "finish":
        click.echo(exports.finish(output))
        return
    chosen = _chosen(open_source((source,), run, folder), condition, events)
    if Path(output).suffix in SUFFIXES:
        _export_original(chosen, output, names, roi, overwrite)
        return
    wanted = exports.Wanted(names or None, _regions(roi), False, _number(photon_energy), distance)
    codec = None if compression == "none" else compression
    if per_file is not None:
        _export_crystfel(chosen, output, wanted, per_file, codec, overwrite)
        return
    if step == "begin":
        _, plan = exports.begin(chosen, output, wanted, compression=codec, overwrite=overwrite)
        click.echo(len(plan.pieces))
    elif piece is not None:
        exports.write_piece(chosen, output, piece, wanted, compression=codec)
    else:
        _export(chosen, output, wanted, codec, overwrite)


def _export_crystfel(
    run: Any, output: str, wanted: Any, per_file: int, codec: str | None, overwrite: bool
) -> None:
    from psana_dask.export.crystfel_lists import export_crystfel
    from psana_dask.progress import StepProgress

    with StepProgress("crystfel") as progress:
        path = export_crystfel(
            run, output, wanted.names, per_file=per_file, photon_energy=wanted.photon_energy,
            distance=wanted.distance, compression=codec, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    click.echo(path)


def _export_original(
    run: Any, output: str, names: tuple[str, ...], roi: tuple[str, ...], overwrite: bool
) -> None:
    """Export whole datagrams; names choose the streams that carry these detectors."""
    if roi:
        raise ExportError(f"--roi and {output}: datagrams are copied whole; write .zarr or .h5")
    streams = streams_of(run, names) if names else None
    files = export_original(run, output, streams, overwrite=overwrite)
    click.echo(f"{output}: {len(run):,} events in {len(files)} files")


def _export(run: Any, output: str, wanted: Any, compression: str | None, overwrite: bool) -> None:
    from psana_dask.export import export as export_run
    from psana_dask.progress import StepProgress

    with StepProgress(Path(output).name) as progress:
        path = export_run(
            run, output, wanted.names, roi=wanted.roi, photon_energy=wanted.photon_energy,
            distance=wanted.distance, compression=compression, overwrite=overwrite, progress=progress,
        )  # fmt: skip
    click.echo(f"{path}: {len(run):,} events")


def _number(text: str | None) -> float | str | None:
    """Return a number, or the name of a field."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def _chosen(run: Any, condition: str | None, events: int | None) -> Any:
    """Return the run with the events that are wanted."""
    from psana_dask.conditions import events_where

    if condition is not None:
        run = run.select(events_where(run, condition))
    return run if events is None else run.isel(slice(events))


def _regions(texts: tuple[str, ...]) -> dict[str, dict[str, slice]] | None:
    """Return regions from texts such as ``epixquad:row=10:20``."""
    regions: dict[str, dict[str, slice]] = {}
    for text in texts:
        detector, _, rest = text.partition(":")
        dim, _, extent = rest.partition("=")
        ends = extent.split(":")
        if not dim or len(ends) != 2 or not all(e == "" or e.lstrip("-").isdigit() for e in ends):
            raise ExportError(f"--roi {text}: say DETECTOR:DIMENSION=START:STOP, such as epix:row=10:20")
        start, stop = (int(e) if e else None for e in ends)
        regions.setdefault(detector, {})[dim] = slice(start, stop)
    return regions or None
