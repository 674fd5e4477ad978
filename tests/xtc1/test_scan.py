"""The walk over datagrams and containers: whole, cut, corrupt and growing files."""

import numpy as np
import pytest

from psana_dask.readers import xtc
from psana_dask.readers.state import WINDOW
from psana_dask.readers.xtc_layout import DGRAM, Damage, TransitionId, bld_source, detector_source
from psana_dask.readers.xtc_scan import MAX_DEPTH
from psana_dask.readers.xtc_write import container, dgram, node
from psana_dask.sources import FileSource, MemorySource

CAMERA = detector_source("XppGon", 0, "Opal1000", 1)
EBEAM = bld_source("EBeam")
STEPS = [TransitionId.CONFIGURE, TransitionId.BEGIN_RUN, TransitionId.BEGIN_CALIB_CYCLE, TransitionId.ENABLE]


def event(i, size=8):
    """One event of two readout nodes: a camera and an EBeam of `size` bytes each."""
    parts = [container(bytes(size), type_id=t, version=1, source=s) for t, s in ((2, CAMERA), (15, EBEAM))]
    nodes = [node(parts[:1]), node(parts[1:])]
    return dgram(TransitionId.L1_ACCEPT, nodes, timestamp=(1000 + i) << 32 | i, fiducial=3 * i)


def run(events=6, size=8):
    """The datagrams of a small run, one bytes object each."""
    head = [dgram(service, timestamp=900 << 32 | i) for i, service in enumerate(STEPS)]
    return head + [event(i, size) for i in range(events)]


def scan(data, **options):
    return xtc.scan(MemorySource(data), **options)


def offsets_of(pieces):
    return (np.cumsum([len(p) for p in pieces]) - [len(p) for p in pieces]).tolist()


def test_all_datagrams_and_leaves():
    pieces = run()
    block = scan(b"".join(pieces))
    assert block.dgrams["offset"].tolist() == offsets_of(pieces)
    assert block.dgrams["service"].tolist() == [*STEPS, *[TransitionId.L1_ACCEPT] * 6]
    assert block.next == sum(map(len, pieces))
    leaves = block.leaves_of(5)
    assert leaves["contains"].tolist() == [2 | 1 << 16, 15 | 1 << 16]
    assert leaves["at"].tolist() == [60, 108]
    assert leaves["phy"].tolist() == [CAMERA[1], EBEAM[1]]
    assert leaves["depth"].tolist() == [2, 2]
    assert block.dgrams["timestamp"][5] == 1001 << 32 | 1
    assert block.dgrams["fiducial"][6] & 0x1FFFF == 6
    assert block.problems == ()


def test_containers_are_listed_on_request():
    block = scan(event(0), containers=True)
    assert (block.leaves["contains"] & 0xFFFF).tolist() == [1, 1, 2, 1, 15]
    assert block.leaves["depth"].tolist() == [0, 1, 2, 1, 2]


def test_a_bare_payload_and_an_empty_datagram():
    bare = bytearray(dgram(TransitionId.L1_ACCEPT, [bytes(4)], timestamp=1000 << 32))
    bare[32:36] = (71 | 2 << 16).to_bytes(4, "little")  # a level-3 result at depth 0
    block = scan(bytes(bare) + dgram(TransitionId.END_RUN, timestamp=1001 << 32))
    assert block.leaves["at"].tolist() == [20]
    assert block.dgrams["first_leaf"].tolist() == [0, 1]


def test_an_incomplete_container_is_not_entered():
    incomplete = node([container(bytes(8), type_id=2, source=CAMERA)], damage=Damage.INCOMPLETE_CONTRIBUTION)
    block = scan(dgram(TransitionId.L1_ACCEPT, [incomplete, incomplete], timestamp=1000 << 32))
    assert (block.leaves["contains"] & 0xFFFF).tolist() == [1, 1]
    assert (block.leaves["damage"] == Damage.INCOMPLETE_CONTRIBUTION).all()


