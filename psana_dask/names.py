"""What detectors and fields are called: as Python can have it, and never as what every detector has."""

from __future__ import annotations

import re

KNOWN_NAMES = {"FEEGasDetEnergy": "gas_detector", "L3TData": "l3t"}
"""What users call sources that have no alias, where that is not the source in snake_case."""

RESERVED = frozenset(
    ("raw", "calib", "image", "mask", "pedestals", "rms", "gain", "status", "constants", "geometry", "config",
     "time", "timestamp", "fiducial", "pulse_id", "step", "damage", "present",
     "panel_present", "panel", "row", "col")
)  # fmt: skip
"""Names that mean the same on every detector, whatever its file calls them."""


def snake_case(name: str) -> str:
    """Return a name as a Python identifier: ``XppGon.0`` gives ``xpp_gon_0``."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)
    plain = re.sub(r"\W+", "_", spaced).strip("_").lower()
    return f"d_{plain}" if not plain or plain[0].isdigit() else plain
