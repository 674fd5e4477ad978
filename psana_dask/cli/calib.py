"""Look at constants, put them in force, take them back: ``calib``.

STORE is a calib directory, the address of the LCLS-II service, or ``web`` for its usual
address (with --experiment).
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from psana_dask.calib.constants import LAST_RUN, Constants, kind_of
from psana_dask.calib.deploying import deploy as deploy_constants
from psana_dask.calib.exchange import change, facts, load_constant, save_constant
from psana_dask.calib.localstore import Deployment, LocalStore
from psana_dask.calib.store import Listed, Lookup, difference
from psana_dask.calib.webdb import WebStore
from psana_dask.cli.common import json_option
from psana_dask.errors import ConstantsError, ConstantsNotFound
from psana_dask.stores import named_store

store_argument = click.argument("store")
detector_argument = click.argument("detector")
kind_argument = click.argument("kind")
run_option = click.option("--run", type=int, default=LAST_RUN, help="Run number; by default runs to come.")
experiment_option = click.option("-e", "--experiment", default="", help="For the LCLS-II service.")
comment_option = click.option("--comment", default="", help="For the HISTORY of the store.")
picture_option = click.option("-o", "--output", type=click.Path(dir_okay=False), help="Picture: .png, .pdf.")



@click.group()
def calib() -> None:
    """Look at calibration constants, put them in force, take them back.

    STORE is a calib directory, the address of the LCLS-II service, or "web" for its usual address
    (with --experiment).
    """


def _print(value: Any, as_json: bool, text: str) -> None:
    click.echo(json.dumps(value, indent=1, default=str) if as_json else text)


def _writable(store: str) -> LocalStore:
    if store == "web" or "://" in store:
        raise ConstantsError("the LCLS-II service is read only here: deploy to a folder")
    return LocalStore(Path(store))


def _found(store: str, experiment: str, detector: str, kind: str, run: int) -> tuple[Lookup, Constants]:
    lookup = named_store(store, experiment).find(detector, kind_of(kind).name, run)
    return lookup, lookup.found()


# ---- look ---------------------------------------------------------------------------------------
@calib.command("ls")
@store_argument
@click.argument("detector", required=False)
@click.option("--kind", help="Only this kind.")
@click.option("--run", type=int, help="Only what is in force for this run.")
@experiment_option
@json_option
def list_constants(
    store: str, detector: str | None, kind: str | None, run: int | None, experiment: str, as_json: bool
) -> None:
    """List the constants of a store."""
    place = named_store(store, experiment)
    rows = [row for row in place.listing(detector) if kind in (None, row.kind)]
    if run is not None:
        rows = _in_force(place, rows, run)
    facts_of = [{**asdict(row), "runs": str(row.runs)} for row in rows]
    lines = [f"{r.detector:34} {r.kind:14} {r.runs!s:10} {r.created:26} {r.origin}" for r in rows]
    _print(facts_of, as_json, "\n".join(lines) or f"no constants in {place.name}")


def _in_force(place: Any, rows: list[Listed], run: int) -> list[Listed]:
    origins = set()
    for detector, kind in dict.fromkeys((row.detector, row.kind) for row in rows):
        constant = place.find(detector, kind, run).constants
        origins.add(None if constant is None else constant.origin)
    return [row for row in rows if row.origin in origins]


@calib.command()
@store_argument
@detector_argument
@kind_argument
@run_option
@experiment_option
@picture_option
@json_option
def show(
    store: str, detector: str, kind: str, run: int, experiment: str, output: str | None, as_json: bool
) -> None:
    """Say which constant is in force for a run, why, and what is in it; draw it with -o."""
    lookup, constant = _found(store, experiment, detector, kind, run)
    known = {**facts(constant), "looked": [str(step) for step in lookup.steps]}
    lines = [f"{key:10} {value}" for key, value in known.items() if value != "" and key != "looked"]
    _print(known, as_json, "\n".join([lookup.explain(), *lines]))
    if output:
        _draw(constant, output, f"{kind} of {detector}, runs {constant.runs}")


def _draw(constant: Constants, output: str, title: str) -> None:
    from psana_dask.calib.detectors import row_of_folder
    from psana_dask.calib.figure import draw_constant

    draw_constant(constant, output, title, row_of_folder(constant.origin).decoding.ranges)
    click.echo(output, err=True)


@calib.command()
@store_argument
@detector_argument
@kind_argument
@run_option
@experiment_option
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help=".npy, or text.")
@json_option
def get(
    store: str, detector: str, kind: str, run: int, experiment: str, output: str, as_json: bool
) -> None:
    """Write the constant in force to a file: .npy, or the text format of calib directories."""
    _, constant = _found(store, experiment, detector, kind, run)
    save_constant(constant, Path(output))
    text = f"{output}: {kind} of {detector}, runs {constant.runs}, from {constant.origin}"
    _print({"output": output, **facts(constant)}, as_json, text)


@calib.command()
@store_argument
@detector_argument
@kind_argument
@run_option
@click.option("--file", "path", type=click.Path(exists=True), help="Compare this file with what is in force.")
@click.option("--other-run", type=int, help="Compare what is in force for this run.")
@click.option("--other-store", help="Compare what is in force in this store.")
@experiment_option
@picture_option
@json_option
def diff(
    store: str, detector: str, kind: str, run: int, path: str | None, other_run: int | None,
    other_store: str | None, experiment: str, output: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Say how a file, or the constant of another run or store, differs from the one in force."""
    _, old = _found(store, experiment, detector, kind, run)
    if path is not None:
        new = load_constant(Path(path), kind)
    elif other_run is None and other_store is None:
        raise click.UsageError("say what to compare: --file, --other-run or --other-store")
    else:
        new = _found(other_store or store, experiment, detector, kind, other_run or run)[1]
    found = difference(new, old)
    _print({**asdict(found), "new": new.origin, "old": old.origin}, as_json,
           f"{found}\n  new: {new.origin}\n  old: {old.origin}")  # fmt: skip
    if output:
        title = f"{kind} of {detector}: {new.origin} minus {old.origin}"
        _draw(replace(change(new, old), origin=old.origin), output, title)


