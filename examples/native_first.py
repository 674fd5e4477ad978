"""The same two pictures without a loop; colours are chosen from the good pixels.

python native_first.py exp=xpptut15:run=54
"""

import sys

import matplotlib.pyplot as plt

import psana_dask

run = psana_dask.open(sys.argv[1])
for image in run.cspad.image[:2]:
    image.psana.plot()
    plt.show()
