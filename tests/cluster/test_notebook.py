"""The notebook about the batch system runs on a real one."""


def test_the_notebook_runs_on_slurm(slurm, run_notebook):
    notebook = run_notebook("06-slurm", again=True)
    outputs = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    shown = ["".join(out["text"]) for out in outputs if "text" in out]
    assert any("SlurmJobs 1 worker" in text for text in shown), shown
    assert "equal to the last bit" in shown[-1]
