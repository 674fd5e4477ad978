"""The notebook about the batch system runs on a real one."""


def test_the_notebook_runs_on_slurm(slurm, run_notebook):
    notebook = run_notebook("06-slurm")
    shown = [out["text"] for cell in notebook["cells"] for out in cell.get("outputs", []) if "text" in out]
    assert any("SLURMCluster 1 worker" in text for text in shown), shown
    assert "equal to the last bit" in shown[-1]
