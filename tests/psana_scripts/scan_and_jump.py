"""psana: what each step of a scan holds; then back to the brightest events by their times.

Arguments: data set without mode, a text file for the times, output.
"""

import pickle
import sys

import numpy as np
from psana import DataSource, Detector, EventId, EventTime

data, times_file, output = sys.argv[1:4]
ds = DataSource(data + ":smd")
control, ipm, gas = Detector("ControlData"), Detector("XppSb2_Ipm"), Detector("FEEGasDetEnergy")

steps, seen = [], []
for run in ds.runs():
    for nstep, step in enumerate(run.steps()):
        (pv,) = control().pvControls()
        values = []
        for evt in step.events():
            values.append(ipm.sum(evt))
            pulse = gas.get(evt)
            if pulse is None:
                continue
            evtid = evt.get(EventId)
            sec, nsec = evtid.time()
            seen.append((pulse.f_11_ENRC(), sec, nsec, evtid.fiducials()))
        steps.append((nstep, pv.name(), pv.value(), len(values), np.mean(values)))
for step in steps:
    print("step %d: %s = %.3f, %d events, mean %.4f" % step)

brightest = sorted(seen, reverse=True)[:5]
with open(times_file, "w") as file:
    for _, sec, nsec, fiducial in brightest:
        file.write("%d %d %d\n" % (sec, nsec, fiducial))

ds = DataSource(data + ":idx")
run = next(ds.runs())
print(len(run.times()), "events in", run.nsteps(), "steps of run", run.run())
opal, gas, found = Detector("opal"), Detector("FEEGasDetEnergy"), []
with open(times_file) as lines:
    kept = [tuple(map(int, line.split())) for line in lines]
for sec, nsec, fiducial in kept:
    evt = run.event(EventTime(int((sec << 32) | nsec), fiducial))
    frame = opal.raw(evt)
    found.append((gas.get(evt).f_11_ENRC(), -1 if frame is None else int(frame.sum())))
last = run.event(run.times()[-1])
result = {"steps": steps, "brightest": brightest, "found": found, "last": last.get(EventId).time()}
with open(output, "wb") as file:
    pickle.dump(result, file)
