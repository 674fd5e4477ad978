"""psana: small data as the beam lines' producers make them; arguments: data set, output, events."""

import sys

import numpy as np
import psana

ds = psana.MPIDataSource(sys.argv[1])
small = ds.small_data(sys.argv[2], gather_interval=5)
if len(sys.argv) > 3:
    ds.break_after(int(sys.argv[3]))
env = ds.env()
names = [alias or name for name, alias, _ in psana.DetNames()]
if ds.rank == 0:
    print(names, psana.DetNames("epics"))

evr = psana.Detector("evr0")
ipms = {name: psana.Detector(name) for name in names if "ipm" in name.lower()}
det = psana.Detector("jungfrau")
opal = psana.Detector("opal")
pvs = {name: psana.Detector(name) for name in env.epicsStore().names()}
absent = psana.Detector("cspad", accept_missing=True)

run = next(iter(ds.events())).run()
mask = det.mask(run, status=True, unbond=True, unbondnbrs=True, edges=True, central=True)
pedestals, x = det.pedestals(run), det.coords_x(run)
assert mask.shape == x.shape == det.shape(run) == pedestals.shape[1:]
user = {"jungfrau": {"mask": mask, "x": x, "y": det.coords_y(run)}}

total = None
for nevt, evt in enumerate(ds.events()):
    codes = evr.eventCodes(evt)
    row = {"lightStatus": {"xray": int(codes is not None and 162 not in codes),
                           "laser": int(codes is not None and 90 in codes)}}  # fmt: skip
    for name, ipm in ipms.items():
        try:
            row[name] = {"sum": ipm.sum(evt), "xpos": ipm.xpos(evt), "channels": ipm.channel(evt)}
        except Exception as error:
            print(name, error)
    row["epics"] = {name.replace(":", "_"): pv(evt) for name, pv in pvs.items()}
    assert absent.raw(evt) is None
    frame = opal.raw(evt)
    if frame is not None:
        row["opal"] = {"sum": frame.sum(), "projection": frame[4:20].sum(axis=0)}
    calibrated = det.calib(evt, cmpars=(7, 1, 100))
    if calibrated is not None:
        good = np.where(mask == 0, 0, calibrated)
        roi = good[1, 10:20, 30:40]
        row["jungfrau"] = {"ROI_0": roi, "ROI_0_sum": roi.sum(), "lit": int((good > 20).sum())}
        total = good.astype(np.float64) if total is None else total + good
    small.event(row)

small.save({"Sums": {"jungfrau_calib": small.sum(total)}, "UserDataCfg": user}, note="done")
