"""Writing described runs, and one rich run that is ready made."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

import numpy as np

from psana_dask.simulate.content import Content
from psana_dask.simulate.describe import PV, Daq, Detector, Enum, Epics, Missing, RunSpec, Scan
from psana_dask.simulate.schedule import Entry, Rows
from psana_dask.simulate.truth import Truth
from psana_dask.simulate.values import Moment
from psana_dask.simulate.xtc import XtcFiles, XtcWriter
from psana_dask.simulate.xtc2 import StreamFiles, StreamWriter

Folder = str | PathLike[str]
Files = StreamFiles | XtcFiles
Writer = StreamWriter | XtcWriter


def write(spec: RunSpec, folder: Folder) -> Truth:
    """Write a run: ``<exp>-r0001-s000-c000.xtc2`` ..., or ``<exp>-r0001-s00-c00.xtc`` ... for LCLS-1.

    Small-data files lie in ``smalldata/``, the index files of LCLS-1 in ``index/``.

    Parameters
    ----------
    spec : RunSpec
        The run; `format` says in which format.
    folder : path
        Made if it does not exist; files of the same names are replaced.

    Returns
    -------
    Truth
        The known answers.

    Examples
    --------
    >>> truth = simulate.write(RunSpec(events=10, detectors=(Detector(name="cam", kind="camera"),)), "run1")
    >>> truth.value("cam", "image", event=3)
    """
    return write_runs([spec], folder)[0]


def write_runs(specs: Sequence[RunSpec], folder: Folder) -> tuple[Truth, ...]:
    """Write several runs into the same files, one after the other, named by the first.

    A run with ``configure=True`` brings a new Configure (with other detectors, if it likes);
    one with ``configure=False`` starts with BeginRun.  All need the same streams; LCLS-II only.

    Examples
    --------
    >>> simulate.write_runs([spec, replace(spec, number=2)], "both")
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if len(specs) > 1 and any(spec.format == "xtc" for spec in specs):
        raise ValueError("LCLS-1 runs have files of their own: write them one by one")
    if len({spec.streams for spec in specs}) != 1:
        raise ValueError(f"runs in the same files need the same streams: {[spec.streams for spec in specs]}")
    streams = {stream: files_of(place, specs[0], stream) for stream in specs[0].streams}
    contents = [Content(spec) for spec in specs]
    rows = {stream: _write_all(contents, files) for stream, files in streams.items()}
    return tuple(
        _truth(spec, place, streams, {stream: found[i] for stream, found in rows.items()})
        for i, spec in enumerate(specs)
    )


def files_of(folder: Path, spec: RunSpec, stream: int) -> Files:
    """Return the files of one stream in the format of a description."""
    return (XtcFiles if spec.format == "xtc" else StreamFiles)(folder, spec, stream)


def writer_of(content: Content, files: Files) -> Writer:
    """Return what writes a run into the files of one stream."""
    return XtcWriter(content, files) if isinstance(files, XtcFiles) else StreamWriter(content, files)


def _write_all(contents: Sequence[Content], files: Files) -> list[Rows]:
    with files:
        return [_write_one(writer_of(content, files)) for content in contents]


def _write_one(writer: Writer) -> Rows:
    for entry in writer.entries():
        writer.append(entry)
    writer.finish()
    return writer.rows


def _truth(spec: RunSpec, place: Path, streams: Mapping[int, Files], rows: Mapping[int, Rows]) -> Truth:
    parts = {stream: tuple(files.files) for stream, files in streams.items()}
    smd = {stream: files.smd_file for stream, files in streams.items() if files.smd_file}
    return Truth(spec, place, parts, smd, rows)


