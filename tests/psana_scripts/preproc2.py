"""psana2: small data of a run with a time tool, a scan and EPICS; arguments: folder, output."""

import os
import sys

from psana import DataSource

os.environ["PS_SRV_NODES"] = "1"
seen = []
ds = DataSource(exp="tstx00117", run=7, dir=sys.argv[1], batch_size=4, max_events=30)
myrun = next(ds.runs())
print(myrun.expt, myrun.runnum, myrun.timestamp, sorted(myrun.detnames))
print(sorted(myrun.detinfo), sorted(myrun.epicsinfo), sorted(myrun.scaninfo))
opal, gmd, timing = (myrun.Detector(name) for name in ("tt", "gmd", "timing"))
temperature, valve = myrun.Detector("temperature"), myrun.Detector("TST:VALVE")
wave = myrun.Detector("wave")
missing = myrun.Detector("nosuch", accept_missing=True)

smd = ds.smalldata(filename=sys.argv[2], batch_size=5, callbacks=[seen.append])
image_sum, used = None, 0
for nevt, evt in enumerate(myrun.events()):
    codes = timing.raw.eventcodes(evt)
    energy, temp = gmd.raw.milliJoulesPerPulse(evt), temperature(evt)
    if codes is None or energy is None:
        continue
    row = {"timing": {"codes": codes, "pulseId": timing.raw.pulseId(evt)}, "gmd": {"mj": energy}}
    if temp is not None:
        row["epics"] = {"temp": temp, "valve": valve(evt)}
    img = opal.raw.image(evt)
    if img is not None:
        row["tt"] = {"ampl": opal.fex.ampl(evt), "fltpos": opal.fex.fltpos(evt), "line": img.sum(axis=0)}
        image_sum = img.astype(float) if image_sum is None else image_sum + img
        used += 1
    waveform = wave.raw.waveform(evt)
    if waveform is not None:
        row["wave"] = waveform
    assert missing.raw.raw(evt) is None
    assert evt._seconds == evt.timestamp >> 32 and evt._nanoseconds == evt.timestamp & 0xFFFFFFFF
    assert evt.run().runnum == myrun.runnum and evt.run().expt == "tstx00117"
    smd.event(evt, row, nevt=nevt)
image_sum = smd.sum(image_sum)
if smd.summary:
    smd.save_summary({"opal_mean": image_sum / used}, used=smd.sum(used))
smd.done()
print(len(seen), "rows", ds.unique_user_rank(), ds.is_srv())
