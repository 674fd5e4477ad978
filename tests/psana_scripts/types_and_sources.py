"""psana: as scripts were written before Detector(): types, addresses, stores; arguments: data set, output."""

import pickle
import sys

import numpy as np
from psana import *

ds = DataSource(sys.argv[1])
env = ds.env()
evr_source = Source("DetInfo(NoDetector.0:Evr.0)")
acq_source, opal_source = Source("acq"), Source("DetInfo(XppEndstation.0:Opal1000.0)")
beam_source, ipm_source = Source("BldInfo(EBeam)"), Source("BldInfo(XppSb2_Ipm)")
epics, store = env.epicsStore(), env.configStore()

result = {"codes": [], "beam": [], "volts": [], "opal": [], "sums": [], "temperature": [], "jungfrau": []}
for number, evt in enumerate(ds.events()):
    if number == 0:
        result["keys"] = [(str(key.type()), str(key.src()), key.alias()) for key in evt.keys()]
        settings = store.get(Acqiris.ConfigV1, acq_source)
        horizontal, vertical = settings.horiz(), settings.vert()
        result["interval"] = horizontal.sampInterval()
        result["channels"] = settings.nbrChannels()
        result["bias"] = store.get(Jungfrau.ConfigV4, Source("jungfrau")).biasVoltage()
        result["stored"] = len(store.keys())
    evr = evt.get(EvrData.DataV4, evr_source)
    if evr is None:
        evr = evt.get(EvrData.DataV3, evr_source)
    present = [fifo.eventCode() for fifo in evr.fifoEvents()]
    result["codes"].append(present)
    beam = evt.get(Bld.BldDataEBeamV7, beam_source)
    result["beam"].append(beam.ebeamPhotonEnergy() if beam.damageMask() is not None else None)
    acq = evt.get(Acqiris.DataDescV1, acq_source)
    element = acq.data(0)
    counts = element.waveforms()[0]
    result["volts"].append(counts * vertical[0].slope() - vertical[0].offset())
    frame = evt.get(Camera.FrameV1, opal_source)
    result["opal"].append(None if frame is None else np.array(frame.data16()))
    ipm = evt.get(Bld.BldDataIpimbV1, ipm_source)
    result["sums"].append(ipm.ipmFexData().sum())
    pv = epics.getPV("XPP:TEMP")
    result["temperature"].append((epics.value("XPP:TEMP"), pv.value(0)))
    module = evt.get(Jungfrau.ElementV2, Source("DetInfo(MfxEndstation.0:Jungfrau.0)"))
    result["jungfrau"].append(np.array(module.frame()))
with open(sys.argv[2], "wb") as file:
    pickle.dump(result, file)
