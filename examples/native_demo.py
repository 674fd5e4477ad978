"""The same in this package's own words: no ranks, no slices, no sums by hand.

With a Dask client (`psana_dask.cluster.slurm(...)`) the same lines run on a batch system, and with
``shmem://TAG`` or ``tcp://host:port`` in place of the run on live data.

python native_demo.py exp=xpptut15:run=54
"""

import sys

import matplotlib.pyplot as plt

import psana_dask
from psana_dask import algorithms, analysis

run = psana_dask.open(sys.argv[1])
det = run.cspad
where = algorithms.pixel_positions(det.geometry, distance=0.1)
table = algorithms.prepare_azimuthal(where, bins=100, unit="two_theta", mask=det.mask.values)

mean = run.mean("cspad.calib")
profile = analysis.integrate(mean, table).intensity

fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4))
det.assembled(mean).psana.plot(left)
left.set_title(f"mean of {len(run)} events")
profile.plot(ax=right)
plt.show()
