"""psana: the mean image with laser and without, of events with beam; arguments: data set, output."""

import sys

import numpy as np
import psana

ds = psana.DataSource(sys.argv[1])
print("experiment", ds.env().experiment(), "instrument", ds.env().instrument(), "calib", ds.env().calibDir())
det = psana.Detector("jungfrau", ds.env())
evr = psana.Detector("evr0")
ebeam = psana.Detector("EBeam")
fee = psana.Detector("FEEGasDetEnergy")
temperature = psana.Detector("XPP:TEMP")

sums, counts, rows = {}, {"on": 0, "off": 0}, []
for nevent, evt in enumerate(ds.events()):
    codes = evr.eventCodes(evt)
    if codes is None or 162 in codes:
        continue
    beam, gas = ebeam.get(evt), fee.get(evt)
    if beam is None or gas is None:
        continue
    i0 = 0.5 * (gas.f_11_ENRC() + gas.f_12_ENRC())
    if beam.ebeamPhotonEnergy() < 9000 or np.isnan(i0):
        continue
    img = det.image(evt)
    if img is None:
        continue
    which = "on" if 90 in codes else "off"
    if which not in sums:
        sums[which] = np.zeros_like(img, dtype=np.float64)
    sums[which] += img
    counts[which] += 1
    evtid = evt.get(psana.EventId)
    seconds, nanoseconds = evtid.time()
    rows.append((nevent, seconds, nanoseconds, evtid.fiducials(), i0, temperature(evt)))

means = {which: sums[which] / counts[which] for which in sums}
np.savez(sys.argv[2], on=means["on"], off=means["off"], counts=[counts["on"], counts["off"]], rows=rows)
