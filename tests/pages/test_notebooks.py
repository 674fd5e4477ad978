"""Every notebook runs, finds its known answer, and is stored without outputs."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def outputs(notebook, kind):
    """Return what the cells show of one kind of content."""
    shown = [out for cell in cells(notebook) for out in cell["outputs"]]
    return [out["data"][kind] for out in shown if kind in out.get("data", {})]


def test_there_is_a_notebook_for_each_topic():
    topics = ("first-look", "calibration-and-geometry", "scan-and-laser", "random-access-and-selection",
              "live-monitoring", "slurm", "export-and-laptop")  # fmt: skip
    assert [f"{k:02d}-{topic}" for k, topic in enumerate(topics, 1)] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_are_stored_without_outputs(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text())
    for cell in cells(notebook):
        assert cell["outputs"] == [], "clear the outputs: jupyter nbconvert --clear-output --inplace"
        assert cell["execution_count"] is None


@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run_and_find_what_is_known(run_notebook, name):
    notebook = run_notebook(name)
    *_, last = cells(notebook)
    assert "assert " in "".join(last["source"]), "a notebook ends with its known answer"
    assert [out["output_type"] for out in last["outputs"]] == ["stream"]
    assert outputs(notebook, "image/png") or outputs(notebook, "text/html")
