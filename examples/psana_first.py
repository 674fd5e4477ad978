"""The first script of a psana user: two pictures. Only the import of psana differs.

python psana_first.py exp=xpptut15:run=54:smd
"""

import sys

import matplotlib.pyplot as plt

from psana_dask.psana import DataSource, Detector

ds = DataSource(sys.argv[1])
det = Detector("cspad")
for number, evt in enumerate(ds.events()):
    if number == 2:
        break
    image = det.image(evt)
    plt.imshow(image, vmin=-2, vmax=2)
    plt.show()
