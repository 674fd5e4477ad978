"""Sources by name, in every spelling that psana took; fiducials across their wrap."""

import pytest

from psana_dask.readers.xtc_layout import (
    FIDUCIALS,
    Level,
    bld_source,
    daq_source_name,
    detector_source,
    jungfrau_segment,
    later,
    psana_source_name,
    source_key,
    source_matches,
    source_name,
)

CSPAD = detector_source("XppGon", 0, "Cspad", 0)
EBEAM = bld_source("EBeam")
NODE = (Level.SEGMENT << 24 | 1234, 0xAC150A01)
NONE = (0xFFFFFFFF, 0xFFFFFFFF)


@pytest.mark.parametrize(
    ("source", "ours", "psana", "daq"),
    [
        (CSPAD, "XppGon.0:Cspad.0", "DetInfo(XppGon.0:Cspad.0)", "DetInfo(XppGon-0|Cspad-0)"),
        (EBEAM, "EBeam", "BldInfo(EBeam)", "BldInfo(EBeam)"),
        (NODE, "ProcInfo(172.21.10.1)", "ProcInfo(172.21.10.1)", "ProcInfo(Segment:ac150a01:1234)"),
        (NONE, "NoSource", "NoSource", "ProcInfo(none:ffffffff:16777215)"),
    ],
)
def test_names(source, ours, psana, daq):
    assert source_name(*source) == ours
    assert psana_source_name(*source) == psana
    assert daq_source_name(*source) == daq


def test_names_of_numbers_that_no_list_knows():
    assert source_name(Level.SOURCE << 24, 0xC8000003 | 0xC900) == "unknown200.0:unknown201.3"
    assert source_name(Level.REPORTER << 24, 999) == "unknown999"


@pytest.mark.parametrize(
    "pattern",
    ["", "DetInfo(XppGon.0:Cspad.0)", "XppGon.0:Cspad.0", "XppGon-0|Cspad-0", "DetInfo(XppGon-0|Cspad-0)",
     ":Cspad", "XppGon.0:", "XppGon:Cspad", "*.0:Cspad.*", "*:*", "DetInfo()", ":Cspad.0"],
)  # fmt: skip
def test_patterns_that_match(pattern):
    assert source_matches(pattern, *CSPAD)


@pytest.mark.parametrize(
    "pattern",
    ["XppGon.0:Cspad.1", "XppGon.1:Cspad.0", ":Cspad2x2", "EBeam", "BldInfo()", "ProcInfo()", "Cspad",
     "XppGon", "XppGon.0:Cspad.0:x", "DetInfo(:Evr)", "???"],
)  # fmt: skip
def test_patterns_that_do_not_match(pattern):
    assert not source_matches(pattern, *CSPAD)


def test_beam_line_data_and_nodes_match_by_name():
    assert source_matches("EBeam", *EBEAM)
    assert source_matches("BldInfo(EBeam)", *EBEAM)
    assert source_matches("BldInfo()", *EBEAM)
    assert not source_matches("BldInfo(PhaseCavity)", *EBEAM)
    assert not source_matches(":EBeam", *EBEAM)
    assert source_matches("ProcInfo(172.21.10.1)", *NODE)
    assert source_matches("ProcInfo()", *NODE)
    assert not source_matches("172.21.10.1", *NODE)


@pytest.mark.parametrize("old", ["AmoGasdet", "amoGD", "AmoPem"])
def test_old_spellings(old):
    source = detector_source("AmoGD", 0, "Ipimb", 0)
    assert source_matches(f"{old}.0:Ipimb.0", *source)


def test_the_process_id_does_not_count():
    assert source_key(NODE[0] + 1, NODE[1]) == source_key(*NODE)


def test_jungfrau_segments():
    # 3rd and 4th module (M2) of an 8-module detector CxiDs1.0:Jungfrau.0
    phy = int.from_bytes(bytes([32, 0 << 4 | 8, 52, 0 << 4 | 2]), "big")
    assert jungfrau_segment(phy) == (detector_source("CxiDs1", 0, "Jungfrau", 0)[1], 2, 2)
    assert jungfrau_segment(CSPAD[1]) is None


def test_fiducials_wrap():
    assert later(5, 3)
    assert not later(3, 5)
    assert not later(3, 3)
    assert later(2, FIDUCIALS - 2)
    assert not later(FIDUCIALS - 2, 2)
