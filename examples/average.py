"""Mean image and profile of a run on disk, live:FOLDER or shmem://TAG; on a cluster with --client ADDRESS."""

import argparse

import psana_dask
from psana_dask import algorithms, analysis

parser = argparse.ArgumentParser(description=__doc__)
[parser.add_argument(name) for name in ("source", "detector", "--calib", "--client", "--run", "--plot")]
parser.add_argument("--bright", type=float, default=1e9)
given = parser.parse_args()
det, stream = given.detector, psana_dask.open_stream(given.source, calib=given.calib, client=given.client)
where = algorithms.pixel_positions(stream[det].geometry, distance=0.1)
table = algorithms.prepare_azimuthal(where, bins=100, unit="two_theta")
names = [f"{det}.image", analysis.profile_of(f"{det}.calib", table)]
if given.plot:
    print("plots:", psana_dask.plot.live(given.plot, det, calib=given.calib).url, flush=True)
noting = stream.save_times("bright.times", lambda b: b[det].raw.max(b[det].raw.dims[1:]) > given.bright)
for mean in noting.reduce("mean", names, timeout=5):
    print(stream, float(mean[f"{det}_profile"].max()), flush=True)
mean.drop_attrs().to_netcdf("mean.nc")
bright = psana_dask.open(given.run or given.source.removeprefix("live:")).select("bright.times")
for event in bright.loop(f"{det}.raw"):  # random access
    print(event.time, event[f"{det}.raw"].max())
