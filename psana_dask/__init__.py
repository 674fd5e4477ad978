"""Open X-ray laser runs (LCLS XTC and XTC2) as lazy Dask arrays and xarray datasets."""
