"""Names of a package that are imported when they are first used.

A package lists them once, as the imports under ``if TYPE_CHECKING``: type checkers and editors read
these, and so does `on_first_use`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ast


def on_first_use(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of a package.

    Parameters
    ----------
    package : str
        Its ``__name__``. What it imports from itself are its modules.

    Examples
    --------
    >>> if TYPE_CHECKING:
    ...     from psana_dask.algorithms.hits import lit_pixels
    >>> __getattr__, __dir__ = on_first_use(__name__)
    """

    def attribute(name: str) -> Any:
        homes = _homes(package)
        if name not in homes:
            from psana_dask.errors import no_attribute

            raise no_attribute(package, name, homes)
        found = _imported(package, *homes[name])
        setattr(sys.modules[package], name, found)
        return found

    return attribute, lambda: sorted(_homes(package))


def _imported(package: str, module: str, name: str) -> Any:
    import importlib

    if module == package:
        return importlib.import_module(f"{package}.{name}")
    return getattr(importlib.import_module(module), name)


@functools.cache
def _homes(package: str) -> dict[str, tuple[str, str]]:
    """Return the module of each name, and what it is called there."""
    import ast
    import linecache

    held = vars(sys.modules[package])
    tree = ast.parse("".join(linecache.getlines(held["__file__"], held)))
    blocks = [node.body for node in tree.body if isinstance(node, ast.If) and _is_for_types(node)]
    imports = (node for block in blocks for node in block if isinstance(node, ast.ImportFrom))
    return {name: home for node in imports for name, home in _names(node)}


def _is_for_types(block: ast.If) -> bool:
    return getattr(block.test, "id", "") == "TYPE_CHECKING"


def _names(node: ast.ImportFrom) -> Iterator[tuple[str, tuple[str, str]]]:
    for alias in node.names:
        yield alias.asname or alias.name, (node.module or "", alias.name)
