"""psana2: steps of a scan, then events by their timestamps; arguments: folder, output."""

import pickle
import sys

import numpy as np
from psana import DataSource

where = {"exp": "tstx00117", "run": 7, "dir": sys.argv[1]}
ds = DataSource(**where)
steps, stamps = [], []
for run in ds.runs():
    gmd, delay = run.Detector("gmd"), run.Detector("delay")
    value, docstring = run.Detector("step_value"), run.Detector("step_docstring")
    for nstep, step in enumerate(run.steps()):
        energies = []
        for evt in step.events():
            energy = gmd.raw.milliJoulesPerPulse(evt)
            if energy is None:
                continue
            energies.append(energy)
            if energy > 1.0:
                stamps.append(evt.timestamp)
            assert delay(evt) == delay(step)
        steps.append((nstep, value(step), docstring(step), delay(step), len(energies), np.mean(energies)))
print(steps)

ds = DataSource(**where, timestamps=np.array(stamps, dtype=np.uint64))
run = next(ds.runs())
gmd = run.Detector("gmd")
bright = [(evt.timestamp, gmd.raw.milliJoulesPerPulse(evt)) for evt in run.events()]

run = next(DataSource(**where).runs())
gmd, epix = run.Detector("gmd"), run.Detector("epix")
with run.build_table() as success:
    if success:
        jumped = [(t, gmd.raw.milliJoulesPerPulse(run.event(t))) for t in reversed(stamps)]


def chosen(run):
    """Yield the events with much light, before anything large is read."""
    gmd = run.Detector("gmd")
    for evt in run.events():
        energy = gmd.raw.milliJoulesPerPulse(evt)
        if energy is not None and energy > 1.0:
            yield evt


frames = {}
for run in DataSource(**where, smd_callback=chosen, small_xtc=["gmd"]).runs():
    epix = run.Detector("epix")
    for evt in run.events():
        frames[evt.timestamp] = epix.raw.raw(evt)
result = {"steps": steps, "stamps": stamps, "bright": bright, "jumped": jumped, "frames": frames}
with open(sys.argv[2], "wb") as file:
    pickle.dump(result, file)
