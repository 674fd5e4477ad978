"""Values as pure functions of (seed, detector, field, segment, event): no file is needed to know them."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from psana_dask.simulate.images import Picture

MASK = (1 << 64) - 1
PULSES_PER_SECOND = 910_000  # about the accelerator's pulse counter


def mixed(*words: int | str) -> int:
    """Hash numbers and names to 64 bits (the finaliser of splitmix64, once for each word)."""
    state = 0
    for word in words:
        number = zlib.crc32(word.encode()) if isinstance(word, str) else int(word)  # numpy's overflow
        state = (state + number + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


@dataclass(frozen=True, kw_only=True)
class Moment:
    """All that a value may depend on.

    Examples
    --------
    >>> simulate.Field("number", "u4", value=lambda moment: moment.event)
    """

    seed: int
    detector: str
    field: str
    segment: int = 0
    event: int = 0  # of a SlowUpdate: its number
    timestamp: int = 0  # the file's word: seconds << 32 | nanoseconds
    step: int = 0
    dtype: str = "f8"
    shape: tuple[int | None, ...] = ()
    longest: int = 40
    codes: tuple[int, ...] = ()  # event codes that fired
    fiducial: int = 0  # LCLS-1
    picture: Picture | None = None

    @property
    def key(self) -> int:
        """A hash of seed, detector, field, segment and event."""
        return mixed(self.seed, self.detector, self.field, self.segment, self.event)

    @property
    def pulse_id(self) -> int:
        """The accelerator's pulse counter: proportional to time."""
        return pulse_number(self.timestamp)

    @property
    def intensity(self) -> float:
        """Pulse energy of the event in mJ, 0.6 to 1.4; frames are as bright as that."""
        return intensity(self.seed, self.event)

    def sized(self) -> tuple[int, ...]:
        """Return the shape, with a length for each axis that varies."""
        most = self.longest + 1
        return tuple(mixed(self.key, i) % most if n is None else n for i, n in enumerate(self.shape))


def pulse_number(timestamp: int) -> int:
    """Return the pulse counter at a time stamp word."""
    seconds, nanoseconds = divmod(timestamp, 1 << 32)
    return seconds * PULSES_PER_SECOND + nanoseconds * PULSES_PER_SECOND // 1_000_000_000


def intensity(seed: int, event: int) -> float:
    """Return the pulse energy of an event in mJ."""
    return 0.6 + 0.8 * (mixed(seed, "intensity", event) / 2.0**64)


def noise(moment: Moment) -> object:
    """Return reproducible values over the whole range of the dtype (text: the field and event)."""
    if moment.dtype == "str":
        return f"{moment.field}-{moment.event}"
    random = np.random.Generator(np.random.Philox(key=moment.key))
    shape = moment.sized()
    dtype = np.dtype(moment.dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)[()]
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def timestamp(moment: Moment) -> int:
    """Return the event's time stamp word."""
    return moment.timestamp


def pulse_id(moment: Moment) -> int:
    """Return the pulse number of the event."""
    return moment.pulse_id


def pulse_energy(moment: Moment) -> float:
    """Return the pulse energy in mJ."""
    return moment.intensity


def event_number(moment: Moment) -> int:
    """Return the number of the event."""
    return moment.event


def event_numbers(moment: Moment) -> npt.NDArray[np.int64]:
    """Return the number of the event, once for each part."""
    return np.full(moment.sized(), moment.event)


def sequence_values(moment: Moment) -> npt.NDArray[np.uint16]:
    """Return the event codes as the timing system writes them: code c is bit c % 16 of word c // 16."""
    words = np.zeros(18, np.uint16)
    for code in moment.codes:
        words[code // 16] |= np.uint16(1 << code % 16)
    return words


def event_codes(moment: Moment) -> npt.NDArray[np.uint32]:
    """Return the event codes as LCLS-1 lists them."""
    return np.array(moment.codes, np.uint32)


def fiducials_of_codes(moment: Moment) -> npt.NDArray[np.uint32]:
    """Return the fiducial of each event code: the event's own."""
    return np.full(len(moment.codes), moment.fiducial, np.uint32)


def ticks_of_codes(moment: Moment) -> npt.NDArray[np.uint32]:
    """Return when each event code came, in ticks of 119 MHz."""
    return np.arange(len(moment.codes), dtype=np.uint32) * 10 + 11_850


def photon_energy(moment: Moment) -> float:
    """Return a photon energy around 9500 eV."""
    return 9_450.0 + 100.0 * (moment.key / 2.0**64)


def frame(moment: Moment) -> npt.NDArray[np.generic]:
    """Return the diffraction frame of a segment, see `images.Picture`."""
    if moment.picture is None:
        raise ValueError(f"{moment.detector}.{moment.field}: only detectors have frames")
    shape = moment.sized()
    return moment.picture.frame(moment.event, moment.segment, moment.intensity).reshape(shape)
