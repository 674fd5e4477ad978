"""Doors that other programs open runs through: dxtbx (DIALS, cctbx), CrystFEL, intake.

None of those programs has to be installed to import these modules; what they need of a
run is in `stills`.
"""