@calib.command()
@store_argument
@click.argument("detector", required=False)
@json_option
def validate(store: str, detector: str | None, as_json: bool) -> None:
    """Read every constant of a calib directory and say what is wrong; exit status 1 if anything is."""
    place = named_store(store)
    if isinstance(place, WebStore):
        raise ConstantsError("the LCLS-II service checks its documents itself: validate a folder")
    sources = place.detectors() if detector is None else [detector]
    if not sources or (detector is not None and not place.has(detector)):
        raise ConstantsNotFound(f"nothing to validate in {store}: no folder of {detector or 'any detector'}")
    every = {f"{s}/{k}": place.problems(s, k) for s in sources for k in place.kinds(s)}
    found = {where: problems for where, problems in every.items() if problems}
    lines = [f"{where}: {what}" for where, problems in found.items() for what in problems]
    _print(found, as_json, "\n".join(lines) or f"{store}: no problems")
    if found:
        raise SystemExit(1)


# ---- change -------------------------------------------------------------------------------------
def deployment_facts(done: Deployment) -> dict[str, Any]:
    """Return what a deployment did, for JSON."""
    return {"path": str(done.path), "backup": done.backup and str(done.backup), "done": done.done,
            "difference": asdict(done.difference)}  # fmt: skip


def deployment_text(done: Deployment) -> str:
    """Return what a deployment did, as a line."""
    verb = "wrote" if done.done else "would write"
    backup = f" (the old one is kept as {done.backup.name})" if done.backup else ""
    return f"{verb} {done.path}{backup}; {done.difference}"


@calib.command()
@store_argument
@detector_argument
@kind_argument
@click.argument("path", type=click.Path(exists=True, dir_okay=False))
@click.option("--runs", required=True, help="10-20, 10-end, or 10 for run 10 and all after it.")
@comment_option
@click.option("--dry-run", is_flag=True, help="Say what would happen, write nothing.")
@json_option
def deploy(
    store: str, detector: str, kind: str, path: str, runs: str, comment: str, dry_run: bool, as_json: bool
) -> None:
    """Put the constant of a file (.npy or text) in force for a range of runs."""
    options: dict[str, Any] = {"comment": comment, "dry_run": dry_run}
    [done] = deploy_constants(load_constant(Path(path), kind), _writable(store), detector, runs, **options)
    _print(deployment_facts(done), as_json, deployment_text(done))


@calib.command()
@store_argument
@detector_argument
@click.argument("kind", required=False)
@json_option
def history(store: str, detector: str, kind: str | None, as_json: bool) -> None:
    """Say what was deployed and taken back, oldest first."""
    place = _writable(store)
    kinds = place.kinds(detector) if kind is None else (kind,)
    rows = [{"kind": k, **asdict(line)} for k in kinds for line in place.history(detector, k)]
    lines = ["{time:28} {action:7} {kind:14} {file:16} {user:10} {comment}".format(**row) for row in rows]
    _print(rows, as_json, "\n".join(lines) or f"no history of {detector} in {store}")


@calib.command()
@store_argument
@detector_argument
@kind_argument
@comment_option
@json_option
def undo(store: str, detector: str, kind: str, comment: str, as_json: bool) -> None:
    """Take the last deployment of a kind back."""
    last = _writable(store).undo(detector, kind, comment=comment)
    _print(asdict(last), as_json, f"took back {kind} {last.file}, deployed {last.time} by {last.user}")
