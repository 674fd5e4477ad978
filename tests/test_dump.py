"""`psana-dask dump`: files of both formats, whole, cut, damaged and strange."""

import itertools
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from psana_dask import simulate
from psana_dask.cli import main
from psana_dask.dump import datagrams, lines
from psana_dask.errors import UnknownFormat
from psana_dask.readers.xtc2_layout import TransitionId
from psana_dask.readers.xtc2_write import FieldName, Names, datagram, names_block, parent, shapes_data, xtc

CAMERA = Names(
    src=0x105, det_name="cam", alg_name="raw", alg_version=2 << 16, segment=3,
    fields=(FieldName("gain", 8), FieldName("note", 10, 1), FieldName("raw", 1, 2)),
)  # fmt: skip
FRAME = np.arange(20, dtype=np.uint16).reshape(4, 5)


def small_file(events=3, block=None):
    """A Configure and some events of one camera."""
    block = block or shapes_data(CAMERA, (1.5, "hello", FRAME), damage=1 << 5)
    made = [datagram(1 << 32, TransitionId.CONFIGURE, names_block(CAMERA))]
    made += [datagram((100 + k) << 32 | 7, TransitionId.L1_ACCEPT, parent(block)) for k in range(events)]
    return made


@pytest.fixture
def write(tmp_path):
    def written(data, name="a.xtc2"):
        (tmp_path / name).write_bytes(data)
        return str(tmp_path / name)

    return written


def call(*arguments, status=0):
    result = CliRunner().invoke(main, ["dump", *arguments])
    assert result.exit_code == status, result.output
    return result.output


def json_lines(*arguments):
    return [json.loads(line) for line in call(*arguments, "--json").splitlines()]


# ---- LCLS-II ------------------------------------------------------------------------------------
def test_every_container_and_field(write):
    configure, event, *_ = json_lines(write(b"".join(small_file())))
    assert configure["containers"][0]["record"] == "cam.raw 2.0.0 segment 3"
    assert configure["containers"][0]["values"]["fields"]["raw"] == "uint16, rank 2"
    assert event["service"] == "L1_ACCEPT"
    assert event["time"] == "1990-01-01T00:01:40.000000007"
    kinds = [(c["type"], c["depth"]) for c in event["containers"]]
    assert kinds == [("parent", 1), ("shapes_data", 2), ("shapes", 3), ("data", 3)]
    block = event["containers"][1]
    assert block["damage"] == "missing_data"
    assert block["values"]["gain"] == 1.5
    assert block["values"]["note"] == "hello"
    assert block["values"]["raw"] == {"shape": [4, 5], "dtype": "uint16", "min": 0, "max": 19}


def test_text_is_for_people(write):
    text = call(write(b"".join(small_file())), "--events", "1")
    assert "cam.raw 2.0.0 segment 3" in text
    assert "raw = uint16 4×5, 0 to 19" in text
    assert "damage: missing_data" in text
    assert text.count("L1_ACCEPT") == 1


def test_offset_count_and_brief(write):
    pieces = small_file(events=6)
    path = write(b"".join(pieces))
    offset = len(pieces[0]) + len(pieces[1]) + 5
    first = json_lines(path, "--offset", str(offset), "-n", "1")
    assert [item["offset"] for item in first] == [offset - 5 + len(pieces[1])]
    assert first[0]["containers"][1]["values"]["gain"] == 1.5  # the names before it are known
    assert len(call(path, "--brief").splitlines()) == 7


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (xtc(1, xtc(2, bytes(40)), src=CAMERA.src), "no data"),
        (xtc(1, xtc(2, bytes(20)) + xtc(3, bytes(900)), src=CAMERA.src), "too few shapes: raw has none"),
        (xtc(1, xtc(2, b"\1" * 40) + xtc(3, bytes(9)), src=CAMERA.src), "shorter than their shapes say"),
        (xtc(1, xtc(3, bytes(9)), src=0x999), "no Configure declares the names 0x999"),
        (xtc(7, bytes(8)), "unknown 7"),
        (xtc(0, bytes(8), damage=8), "marked corrupted: not entered"),
    ],
)
def test_blocks_that_cannot_be_decoded_say_why(write, block, said):
    path = write(b"".join(small_file(block=block)))
    assert call(path).count(said) == 3
    assert [item["service"] for item in json_lines(path)] == ["CONFIGURE", *["L1_ACCEPT"] * 3]


def test_a_container_that_runs_past_its_parent(write):
    block = bytearray(shapes_data(CAMERA, (1.5, "hello", FRAME)))
    block[8:12] = (10**6).to_bytes(4, "little")
    items = list(datagrams(write(b"".join(small_file(events=2, block=bytes(block))))))
    start = len(small_file()[0])
    assert items[2] == {
        "offset": start + 24 + 12,
        "problem": f"a container of 1000000 bytes where {len(block)} are left: "
        "the rest of its parent is lost",
    }
    assert items[3]["service"] == "L1_ACCEPT"