def test_files_and_memory_agree_beyond_the_window(tmp_path):
    data = b"".join(run(events=40, size=2 * WINDOW // 5))
    path = tmp_path / "big.xtc"
    path.write_bytes(data)
    ours, theirs = scan(data), xtc.scan(FileSource(str(path)))
    assert len(data) > 10 * WINDOW
    assert np.array_equal(ours.dgrams, theirs.dgrams)
    assert np.array_equal(ours.leaves, theirs.leaves)


class SlowSource:
    """A source that compiled code cannot read: every byte comes through Python."""

    name = "slow"

    def __init__(self, data):
        self.data = np.frombuffer(data, np.uint8)

    def size(self):
        return len(self.data)

    def read_into(self, offset, out):
        out[:] = self.data[offset : offset + len(out)]


@pytest.mark.parametrize("damaged", [False, True])
def test_sources_without_a_descriptor(damaged):
    pieces = run(events=30, size=WINDOW // 4)
    data = bytearray(b"".join(pieces))
    if damaged:
        data[offsets_of(pieces)[9] + 36] ^= 3
    ours, theirs = scan(bytes(data)), xtc.scan(SlowSource(bytes(data)))
    assert np.array_equal(ours.dgrams, theirs.dgrams)
    assert len(ours.dgrams) == len(pieces) - damaged


def test_many_datagrams_come_in_blocks():
    data = b"".join(dgram(TransitionId.L1_ACCEPT, timestamp=i << 32, fiducial=i) for i in range(40_000))
    blocks = list(xtc.walk(MemorySource(data)))
    assert len(blocks) > 1
    assert sum(len(b.dgrams) for b in blocks) == 40_000
    assert np.array_equal(scan(data).dgrams["fiducial"], np.arange(40_000))


def test_one_datagram_with_more_leaves_than_a_table_holds():
    leaves = [container(b"", type_id=15, source=EBEAM)] * 300_000
    block = scan(dgram(TransitionId.L1_ACCEPT, leaves, timestamp=1 << 32) + event(1))
    assert len(block.leaves) == 300_002
    assert len(block.dgrams) == 2


# ---- pieces side by side ------------------------------------------------------------------------
@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of a few kilobytes; the list names where each scan of a piece began."""
    begun = []
    go = xtc._Walk.go_to_chain

    def noted(walk, offset, near):
        begun.append(go(walk, offset, near))
        return begun[-1]

    monkeypatch.setattr(xtc, "PIECE", 4096)
    monkeypatch.setattr(xtc, "OPENING", 300)
    monkeypatch.setattr(xtc._Walk, "go_to_chain", noted)
    return begun


def one_walk(path, **options):
    """What the scan must give: the blocks of a single walk."""
    blocks = list(xtc.walk(FileSource(str(path)), **options))
    assert len(blocks) == 1
    return blocks[0]


def same(ours, theirs):
    rows = np.array_equal(ours.dgrams, theirs.dgrams) and np.array_equal(ours.leaves, theirs.leaves)
    return rows and (ours.problems, ours.next) == (theirs.problems, theirs.next)


@pytest.mark.parametrize("cut", [0, 50])
@pytest.mark.parametrize("live", [False, True])
def test_pieces_side_by_side_give_what_one_walk_gives(tmp_path, small_pieces, cut, live):
    path = tmp_path / "a.xtc"
    data = b"".join(run(events=400))
    path.write_bytes(data[: len(data) - cut])
    block = xtc.scan(FileSource(str(path)), live=live)
    assert same(block, one_walk(path, live=live))
    assert len(small_pieces) == xtc.MOST_PIECES - 1
    assert set(small_pieces) <= set(block.dgrams["offset"].tolist())
    assert len(block.problems) == (cut > 0 and not live)


def test_pieces_of_a_file_with_corrupt_datagrams(tmp_path, small_pieces):
    pieces = run(events=400)
    data, starts = bytearray(b"".join(pieces)), offsets_of(pieces)
    for victim in (100, 250):
        data[starts[victim] + 36] ^= 3
    path = tmp_path / "a.xtc"
    path.write_bytes(data)
    block = xtc.scan(FileSource(str(path)))
    assert same(block, one_walk(path))
    assert len(block.problems) == 2


def test_a_payload_that_looks_like_datagrams_misleads_no_piece(tmp_path, small_pieces):
    inner = b"".join(event(i) for i in range(60))
    decoy = dgram(
        TransitionId.L1_ACCEPT, [container(inner, type_id=2, source=CAMERA)], timestamp=1005 << 32
    )
    path = tmp_path / "a.xtc"
    path.write_bytes(b"".join(run(events=200)) + decoy * 2 + b"".join(run(events=200)))
    block = xtc.scan(FileSource(str(path)))
    assert same(block, one_walk(path))
    assert not set(small_pieces) <= set(block.dgrams["offset"].tolist())


def test_leaves_are_numbered_by_source_and_type():
    block = scan(b"".join(run()))
    kinds = xtc.Kinds()
    assert kinds.number(block.leaves).tolist() == [0, 1] * 6
    assert kinds.rows["phy"].tolist() == [CAMERA[1], EBEAM[1]]
    assert kinds.number(block.leaves[1:2]).tolist() == [1]


def test_any_number_of_kinds_in_any_order():
    rng = np.random.default_rng(5)
    leaves = scan(event(0)).leaves.repeat(2500)
    leaves["phy"] = rng.integers(0, 700, len(leaves))
    leaves["log"] = rng.integers(0, 2, len(leaves)) << 24 | rng.integers(0, 99, len(leaves))
    kinds = xtc.Kinds()
    numbers = np.concatenate([kinds.number(part) for part in np.array_split(leaves, 3)])
    sources = zip(leaves["log"] >> 24, leaves["phy"], leaves["contains"], strict=True)
    assert len(kinds.rows) == len(set(sources))
    for column in ("phy", "contains"):
        assert np.array_equal(kinds.rows[column][numbers], leaves[column])
    assert np.array_equal(kinds.rows["log"][numbers] >> 24, leaves["log"] >> 24)


# ---- cut and corrupt ----------------------------------------------------------------------------
def test_a_file_cut_at_any_byte():
    pieces = run(events=3)
    data, starts = b"".join(pieces), offsets_of(pieces)
    for size in range(len(data)):
        whole = sum(start + len(p) <= size for start, p in zip(starts, pieces, strict=True))
        block = scan(data[:size])
        assert len(block.dgrams) == whole
        cut = size not in [*starts, len(data)]
        assert len(block.problems) == cut
        live = scan(data[:size], live=True)
        assert live.problems == ()
        assert live.next == ([*starts, len(data)][whole] if cut else size)


def test_a_growing_file_is_scanned_from_where_it_ended():
    pieces = run()
    data = b"".join(pieces)
    first = scan(data[: len(data) // 2], live=True)
    second = scan(data, start=first.next, live=True)
    assert len(first.dgrams) + len(second.dgrams) == len(pieces)


@pytest.mark.parametrize("word", range(10))
def test_any_flipped_bit_of_a_datagram_header_hides_only_that_datagram(word):
    pieces = run(events=6)
    starts, victim = offsets_of(pieces), 6
    intact = {s for i, s in enumerate(starts) if i != victim}
    for bit in range(32):
        data = bytearray(b"".join(pieces))
        data[starts[victim] + 4 * word + bit // 8] ^= 1 << bit % 8
        block = scan(bytes(data))
        assert intact <= set(block.dgrams["offset"].tolist()), (word, bit)


def test_any_flipped_bit_of_a_container_header_hides_at_most_its_datagram():
    pieces = run(events=4)
    starts, victim = offsets_of(pieces), 5
    others = [i for i in range(len(pieces)) if i != victim]
    whole = scan(b"".join(pieces))
    for byte in range(20, len(pieces[victim])):
        for bit in range(8):
            data = bytearray(b"".join(pieces))
            data[starts[victim] + byte] ^= 1 << bit
            block = scan(bytes(data))
            found = dict(zip(block.dgrams["offset"].tolist(), range(len(block.dgrams)), strict=True))
            for i in others:
                assert np.array_equal(block.leaves_of(found[starts[i]]), whole.leaves_of(i)), (byte, bit)


@pytest.mark.parametrize("extent", [0, 4, 19, 21, 22, 1 << 20, 0xFFFFFFFC])
def test_bad_extents_of_a_leaf_are_reported(extent):
    data = bytearray(event(0) + event(1))
    data[60 + 16 : 60 + 20] = extent.to_bytes(4, "little")
    block = scan(bytes(data))
    assert [(p.offset, p.event) for p in block.problems] == [(60, 1000 << 32)]
    assert (block.leaves_of(0)["contains"] & 0xFFFF).tolist() == [15]  # the other node's
    assert len(block.leaves_of(1)) == 2


def test_an_extent_that_swallows_the_next_datagrams():
    pieces = run(events=8)
    starts = offsets_of(pieces)
    data = bytearray(b"".join(pieces))
    extent = len(pieces[6]) - 20 + 100  # ends inside the next datagram
    data[starts[6] + 36 : starts[6] + 40] = extent.to_bytes(4, "little")
    block = scan(bytes(data))
    assert set(starts) - {starts[6]} == set(block.dgrams["offset"].tolist())
    assert block.problems


def test_known_offsets_are_tried_where_nothing_else_is_found():
    pieces = run(events=2)
    starts = offsets_of(pieces)
    data = bytearray(b"".join(pieces))
    data[starts[4] + 36 : starts[4] + 40] = bytes(4)
    data[starts[5] + 4 : starts[5] + 8] = (1 << 30).to_bytes(4, "little")  # a clock a year off
    assert starts[5] not in scan(bytes(data)).dgrams["offset"]
    assert starts[5] in scan(bytes(data), known=np.array(starts)).dgrams["offset"]


def test_containers_nested_without_end():
    inner = container(bytes(4), type_id=2, source=CAMERA)
    for _ in range(MAX_DEPTH + 5):
        inner = node([inner])
    block = scan(dgram(TransitionId.L1_ACCEPT, [inner], timestamp=1 << 32) + event(1))
    assert len(block.dgrams) == 2
    assert "nested deeper" in block.problems[0].what


def test_noise_neither_crashes_nor_hangs():
    rng = np.random.default_rng(1)
    for size in (0, 1, 39, 40, 41, 5000):
        block = scan(rng.integers(0, 256, size, np.uint8).tobytes())
        assert block.next <= size


def test_recognise():
    data = b"".join(run())
    assert xtc.recognise(MemorySource(data))
    assert xtc.recognise(MemorySource(data[: len(data) - 3]))
    assert xtc.recognise(MemorySource(dgram(TransitionId.MAP, timestamp=1 << 32)))
    assert not xtc.recognise(MemorySource(b""))
    assert not xtc.recognise(MemorySource(bytes(1000)))
    assert not xtc.recognise(MemorySource(np.random.default_rng(0).bytes(4000)))
    header = np.zeros(1, DGRAM)[0]
    assert not xtc.is_header(header)
