"""Which events of a recording, in which order; what travels to workers of that."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Choice:
    """Which events of a recording, in which order; travels as a range or as packed bits where it can.

    Parameters
    ----------
    numbers : (event,) int64
        Event numbers.
    total : int
        Events of the recording.
    """

    def __init__(self, numbers: Ints, total: int) -> None:
        self.numbers = numbers
        self.total = total

    @classmethod
    def everything(cls, total: int) -> Choice:
        """Choose all events."""
        return cls(np.arange(total), total)

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def is_everything(self) -> bool:
        """Whether this is every event in order."""
        return len(self.numbers) == self.total and self.is_sorted

    @cached_property
    def is_sorted(self) -> bool:
        """Whether the numbers increase: no event twice, none out of order."""
        return bool(np.all(np.diff(self.numbers) > 0))

    @cached_property
    def digest(self) -> str:
        """Hash of the choice."""
        return "all" if self.is_everything else hashlib.sha256(self.numbers.tobytes()).hexdigest()[:16]

    def __reduce__(self) -> tuple[Any, ...]:
        if not (len(self) and self.is_sorted):
            return _choice_of_numbers, (self.numbers.astype(np.int32), self.total)
        first, last = int(self.numbers[0]), int(self.numbers[-1])
        if last - first + 1 == len(self):
            return _choice_of_range, (first, last + 1, self.total)
        mask = np.zeros(last - first + 1, bool)
        mask[self.numbers - first] = True
        return _choice_of_bits, (first, np.packbits(mask).tobytes(), self.total)

    def __dask_tokenize__(self) -> str:
        return self.digest


def _choice_of_range(first: int, stop: int, total: int) -> Choice:
    return Choice(np.arange(first, stop), total)


def _choice_of_bits(first: int, bits: bytes, total: int) -> Choice:
    return Choice(first + np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8))), total)


def _choice_of_numbers(numbers: npt.NDArray[np.int32], total: int) -> Choice:
    return Choice(numbers.astype(np.int64), total)
