"""Settings of detectors: nested, with enums that know their names.

A Configure gives all settings of a detector, a BeginRun or BeginStep some of them anew; `slow` says
which are in force at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from psana_dask.errors import NameNotFound


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
            self.put(name, value)

    def put(self, name: str, value: Any) -> None:
        """Set one value; a name with dots goes into settings inside."""
        first, _, rest = name.partition(".")
        if not rest:
            self._values[first] = value
            return
        inner = self._values.get(first)
        if not isinstance(inner, Config):
            inner = self._values[first] = Config()
        inner.put(rest, value)

    def update(self, other: Config) -> None:
        """Take all settings of another one."""
        self._values |= other._values

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
    if isinstance(value, list) and value and isinstance(value[0], Config):
        return f"{len(value)} of <Config: {len(value[0])} settings>"
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
