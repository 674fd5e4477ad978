"""Simulated runs with known answers: for tests, demos and benchmarks, without site data.

Describe a run with `RunSpec`, write it with `write`, and compare what a reader finds with
the `Truth` that comes back.  ``docs/simulate.md`` shows what can be described.
"""

from psana_dask.simulate.describe import (
    PV,
    Algorithm,
    Choice,
    Config,
    Damage,
    Daq,
    Detector,
    Enum,
    Epics,
    Field,
    Missing,
    RunSpec,
    Scan,
)
from psana_dask.simulate.images import Picture, Scene
from psana_dask.simulate.kinds import KINDS
from psana_dask.simulate.large import LargeRun, repeat, write_large, write_many
from psana_dask.simulate.live import write_live
from psana_dask.simulate.runs import demo_run, demo_spec, grow, write, write_runs
from psana_dask.simulate.truth import Truth
from psana_dask.simulate.values import Moment
from psana_dask.simulate.xtc_kinds import XTC_KINDS

__all__ = [
    "KINDS",
    "PV",
    "XTC_KINDS",
    "Algorithm",
    "Choice",
    "Config",
    "Damage",
    "Daq",
    "Detector",
    "Enum",
    "Epics",
    "Field",
    "LargeRun",
    "Missing",
    "Moment",
    "Picture",
    "RunSpec",
    "Scan",
    "Scene",
    "Truth",
    "demo_run",
    "demo_spec",
    "grow",
    "repeat",
    "write",
    "write_large",
    "write_live",
    "write_many",
    "write_runs",
]
