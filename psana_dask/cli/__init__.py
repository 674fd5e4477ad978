"""The command line: parse, call, print."""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import Any

import click

from psana_dask import __version__
from psana_dask.errors import PsanaError, suggestion

COMMANDS = {
    "info": "look",
    "ls": "look",
    "index": "look",
    "summary": "summary",
    "watch": "watch",
    "export": "export",
    "show": "show",
    "dump": "dump",
    "quality": "quality",
    "serve": "serve",
    "monitor": "monitor",
    "calib": "calib",
    "dark": "dark",
    "geometry": "geometry",
    "browse": "browse",
    "simulate": "tour",
    "demo": "tour",
    "bench": "tour",
}
"""Module of each command, imported when the command is used."""


class Commands(click.Group):
    """The commands of the table; errors of this package become one line and exit status 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return one command."""
        if name not in COMMANDS:
            return None
        return getattr(importlib.import_module(f"psana_dask.cli.{COMMANDS[name]}"), name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; a wrong name is told the nearest ones."""
        if args and args[0] not in COMMANDS:
            ctx.fail(f"no command {args[0]!r}{suggestion(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C leaves quietly with status 130."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                warnings.simplefilter("ignore", ResourceWarning)  # nothing that a user can do
                warnings.showwarning = _show_warning
                return super().invoke(ctx)
        except (PsanaError, ValueError) as error:
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            sys.exit(130)


def _show_warning(message: Warning | str, *rest: Any, **named: Any) -> None:
    del rest, named
    click.echo(f"warning: {message}", err=True)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Look at LCLS runs: psana-dask COMMAND --help says more.

    SOURCE is a file, several files, a glob, a folder, an experiment name with --run, or a
    data set string such as exp=xpptut15:run=54.
    """
