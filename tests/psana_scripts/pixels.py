"""psana: constants, masks and positions of a detector, step by step; arguments: data set, output."""

import sys

import numpy as np
from psana import *

ds = DataSource(sys.argv[1])
det = Detector("jungfrau")
evt = next(ds.events())
run = evt.run()
det.print_attributes()
print(det.name, det.source, det.dettype, det.instrument(), det.shape(evt), det.size(evt), det.ndim(evt))
assert det.is_jungfrau() and not det.is_cspad()

raw, peds = det.raw(evt), det.pedestals(run)
nda = raw.astype(np.float32) - peds[0]
offsets = det.common_mode_correction(run, nda, cmpars=(7, 1, 100, 10))
corrected = nda.copy()
det.common_mode_apply(run, corrected, cmpars=(7, 1, 100, 10))
assert np.allclose(corrected, nda + offsets)

mask = det.mask(evt, calib=False, status=True, edges=True, central=True, unbond=True, unbondnbrs=True)
grown = det.mask_neighbors_in_radius(mask, rad=2, ptrn="r")
x, y, z = det.coords_xyz(run)
rows, cols = det.indexes_xy(run)
image = det.image(evt, nda)
assert image.shape == (rows.max() + 1, cols.max() + 1)
by_hand = np.zeros_like(image)
by_hand[rows, cols] = nda
photons = det.photons(evt, mask=mask, adu_per_photon=20)
det.save_txtnda("nda.txt", nda, cmts=("first event",))
back = det.load_txtnda("nda.txt")
np.savez(sys.argv[2], nda=nda, corrected=corrected, mask=mask, grown=grown, x=x, y=y, z=z, image=image,
         by_hand=by_hand, photons=photons, back=back, area=det.areas(run), size=det.pixel_size(run),
         axis=det.image_xaxis(run), pixels=det.ndarray_from_image(run, image))  # fmt: skip
