"""A second, slow reader of XTC2 written from shared/spec/xtc2-format.md: shares nothing with the package."""

import struct
from dataclasses import dataclass, field

import numpy as np

KINDS = ["u1", "<u2", "<u4", "<u8", "i1", "<i2", "<i4", "<i8", "<f4", "<f8", "S1", "<i4", "<i4"]


@dataclass
class Described:
    src: int
    det_type: str
    det_name: str
    det_id: str
    alg: str
    version: int
    segment: int
    fields: list  # (alg, alg version, name, type, rank)


@dataclass
class Values:
    names: Described | None
    src: int
    damage: int
    data_first: bool = False
    tail: int = 0
    arrays: dict = field(default_factory=dict)  # in the order of the fields; CHARSTR stays S1
    empty: bool = False

    def __getitem__(self, name):
        value = self.arrays[name]
        return value.tobytes().split(b"\0")[0].decode() if value.dtype.kind == "S" else value


@dataclass
class Datagram:
    offset: int
    size: int
    timestamp: int
    service: int
    bits: int
    src: int
    damage: int
    children: list  # Described, Values, or ("parent", src, [children])
    pulse: int = 0

    def flat(self):
        return list(_flat(self.children))

    def blocks(self, det=None, alg=None):
        found = [c for c in self.flat() if isinstance(c, Values)]
        return [b for b in found if det in (None, b.names.det_name) and alg in (None, b.names.alg)]


def _flat(children):
    for child in children:
        if isinstance(child, tuple):
            yield from _flat(child[2])
        else:
            yield child


def parse(data, table=None, old=False):
    """Return the whole datagrams and the offset behind them; zero all garbage in `data` (a bytearray)."""
    found, at, head = [], 0, 32 if old else 24
    table = {} if table is None else table
    while at + head <= len(data):
        pulse = struct.unpack_from("<Q", data, at)[0] if old else 0
        low, high, env, src, damage, contains, extent = struct.unpack_from("<IIIIHHI", data, at + head - 24)
        assert contains == 0
        assert extent >= 12
        end = at + head - 12 + extent
        if end > len(data):
            break
        service = (pulse >> 56) & 15 if old else env >> 24 & 15
        children = _children(data, at + head, end, table)
        stamp = high << 32 | low
        bits = env if old else env & 0xFFFFFF
        pulse &= (1 << 56) - 1
        found.append(Datagram(at, end - at, stamp, service, bits, src, damage, children, pulse))
        at = end
    return found, at


def _children(data, at, end, table):
    out = []
    while at < end:
        src, damage, contains, extent = struct.unpack_from("<IHHI", data, at)
        assert contains >> 12 == 0
        assert extent >= 12
        assert at + extent <= end
        if contains == 0:
            out.append(("parent", src, _children(data, at + 12, at + extent, table)))
        elif contains == 4:
            table[src] = _names(data, at, extent, src)
            out.append(table[src])
        else:
            assert contains == 1
            out.append(_values(data, at, extent, table.get(src), src, damage))
        at += extent
    assert at == end
    return out


def _text(data, at):
    raw = bytes(data[at : at + 256]).split(b"\0")[0]
    data[at + len(raw) : at + 256] = bytes(256 - len(raw))
    return raw.decode()


def _names(data, at, extent, src):
    arrays, version, segment = (struct.unpack_from("<I", data, at + 12 + o)[0] for o in (0, 1028, 1032))
    texts = [_text(data, at + 16 + 256 * i) for i in range(4)]
    rows = []
    for row in range(at + 12 + 1036, at + extent, 524):
        alg, name = _text(data, row), _text(data, row + 260)
        alg_version, code, rank = (struct.unpack_from("<I", data, row + o)[0] for o in (256, 516, 520))
        rows.append((alg, alg_version, name, code, rank))
    assert extent == 12 + 1036 + 524 * len(rows)
    assert arrays == sum(row[4] > 0 for row in rows)
    return Described(src, *texts[:3], texts[3], version, segment, rows)


def _values(data, at, extent, names, src, damage):
    block, places = Values(names, src, damage), {}
    pos = at + 12
    while pos < at + extent:
        inner_src, inner_damage, kind, size = struct.unpack_from("<IHHI", data, pos)
        assert inner_src == inner_damage == 0
        places[kind] = (pos + 12, pos + size)
        pos += size
    assert pos == at + extent
    if 3 not in places:
        block.empty = True
        return block
    block.data_first = next(iter(places)) == 3
    shape_at, shape_end = places[2]
    value_at, value_end = places[3]
    for _, _, name, code, rank in names.fields:
        shape = struct.unpack_from(f"<{rank}I", data, shape_at)
        if rank:
            data[shape_at + 4 * rank : shape_at + 20] = bytes(20 - 4 * rank)
            shape_at += 20
        count = int(np.prod(shape, dtype=int))
        size = count * np.dtype(KINDS[code]).itemsize
        array = np.frombuffer(bytes(data[value_at : value_at + size]), KINDS[code])
        block.arrays[name] = array.reshape(shape) if rank else array[0]
        value_at += array.nbytes
    assert value_at == value_end
    block.tail = shape_end - shape_at
    data[shape_at:shape_end] = bytes(block.tail)
    return block
