"""Conditions on events as text give the same masks as the expressions that users would write."""

import numpy as np
import pytest

from psana_dask.conditions import events_where
from psana_dask.errors import ConditionError, NameNotFound


@pytest.fixture(scope="module")
def energy(rich_run):
    return rich_run["gmd"].field("milliJoulesPerPulse", chunks=None).values


def test_comparisons_and_logic(rich_run, energy):
    middle = float(np.nanmedian(energy))
    step = rich_run.events.step.values
    text = f"gmd.milliJoulesPerPulse > {middle} and not step == 2 or step >= 3"
    expected = ((energy > middle) & (step != 2)) | (step >= 3)
    has = rich_run["gmd"].present.values
    np.testing.assert_array_equal(events_where(rich_run, text), expected & has)
    assert expected.any()
    assert not expected.all()


def test_chains_and_arithmetic(rich_run, energy):
    found = events_where(rich_run, "0.1 < gmd.milliJoulesPerPulse * 2 - 0.5 <= 5")
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(found, (energy * 2 - 0.5 > 0.1) & (energy * 2 - 0.5 <= 5))


def test_slow_values_and_those_who_lack_them(rich_run):
    values, has = rich_run.epics.find("temperature").at(rich_run.events.time.values)
    for text in ("epics.temperature > 300", 'epics["TST:TEMP"] > 300', "not epics.temperature <= 300"):
        np.testing.assert_array_equal(events_where(rich_run, text), (values > 300) & has)


def test_event_codes(rich_run):
    expected = rich_run.evr.has(140).mask(rich_run._view) if rich_run.evr else None
    found = events_where(rich_run, "evr.has(140)")
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "gmd.milliJoulesPerPulse.__class__ == 1", "open('x')", "[1, 2]",
        "lambda: 1", "step ==", "step", "step + 1", "epix.raw > 3", "x" * 3000, "evr.has(codes=3)",
        "(y := 3) == 3", "step == 1 if True else 2",
    ],
)  # fmt: skip
def test_nothing_else_is_understood(rich_run, text):
    with pytest.raises((ConditionError, NameNotFound)):
        events_where(rich_run, text)


def test_misses_name_what_is_near(rich_run):
    with pytest.raises(NameNotFound, match=r"no detector .gdm."):
        events_where(rich_run, "gdm.milliJoulesPerPulse > 0")
    with pytest.raises(NameNotFound, match=r"detector\.field"):
        events_where(rich_run, "energy > 0")
