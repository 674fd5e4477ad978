"""psana2: waveforms and peaks of an hsd, frames with constants and masks; arguments: files ..., output."""

import pickle
import sys

import numpy as np
from psana import DataSource

ds = DataSource(files=sys.argv[1:-1])
run = next(ds.runs())
hsd, det = run.Detector("hsd"), run.Detector("jf")
result = {"waves": {}, "calib": {}, "raw": {}, "sum": 0.0}
print(det._dettype, det._detid, det.raw._uniqueid, det.raw._sorted_segment_inds)
for segment, config in det.raw._seg_configs().items():
    print(segment, config.config.user.gainMode)
result["constants"] = {name: getattr(value, "shape", None) for name, (value, _) in det.calibconst.items()}
masked = run.Detector("jf", edges=True, edge_rows=1, edge_cols=2)
result["mask"] = masked.raw._mask()
for evt in run.events():
    waves, peaks = hsd.raw.waveforms(evt), hsd.raw.peaks(evt)
    if waves is not None:
        for digitizer, channels in waves.items():
            times = channels["times"]
            for channel, waveform in channels.items():
                if channel != "times":
                    assert len(waveform) == len(times)
                    result["waves"][evt.timestamp, digitizer, channel] = waveform.sum()
    if peaks is not None:
        for digitizer, channels in peaks.items():
            for channel, (starts, pieces) in channels.items():
                assert len(starts) == len(pieces)
    raw = det.raw.raw(evt)
    if raw is None:
        continue
    result["raw"][evt.timestamp] = raw
    result["calib"][evt.timestamp] = det.raw.calib(evt)
    image = det.raw.image(evt, nda=np.ones(raw.shape))
    result["sum"] = image.sum()
with open(sys.argv[-1], "wb") as file:
    pickle.dump(result, file)
