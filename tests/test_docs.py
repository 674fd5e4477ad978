"""Every public name and every command is in the documents; what they name exists."""

import ast
import re
from pathlib import Path

import psana_dask
from psana_dask.cli import COMMANDS
from psana_dask.detector import Detector
from psana_dask.results import EventResults
from psana_dask.run import Run
from psana_dask.runs import Runs

ROOT = Path(__file__).parents[1]


def test_every_name_of_the_package_is_importable_and_documented():
    text = (ROOT / "docs/api.md").read_text()
    for name in psana_dask.__all__:
        assert getattr(psana_dask, name) is not None
        assert name in ("Run", "errors") or f"psana_dask.{name}" in text or f"`{name}`" in text, name


def test_every_public_attribute_is_documented():
    text = (ROOT / "docs/api.md").read_text()
    for kind in (Run, EventResults, Detector, Runs):
        for name in vars(kind):
            if not name.startswith("_"):
                assert re.search(rf"\b{name}\b", text) or name in COORDINATES, f"{kind.__name__}.{name}"


COORDINATES = {"time", "timestamp", "step", "pulse_id", "panel", "name", "alias", "det_type", "facts"}


def test_every_command_is_documented():
    readme = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"psana-dask {command}" in readme, command


def test_the_map_in_the_readme_names_every_module():
    readme = (ROOT / "README.md").read_text()
    for path in (ROOT / "psana_dask").glob("*.py"):
        if not path.stem.startswith("__"):
            assert f"`{path.stem}`" in readme, path.stem


def rows_of_the_map():
    """Return which row of the map each module is in."""
    text = (ROOT / "README.md").read_text()
    rows = [line for line in text[text.index("## Architecture") :].splitlines() if line.startswith("| ")]
    named = [
        (name, k) for k, row in enumerate(rows) for name in re.findall(r"`(\w+)/?`", row.split(" | ")[0])
    ]
    return dict(reversed(named))


def imported(tree):
    """Yield the modules of the package that a file imports, also lazily; not those for types only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("psana_dask."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "psana_dask":
            yield from (name.name for name in node.names)
        yield from imported(node)


def test_a_module_imports_only_from_below_in_the_map():
    rows, count = rows_of_the_map(), 0
    for path in (ROOT / "psana_dask").rglob("*.py"):
        own = path.relative_to(ROOT / "psana_dask").parts[0].removesuffix(".py")
        if own.startswith("__"):
            continue
        for other in imported(ast.parse(path.read_text())):
            if other in rows:
                count += 1
                assert rows[own] <= rows[other], f"{path.name} of {own} imports {other}, which is above it"
    assert count > 1000