def grow(spec: RunSpec, folder: Folder) -> Generator[Entry, None, Truth]:
    """Write a run as the DAQ does, transition by transition and event by event, in all streams.

    Yields
    ------
    Entry
        After each transition or event, when it can be read from the files.  The value of
        the generator, when it ends, is the `Truth`.

    Examples
    --------
    >>> for entry in simulate.grow(spec, "growing"):
    ...     time.sleep(0.01)
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    content = Content(spec)
    with ExitStack() as stack:
        streams = {s: files_of(place, spec, s) for s in spec.streams}
        for files in streams.values():
            stack.enter_context(files)
        writers = [writer_of(content, files) for files in streams.values()]
        for entry in content.schedule:
            _append_to_all(writers, entry)
            yield entry
        for writer in writers:
            writer.finish()
    return _truth(spec, place, streams, {writer.stream: writer.rows for writer in writers})


def _append_to_all(writers: Sequence[Writer], entry: Entry) -> None:
    for writer in writers:
        if writer.has(entry):
            writer.append(entry)
        writer.files.flush()


STATUS = Enum("statusEnum", {"CLOSED": 0, "OPEN": 1, "MOVING": 2})


def temperature(moment: Moment) -> float:
    """Return a temperature in kelvin that rises slowly."""
    return 295.0 + 0.1 * moment.event


def shutter(moment: Moment) -> int:
    """Return a shutter's state, closed in every fourth update."""
    return 0 if moment.event % 4 == 3 else 1


def pressure(moment: Moment) -> float:
    """Return a gas pressure that rises in steps."""
    return 1e-6 * (1 + moment.event)


def message(moment: Moment) -> str:
    """Return a text that changes with every update."""
    return f"update {moment.event}"


DEMO_FRAMES = {"xtc2": "epixquad", "xtc": "epix100a"}
"""The detector of the demo that has a frame in every event, by format."""

DEMO_DETECTORS = {
    "xtc2": (
        Detector(name="timing", kind="timing", stream=0),
        Detector(name="gmd", kind="gmd", stream=0),
        Detector(name="epixquad", kind="epix10ka", segments=4, stream=(1, 1, 2, 2)),
        Detector(name="opal", kind="timetool", stream=3, every=5, shape=(256, 256)),
        Detector(name="hsd", kind="hsd", stream=3),
    ),
    "xtc": (
        Detector(name="evr0", kind="timing"),
        Detector(name="ebeam", kind="ebeam"),
        Detector(name="gas_detector", kind="gas_detector"),
        Detector(name="phase_cavity", kind="phase_cavity"),
        Detector(name="ipm2", kind="ipm"),
        Detector(name="epix100a", kind="epix100a"),
        Detector(name="cspad", kind="cspad", every=8),
        Detector(name="acqiris", kind="waveform"),
        Detector(name="opal", kind="camera", stream=80, every=2, shape=(256, 256)),
    ),
}


def demo_spec(events: int = 64, **changes: object) -> RunSpec:
    """Describe the run that `demo_run` writes; `changes` replace arguments of `RunSpec`.

    Examples
    --------
    >>> simulate.write(simulate.demo_spec(64, number=2), "demo")
    """
    form = str(changes.get("format", "xtc2"))
    steps = max(1, min(4, events // 4))
    pvs = (
        PV("sample_temperature", temperature, address="TST:SAMPLE:TEMP"),
        PV("shutter", shutter, "enum", STATUS, "TST:SHUTTER:STATE"),
        PV("gas_pressure", pressure, "f4", address="TST:GAS:PRESSURE"),
        PV("message", message, "str", address="TST:MESSAGE"),
    )
    gap = Missing(events=(events // 3,), detector=DEMO_FRAMES[form], segment=2 if form == "xtc2" else None)
    given = {
        "events": events,
        "steps": steps,
        "detectors": DEMO_DETECTORS[form],
        "epics": (Epics(pvs=pvs, stream=0),),
        "slow_every": max(1, events // 8),
        "scan": Scan(motors={"delay": np.linspace(-1.0, 2.0, steps)}),
        "missing": (gap,),
        "cuts": {1: (events // 2,)} if events > 1 else {},
        "daq": Daq(streams=2),
    }
    return RunSpec(**{**given, **changes})  # type: ignore[arg-type]


def demo_run(folder: Folder, events: int = 64, **changes: object) -> Path:
    """Write a rich run: frames over two streams, mixed rates, steps, EPICS, ragged data, two parts.

    Parameters
    ----------
    folder : path
    events : int
    **changes
        Other arguments of `RunSpec`; ``format="xtc"`` gives a run of LCLS-1 with a CSPAD in every
        eighth event and a camera that a recorder wrote.

    Returns
    -------
    Path
        The folder, which `psana_dask.open` takes.

    Examples
    --------
    >>> run = psana_dask.open(simulate.demo_run("demo", events=64))
    """
    return write(demo_spec(events, **changes), folder).folder
