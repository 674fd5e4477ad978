"""The psana geometry text: read, written back without loss, and refused with a line number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psana_dask.errors import GeometryError
from psana_dask.geometry.model import Geometry, Part
from psana_dask.geometry.text import read_text, write_text

QUADS = """\
# TITLE two quads
# any comment: kept as it stands

QUAD:V1  0 SENS2X1:V1 0   21652.6  10377.9  18.1   180.0 0.0 0.0   0.22329 -0.09291 0.1102
QUAD:V1  0 SENS2X1:V1 1   21802.6  33812.3  21.5   180.0 0.0 0.0   0.1 0.2 0.3
# between the quads
QUAD:V1  1 SENS2X1:V1 0   21652.6  10377.9  18.1   180.0 0.0 0.0   0.22329 -0.09291 0.1102
QUAD:V1  1 SENS2X1:V1 1   21802.6  33812.3  21.5   180.0 0.0 0.0   0.1 0.2 0.3
CSPAD:V1 0 QUAD:V1    0   -4500.0  -4500.0   0.0    90.0 0.0 0.0   0 0 0
CSPAD:V1 0 QUAD:V1    1    4500.0   4500.0   0.0   180.0 0.0 0.0   0 0 0
IP       0 CSPAD:V1   0       0.0      0.0 1e6      0.0 0.0 0.0    0 0 0
# the end
"""


def test_read_and_write_keep_everything():
    geometry = read_text(QUADS)
    assert geometry.shape == (4, 185, 388)
    assert geometry.root == ("IP", 0)
    assert geometry.parts[0].origin == (21652.6, 10377.9, 18.1)
    assert geometry.parts[0].line == 4
    written = write_text(geometry)
    assert read_text(written) == geometry
    assert [line for line in written.splitlines() if not line or line[0] == "#"] == [
        line for line in QUADS.splitlines() if not line or line[0] == "#"
    ]


def test_detector_of_ip_lies_at_negative_z():
    assert read_text(QUADS).parts[-1].origin[2] == -1e6


def test_panels_follow_the_lines_not_the_indices():
    lines = QUADS.splitlines(keepends=True)
    swapped = "".join([*lines[:3], lines[4], lines[3], *lines[5:]])
    assert [chain[0].index for chain in read_text(swapped).panels] == [1, 0, 0, 1]


numbers = st.floats(-1e7, 1e7, allow_nan=False)
triples = st.tuples(numbers, numbers, numbers)


@given(st.lists(st.tuples(triples, triples, triples), min_size=1, max_size=5))
def test_any_numbers_come_back_exactly(places):
    parts = [Part("CAMERA", 0, "JUNGFRAU:V1", k, *place) for k, place in enumerate(places)]
    assert read_text(write_text(Geometry(tuple(parts)))).parts == tuple(parts)


GOOD = "IP 0 CAMERA 0  0 0 -1e5  0 0 0  0 0 0\nCAMERA 0 JUNGFRAU:V1 0  0 0 0  90 0 0  0 0 0\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "CAMERA 0 JUNGFRAU:V1 1  0 0 0  90 0 0  0 0\n", r"line 3: 12 fields instead of 13"),
        (GOOD.replace("90 0 0", "90 O 0"), r"line 2: 'O' is not a number"),
        (GOOD.replace("90 0 0", "90 nan 0"), r"line 2: 'nan' is not a finite number"),
        (GOOD.replace("CAMERA 0 JUNG", "CAMERA a JUNG"), r"line 2: 'a' is not an index"),
        (GOOD.replace("JUNGFRAU:V1", "JUNGFRAU:V9"), r"line 2.*no segment type 'JUNGFRAU:V9'.*JUNGFRAU:V1"),
        (GOOD + "CAMERA 0 JUNGFRAU:V1 0  0 0 0  90 0 0  0 0 0\n", r"line 3\) has the same name as.*line 2"),
        (GOOD + GOOD.splitlines()[0], r"line 3\) has the same name as.*line 1"),
        (GOOD.replace("IP 0", "A 0") + "CAMERA 0 A 0  0 0 0  0 0 0  0 0 0\n", r"line 1\).*form a loop"),
        (GOOD + "\n   \nCAMERA 0 PNCCD:V1 0  0 0 0  0 0 0  0 0 0\n", r"line 5\) has \(512, 512\) pixels"),
        (GOOD + "OTHER 0 JUNGFRAU:V1 0  0 0 0  0 0 0  0 0 0\n", r"2 trees:.*line 1.*line 3"),
        (GOOD + "JUNGFRAU:V1 0 JUNGFRAU:V1 1  0 0 0  0 0 0  0 0 0\n", r"line 2\) is a sensor"),
        ("# only comments\n\n", r"no parts"),
    ],
)
def test_malformed_text_names_the_line(text, message):
    with pytest.raises(GeometryError, match=message):
        read_text(text)


def test_blank_lines_and_indented_comments_are_no_parts():
    geometry = read_text("\n  \t\n  # indented\n" + GOOD)
    assert geometry.parts[0].line == 4
    assert read_text(write_text(geometry)) == geometry
