"""Small-data and index files made from a run written here, and read back."""

import numpy as np

from psana_dask.readers import xtc
from psana_dask.readers.tables import record_for
from psana_dask.readers.xtc_index_build import build_idx
from psana_dask.readers.xtc_index_files import (
    ID_ORIGINAL,
    ID_PROXY,
    ORIGINAL,
    PROXY,
    headers_at,
    read_idx,
    read_small_data,
    small_data_rows,
    verify_offsets,
    write_idx,
)
from psana_dask.readers.xtc_layout import NO_FIDUCIAL, Damage, TransitionId, detector_source
from psana_dask.readers.xtc_small_data import small_data
from psana_dask.readers.xtc_write import container, dgram, node, record_container
from psana_dask.sources import MemorySource

EVR = detector_source("NoDetector", 0, "Evr", 0)
CAMERA = detector_source("XppGon", 0, "Opal1000", 0)
CAMERA_NODE = (2 << 24 | 7, 0xAC150A02)


def event(i, codes=(140,), fiducial=None, camera=True):
    fifo = {"fifo_events": [{"eventCode": code} for code in codes]}
    parts = [node([record_container(record_for(19, 4), fifo, key=(19, 4), source=EVR)])]
    image = [container(bytes(2000), type_id=2, version=1, source=CAMERA)] if camera else []
    parts.append(node(image, CAMERA_NODE))
    fiducial = 3 * i if fiducial is None else fiducial
    return dgram(TransitionId.L1_ACCEPT, parts, timestamp=(20 + i) << 32, fiducial=fiducial)


def run():
    damage = Damage.INCOMPLETE_CONTRIBUTION
    hidden = dgram(TransitionId.L1_ACCEPT, [node([])], timestamp=99 << 32, fiducial=9, damage=damage)
    head = [TransitionId.CONFIGURE, TransitionId.BEGIN_CALIB_CYCLE]
    events = [event(1), event(0, (40, 140)), event(2, fiducial=NO_FIDUCIAL), event(3, camera=False), hidden]
    pieces = [dgram(service, timestamp=i << 32) for i, service in enumerate(head, 1)]
    return b"".join([*pieces, *events, dgram(TransitionId.END_RUN, timestamp=100 << 32)])


def test_small_data():
    big = MemorySource(run(), "x.xtc")
    data = b"".join(small_data(big))
    small = MemorySource(data)
    block = xtc.scan(small)
    assert (block.dgrams["service"] == TransitionId.L1_ACCEPT).sum() == 4  # the incomplete one is left out
    assert len(data) < len(run()) / 3
    bounds = [*block.dgrams["first_leaf"], len(block.leaves)]
    dgrams = np.repeat(block.dgrams, np.diff(bounds))
    starts = dgrams["offset"] + block.leaves["at"]
    rows = small_data_rows(block.leaves, ID_ORIGINAL)
    originals = read_small_data(small, starts[rows], ORIGINAL)
    headers = headers_at(big, originals["offset"].astype(np.int64))
    assert np.array_equal(headers["seconds"].astype(np.uint64), dgrams["timestamp"][rows] >> np.uint64(32))
    rows = small_data_rows(block.leaves, ID_PROXY)
    proxies = read_small_data(small, starts[rows], PROXY)
    assert proxies["extent"].tolist() == [2020] * 3
    assert run()[proxies["offset"][0] + 8 :][:4] == CAMERA[1].to_bytes(4, "little")
    assert (block.leaves["phy"][rows] == CAMERA[1]).all()


def test_index():
    source = MemorySource(run(), "folder/x-r0001-s00-c00.xtc")
    idx = read_idx(write_idx(build_idx(source)))
    assert idx.name == "x-r0001-s00-c00.xtc"
    assert idx.events["seconds"].tolist() == [20, 21, 23, 99]  # by time; the one without fiducial is left out
    assert idx.codes.tolist() == [140, 40]
    assert idx.events["codes"].tolist() == [1 | 2, 1, 1, 0]
    assert idx.events["empty"].tolist() == [0, 0, 2, 0]  # the incomplete one is not looked into
    assert idx.steps["first_event"].tolist() == [0]
    sources = [segment.sources for segment in idx.segments]
    assert sources == [((*EVR, 19 | 4 << 16),), ((*CAMERA, 2 | 1 << 16),)]
    assert verify_offsets(idx, source)[1] == []
