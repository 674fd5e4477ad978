"""Calibration: constants with provenance, and the kernels that apply them."""
