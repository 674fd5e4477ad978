"""How the pages become a site: ``python -m sphinx -W -b html docs build/docs``.

The tutorial is made of the notebooks. They are not run here: the tests do that, and leave what they ran in
``$CI_ARTEFACTS/notebooks``; ``PSANA_DASK_NOTEBOOKS`` names another folder. Without, pages have no outputs.
"""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import psana_dask

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "psana_dask"
author = "The psana_dask developers"
copyright = author
version = release = psana_dask.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_render_text_lexer = "none"

html_theme = "pydata_sphinx_theme"
html_title = "psana_dask"
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_sidebars = {"tasks": []}  # a table that wants the whole width
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
}

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say it in words
napoleon_google_docstring = False
napoleon_use_rtype = False
default_role = "py:obj"
suppress_warnings = ["ref.python"]  # a name in backticks that several classes have
python_maximum_signature_line_length = 100


CLASSES = {
    "run.evr": "psana_dask.evr.Evr",
    "run": "psana_dask.run.Run",
    "det": "psana_dask.detector.Detector",
    "analysis": "psana_dask.analysis",
}
"""What the table of calls says, and where the reference has it."""


def _reference(call: str) -> str:
    """Return the name that a call of the table has in the reference: ``psana_dask.run.Run.mean``."""
    head = next((head for head in CLASSES if call.startswith(f"{head}.")), None)
    return call if head is None else f"{CLASSES[head]}{call.removeprefix(head)}"


def _link_to_docstrings(app: object, page: str, source: list[str]) -> None:
    """Let the links of the tasks lead to the docstrings; as plain files they lead to rows of a table."""
    if page == "tasks":
        source[0] = re.sub(r"\(api\.md#([\w.]+)\)", lambda m: f"(#{_reference(m[1])})", source[0])


def _widths_of_columns(app: Any, page: str, *more: object) -> None:
    """Give the columns of the tasks their widths."""
    if page == "tasks":
        app.add_css_file("tasks.css")


def setup(app: Any) -> None:
    """Take part in reading pages."""
    app.connect("source-read", _link_to_docstrings)
    app.connect("html-page-context", _widths_of_columns)


def _notebooks() -> Path:
    """Return the folder of the notebooks, with outputs where there are any."""
    named = os.environ.get("PSANA_DASK_NOTEBOOKS")
    ran = Path(os.environ.get("CI_ARTEFACTS", ROOT / "artefacts")) / "notebooks"
    return Path(named) if named else ran if ran.is_dir() else ROOT / "notebooks"


def _copy_notebooks() -> None:
    """Put the notebooks where the pages are: those with outputs, else those without."""
    (HERE / "tutorial").mkdir(exist_ok=True)
    for plain in sorted((ROOT / "notebooks").glob("*.ipynb")):
        with_outputs = _notebooks() / plain.name
        shutil.copy(with_outputs if with_outputs.exists() else plain, HERE / "tutorial" / plain.name)


_copy_notebooks()
