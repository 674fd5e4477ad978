"""Datagrams that arrive, as micro-batches of a run.

They are appended to memory files, one per stream, which are indexed like files that grow. When
those are full, others take over: they begin with the transitions in force and one datagram of
each kind, so that names, shapes and slow data go on.  Old ones go when nothing refers to them.
Contract: tests/stream/test_assembly.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from psana_dask.choice import Choice
from psana_dask.files import RunFiles, StreamFiles
from psana_dask.growing import GrowingRun
from psana_dask.model import Service, StreamIndex
from psana_dask.pipeline import forget_worked_out
from psana_dask.recording import Recording
from psana_dask.sources import FileSource, read_bytes
from psana_dask.stream.datagrams import HEADERS, Data, Dgram
from psana_dask.stream.memory import MemoryFile

MOST_BYTES = 64 * 2**20
MOST_EVENTS = 20_000
"""What the memory of a stream holds before other memory takes over."""

_LATEST = (Service.SLOW_UPDATE, Service.ENABLE, Service.DISABLE)
"""Transitions of which the last one says all; of the others each one counts."""


@dataclass
class Head:
    """The transitions in force in one stream."""

    dgrams: list[tuple[Service, bytes]] = field(default_factory=list)

    def add(self, service: Service, data: Data) -> None:
        """Take the next transition."""
        self.begin(service)
        if service in _LATEST:
            self.dgrams = [d for d in self.dgrams if d[0] != service]
        self.dgrams.append((service, bytes(data)))

    def begin(self, service: Service) -> None:
        """Forget what a transition of this or another stream makes obsolete."""
        if service in (Service.CONFIGURE, Service.MAP):
            self.dgrams = []
        elif service == Service.BEGIN_RUN:
            self.dgrams = [d for d in self.dgrams if d[0] == Service.CONFIGURE]


class Memory:
    """The datagrams of all streams since some moment, as a run that grows.

    Parameters
    ----------
    form : {"xtc", "xtc2"}
    experiment : str, optional
    """

    def __init__(self, form: str, experiment: str | None) -> None:
        self._form = form
        self._files: dict[int, MemoryFile] = {}
        self.events = 0
        self.done = 0
        self.run = GrowingRun(partial(_run_files, experiment, self._files), kept=self._files)

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(file.size for file in self._files.values())

    def append(self, stream: int, pieces: Sequence[Data]) -> None:
        """Add datagrams of one stream."""
        if stream not in self._files:
            self._files[stream] = MemoryFile(f"-s{stream:03d}.{self._form}")
        self._files[stream].append(pieces)

    def index(self) -> None:
        """Find what was added; all of it is complete."""
        self.run.poll()
        self.run.finish()


def _run_files(experiment: str | None, files: dict[int, MemoryFile]) -> RunFiles:
    streams = tuple(StreamFiles(k, (files[k].path,)) for k in sorted(files))
    return RunFiles(experiment, None, streams, cache=False)


class Assembly:
    """Turns datagrams into micro-batches.

    Parameters
    ----------
    form : {"xtc", "xtc2"}
    experiment : str, optional
        Where the datagrams do not say it.
    """

    def __init__(self, form: str, experiment: str | None = None) -> None:
        self._form, self._experiment = form, experiment
        self._heads: dict[int, Head] = {}
        self._memory = Memory(form, experiment)
        self._issued: deque[Recording] = deque()

    def transition(self, dgrams: Sequence[Dgram]) -> None:
        """Take transitions; a new run or configuration begins new memory."""
        services = [HEADERS[self._form](d.data).service for d in dgrams]
        anew = next((s for s in services if s in (Service.CONFIGURE, Service.BEGIN_RUN)), None)
        if anew is not None and self._memory.done:
            for head in self._heads.values():
                head.begin(anew)
            self._take_over(context=False)
        for service, dgram in zip(services, dgrams, strict=True):
            self._heads.setdefault(dgram.stream, Head()).add(service, dgram.data)
            self._memory.append(dgram.stream, [dgram.data])

    def events(self, events: Sequence[Sequence[Dgram]]) -> tuple[Recording, Choice] | None:
        """Take events; return them as what a View is made of, None before a configuration."""
        if not any(d[0] == Service.CONFIGURE for head in self._heads.values() for d in head.dgrams):
            return None
        if self._memory.size > MOST_BYTES or self._memory.events > MOST_EVENTS:
            self._take_over(context=True)
        memory = self._memory
        by_stream: dict[int, list[Data]] = {}
        for event in events:
            for dgram in event:
                by_stream.setdefault(dgram.stream, []).append(dgram.data)
        for stream, pieces in by_stream.items():
            memory.append(stream, pieces)
        memory.events += len(events)
        memory.index()
        recording = memory.run.recording()
        if recording is None:
            return None
        self._forget_older(recording)
        total, first = len(recording.events), memory.done
        memory.done = total
        return recording, Choice(np.arange(first, total), total)

    def _forget_older(self, newest: Recording | None) -> None:
        """Forget what was worked out for earlier recordings: it refers to them, and would keep them.

        Who still looks at one works it out again.
        """
        while len(self._issued) > (0 if newest is None else 1):
            forget_worked_out(self._issued.popleft())
        if newest is not None:
            self._issued.append(newest)

    def _take_over(self, *, context: bool) -> None:
        """Begin new memory with the transitions in force, and with examples of what events hold."""
        old, self._memory = self._memory, Memory(self._form, self._experiment)
        examples = _examples(old.run) if context else {}
        for stream, head in self._heads.items():
            self._memory.append(stream, [data for _, data in head.dgrams])
        for stream, pieces in examples.items():
            self._memory.append(stream, pieces)
        if self._memory.size:
            self._memory.index()
        self._memory.done = self._memory.run.counts.events
        self._forget_older(None)


def _examples(run: GrowingRun) -> dict[int, list[bytes]]:
    """Return the last datagram of each kind of block, per stream, in order."""
    found = {}
    for stream in run.streams:
        if stream.index is not None:
            index = stream.index
            rows = _last_of_each_kind(index)
            source = FileSource(index.parts[0])
            found[stream.stream] = [
                read_bytes(source, int(index["offset"][row]), int(index["size"][row])) for row in rows
            ]
    return found


def _last_of_each_kind(index: StreamIndex) -> list[int]:
    """Return the rows of the last events that hold each kind of block."""
    first = index["first_block"]
    dgram = np.repeat(np.arange(len(index)), np.diff(first))
    mine = index["service"][dgram] == Service.L1_ACCEPT
    keys, blocks = np.unique(index["key"][mine][::-1], return_index=True)
    del keys
    return sorted(set(dgram[mine][::-1][blocks].tolist()))
