"""docs/formats/xtc.md lists every type and version that the tables know, and no other."""

import re
from pathlib import Path

from psana_dask.readers.tables import EPICS, RECORDS, type_name
from psana_dask.readers.tables.names import TYPE_NAMES
from psana_dask.readers.xtc_index_files import IDX_EVENT, IDX_HEADER, IDX_HEADER_V1, IDX_STEP
from psana_dask.readers.xtc_layout import DGRAM, XTC

PAGE = (Path(__file__).parents[2] / "docs" / "formats" / "xtc.md").read_text()


def test_types_and_versions():
    rows = re.findall(r"^\| (\d+) \| (\w+) \| ([\d, ]+) \| \w", PAGE, re.M)
    listed = {(int(number), int(version)) for number, _, versions in rows for version in versions.split(",")}
    assert listed == set(RECORDS)
    assert all(type_name(int(number)) == name for number, name, _ in rows)


def test_types_without_a_record():
    sentence = PAGE[PAGE.index("Type numbers without a record") :]
    sentence = sentence[: sentence.index("(compressed CSPAD")] + sentence[sentence.index("set),") :]
    named = {int(n) for n in re.findall(r"\b(\d+)\b", sentence)}
    assert named == set(range(len(TYPE_NAMES))) - {number for number, _ in RECORDS} - {EPICS}


def test_sizes_of_the_headers():
    sizes = [d.itemsize for d in (DGRAM, XTC, IDX_HEADER, IDX_HEADER_V1, IDX_EVENT, IDX_STEP)]
    assert sizes == [40, 20, 60, 44, 36, 20]
