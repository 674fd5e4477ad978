"""psana's demonstration: random access, several ranks, calibrated images, a profile, a picture.

    python psana_demo.py exp=xpptut15:run=54:idx
    mpirun -n 4 python psana_demo.py exp=xpptut15:run=54:idx

No event is left over, a rank may have none, and what an event lacks is not added.
"""

import os
import sys

import matplotlib.pyplot as plt
import numpy as np

from psana_dask import algorithms
from psana_dask.psana import DataSource, Detector

rank, size = 0, 1
if {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"} & set(os.environ):  # started by mpirun or srun
    from mpi4py.MPI import COMM_WORLD as WORLD

    rank, size = WORLD.rank, WORLD.size

ds = DataSource(sys.argv[1])
det = Detector("cspad")

total, count = None, 0
for run in ds.runs():
    times = run.times()
    for time in times[rank * len(times) // size : (rank + 1) * len(times) // size]:
        frame = det.calib(run.event(time))
        if frame is None:
            continue
        total = frame.astype(np.float64) if total is None else total + frame
        count += 1

if size > 1:
    total = np.zeros(det.shape(run)) if total is None else total
    total, count = WORLD.allreduce(total), WORLD.allreduce(count)

if rank == 0:
    mean = total / count
    where = algorithms.pixel_positions(det.geometry(run.runnum), distance=0.1)
    good = det.mask(run.runnum, status=True)
    table = algorithms.prepare_azimuthal(where, bins=100, unit="two_theta", mask=good)
    profile = algorithms.integrate(mean[None], table).intensity[0, 0]
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
    left.imshow(det.image(run.event(times[0]), nda_in=mean), vmax=np.percentile(mean, 99))
    left.set_title(f"mean of {count} events")
    right.plot(table.centres, profile)
    right.set_xlabel("scattering angle, degree")
    plt.show()
