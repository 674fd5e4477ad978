"""Settings of detectors: nested, with enums that know their names, in force at a time.

A Configure gives all settings of a detector, a BeginRun or BeginStep some of them anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from psana_dask.blocks import decode_dgram
from psana_dask.catalog import is_configuration
from psana_dask.errors import NameNotFound
from psana_dask.model import Kind, Names, Service
from psana_dask.pipeline import catalog_of
from psana_dask.recording import Recording


class EnumValue(int):
    """A value of an enum: an int that knows its name.

    Attributes
    ----------
    name : str
        Of this value; its digits where the dictionary lacks it.
    names : dict of int to str
        The whole dictionary.
    """

    name: str
    names: dict[int, str]

    def __new__(cls, value: int, names: Mapping[int, str]) -> EnumValue:
        """Make the value; a number that the dictionary lacks is its own name."""
        made = super().__new__(cls, value)
        made.names = dict(names)
        made.name = names.get(value, str(value))
        return made

    @property
    def value(self) -> int:
        """The number."""
        return int(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return EnumValue, (int(self), self.names)

    def __repr__(self) -> str:
        return f"<{self.name}: {int(self)}>"


class Config:
    """Settings as nested attributes: ``config.expert.trbit``; also ``config["expert.trbit"]``."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = {}
        for name, value in (values or {}).items():
            self._set(name, value)

    def _set(self, name: str, value: Any) -> None:
        first, _, rest = name.partition(".")
        if not rest:
            self._values[first] = value
            return
        inner = self._values.get(first)
        if not isinstance(inner, Config):
            inner = self._values[first] = Config()
        inner._set(rest, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_values":
            raise AttributeError(name)
        try:
            return self[name]
        except NameNotFound as error:
            raise AttributeError(str(error)) from None

    def __getitem__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        first, _, rest = name.partition(".")
        inner = self._values.get(first)
        if isinstance(inner, Config) and rest:
            return inner[rest]
        raise NameNotFound.of("setting", name, self._values)

    def __contains__(self, name: object) -> bool:
        return name in dict(self.items())

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self.items())

    def __len__(self) -> int:
        return sum(1 for _ in self.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and repr(self.to_dict()) == repr(other.to_dict())

    __hash__ = None  # type: ignore[assignment]

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield (dotted name, value) of every setting."""
        for name, value in self._values.items():
            if isinstance(value, Config):
                for rest, inner in value.items():
                    yield f"{name}.{rest}", inner
            else:
                yield name, value

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as a flat dict by dotted name."""
        return dict(self.items())

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._values]

    def __repr__(self) -> str:
        lines = [f"  {name} = {_short(value)}" for name, value in self.items()]
        return "\n".join([f"<Config: {len(lines)} settings>", *lines])


def _short(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"array {value.shape} {value.dtype}"
    return repr(value)


@dataclass(frozen=True)
class DetectorConfig:
    """The configuration of a detector.

    Parameters
    ----------
    segments : mapping of int to Config
        Settings of each segment.
    """

    segments: Mapping[int, Config]

    def __getitem__(self, segment: int) -> Config:
        return self.segments[segment]

    def __getattr__(self, name: str) -> Any:
        """Return a setting of the only (or the first) segment."""
        if name.startswith("_") or not self.segments:
            raise AttributeError(name)
        return getattr(self.segments[min(self.segments)], name)

    def __dir__(self) -> list[str]:
        first = [self.segments[min(self.segments)]] if self.segments else []
        return [*super().__dir__(), *(n for c in first for n in c._values)]

    def __repr__(self) -> str:
        lines = [f"segment {k}: {c!r}" for k, c in sorted(self.segments.items())]
        return "\n".join(lines) or "<no configuration>"


def detector_config(recording: Recording, alias: str, until: np.datetime64 | None = None) -> DetectorConfig:
    """Return the configuration of a detector in force at a time.

    Parameters
    ----------
    recording : Recording
    alias : str
        Detector as the file names it.
    until : datetime64, optional
        By default the end of the run: every update of BeginRun and BeginStep is in it.
    """
    limit = np.iinfo(np.int64).max if until is None else int(until.astype("M8[ns]").astype(np.int64))
    updates = [u for u in _config_updates(recording, alias) if u[0] <= limit]
    dictionaries: dict[str, dict[int, str]] = {}
    segments: dict[int, Config] = {}
    for _, names, values in sorted(updates, key=lambda u: u[0]):
        for f in names.fields:
            if f.kind is Kind.ENUM_ENTRY:
                entry, _, tag = f.name.partition(":")
                dictionaries.setdefault(tag, {})[int(values[f.name])] = entry
        config = segments.setdefault(names.segment, Config())
        for f in names.fields:
            if f.kind is Kind.ENUM:
                plain, _, tag = f.name.partition(":")
                config._set(plain, EnumValue(int(values[f.name]), dictionaries.get(tag, {})))
            elif f.kind is not Kind.ENUM_ENTRY:
                config._set(f.name, values[f.name])
    return DetectorConfig(segments)


def _config_updates(recording: Recording, alias: str) -> Iterator[tuple[int, Names, dict[str, Any]]]:
    """Yield (time, names, values) of each block of settings of a detector."""
    for k in recording.wanted:
        index = recording.streams[k]
        used = {c for s, c, _ in catalog_of(recording).declared if s == k}
        for service in (Service.CONFIGURE, Service.BEGIN_RUN, Service.BEGIN_STEP):
            for row in recording.transitions(k, service).tolist():
                if int(index["config"][row]) in used:
                    for names, values in decode_dgram(index, row):
                        if names.detector == alias and is_configuration(names.algorithm):
                            yield int(index["time"][row]), names, values