@pytest.mark.parametrize("header", [0, 1, 3])
def test_behind_a_corrupt_header_the_look_goes_on(write, header):
    pieces = small_file(events=6)
    offset = sum(map(len, pieces[:header]))
    data = bytearray(b"".join(pieces))
    data[offset + 18] = 9  # `contains` of a datagram is 0
    path = write(data)
    items = list(datagrams(path, form="xtc2"))
    wrong = [item for item in items if "problem" in item]
    assert [item["offset"] for item in wrong] == [offset]
    assert "the next datagrams follow" in wrong[0]["problem"]
    assert len(items) - 1 == 6


def test_old_headers_have_a_pulse(write):
    made = [datagram(1 << 32, 2, names_block(CAMERA), old=True)]
    made += [datagram((9 + k) << 32, 12, b"", old=True, pulse_id=77 + k) for k in range(4)]
    items = list(datagrams(write(b"".join(made))))
    assert [item["pulse_id"] for item in items] == [0, 77, 78, 79, 80]


# ---- both formats -------------------------------------------------------------------------------
@pytest.fixture(scope="module", params=["xtc2", "xtc"])
def runs(request, tmp_path_factory):
    """Folder of a demo run of each format."""
    folder = tmp_path_factory.mktemp(request.param)
    return simulate.demo_run(folder, 8, format=request.param)


def test_a_folder_is_shown_file_by_file(runs):
    items = json_lines(str(runs), "--brief")
    assert {i["file"] for i in items} == {str(p) for p in runs.iterdir() if p.is_file()}
    assert not any("problem" in i for i in items)
    assert sum(i["service"] == "L1_ACCEPT" for i in items) >= 8


def test_a_later_part_is_decoded_with_the_configuration_of_the_first(runs):
    later = [p for p in runs.iterdir() if "-c001" in p.name or "-c01" in p.name]
    assert later
    shown = [c for p in later for item in datagrams(p) for c in item.get("containers", ())]
    assert any("values" in c for c in shown)
    assert not any("problem" in c for c in shown)


def test_a_file_cut_anywhere(runs, tmp_path):
    whole = max((p for p in runs.iterdir() if p.is_file()), key=lambda p: p.stat().st_size)
    data = whole.read_bytes()
    expected = [item["offset"] for item in datagrams(whole)]
    for size in np.linspace(60, len(data) - 1, 12).astype(int).tolist():
        cut = tmp_path / whole.name
        cut.write_bytes(data[:size])
        items = list(datagrams(cut, form="xtc2" if whole.suffix == ".xtc2" else "xtc"))
        found = [i["offset"] for i in items if "service" in i]
        assert found == [o for o in expected if o <= found[-1]] if found else size < expected[1]
        assert ("problem" in items[-1]) == (size not in expected)


def test_flipped_bits_end_nothing(runs, tmp_path):
    whole = min((p for p in runs.iterdir() if p.is_file()), key=lambda p: p.stat().st_size)
    data = whole.read_bytes()
    form = "xtc2" if whole.suffix == ".xtc2" else "xtc"
    rng = np.random.default_rng(3)
    for case in range(150):
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path = tmp_path / f"{case}{whole.suffix}"
        path.write_bytes(broken)
        items = list(datagrams(path, form=form))
        assert len(items) >= 4
        json.dumps(items)
        assert "\n".join(itertools.chain.from_iterable(map(lines, items)))


# ---- strange files ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "it is empty"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"hello, this is text and no data\n" * 9, "|hello, this is text and no data.|"),
    ],
)
def test_other_files_are_refused_with_their_first_bytes(write, data, said):
    path = write(data)
    assert said in call(path, status=1)
    with pytest.raises(UnknownFormat, match="neither XTC nor XTC2"):
        datagrams(path)


def test_a_file_that_is_not_there(tmp_path):
    assert "no file or folder" in call(str(tmp_path / "a.xtc"), status=1)


def test_a_reader_that_stops_reading_is_no_error(write):
    path = write(b"".join(small_file(events=4000)))
    with subprocess.Popen(
        [sys.executable, "-m", "psana_dask", "dump", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline().startswith(b"@0 CONFIGURE")
        process.stdout.close()
        assert process.stderr.read() == b""


def test_output_comes_while_the_file_is_read(write):
    """The first item needs no look at the rest of a large (sparse) file."""
    pieces = small_file()
    path = write(b"".join(pieces))
    os.truncate(path, 1 << 36)
    first = next(iter(datagrams(path, form="xtc2")))
    assert first["service"] == "CONFIGURE"
