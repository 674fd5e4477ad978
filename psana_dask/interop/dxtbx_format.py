"""dxtbx (DIALS, cctbx.xfel): runs as image sets of stills, through the entry point ``dxtbx.format``.

``dials.import run.loc`` with a locator (see `stills`) or a data file. dxtbx asks this class about
every file that it opens, so `FormatPsana.understand` looks at a name and a few bytes only.  Without
dxtbx the module can be imported, the class not be used.
API: dxtbx's ``Format``, ``FormatMultiImage`` and ``FormatStill`` (tried with 3.29).
Contract: tests/interop/test_dxtbx.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from psana_dask.errors import MissingLibrary
from psana_dask.interop.stills import Stills, is_data_file, is_locator, open_stills

if TYPE_CHECKING:
    FormatMultiImage: Any = object
    FormatStill: Any = object
    Format: Any = object
    BASES: tuple[Any, ...] = (object,)
else:
    try:
        from dxtbx.format.Format import Format
        from dxtbx.format.FormatMultiImage import FormatMultiImage
        from dxtbx.format.FormatStill import FormatStill

        BASES = (FormatMultiImage, FormatStill)
    except ImportError:
        Format = FormatMultiImage = FormatStill = None
        BASES = (object,)


class FormatPsana(*BASES):  # type: ignore[misc]
    """A run as a series of still images; registered with dxtbx under this name.

    Parameters
    ----------
    image_file : str
        A locator, or a data file of a run.
    **kwargs
        dxtbx's: ``lazy`` (True).

    Raises
    ------
    MissingLibrary
        dxtbx is not installed.
    PsanaError
        What the file says cannot be had.
    """

    @staticmethod
    def understand(image_file: str) -> bool:
        """Tell whether a file is a locator or a data file of a run."""
        return is_locator(image_file) or is_data_file(image_file)

    def __init__(self, image_file: str, **kwargs: Any) -> None:
        if FormatMultiImage is None:
            raise MissingLibrary("FormatPsana needs dxtbx: conda install -c conda-forge dxtbx")
        if not self.understand(image_file):
            from dxtbx import IncorrectFormatError

            raise IncorrectFormatError(self, image_file)
        self.lazy = kwargs.get("lazy", True)
        self._stills: Stills = open_stills(image_file)
        FormatMultiImage.__init__(self, **kwargs)
        Format.__init__(self, image_file, **kwargs)
        if self.get_detector() is None:  # FormatStill.setup swallows what goes wrong: ask again
            self._detector_instance = self._detector()

    def get_num_images(self) -> int:
        """Return how many events have the detector."""
        return len(self._stills)

    def get_raw_data(self, index: int | None = None) -> tuple[Any, ...]:
        """Return the calibrated values of an event: ``flex.double`` for each panel of the model."""
        from scitbx.array_family import flex

        return tuple(flex.double(piece) for piece in self._stills.image(index or 0))

    def get_static_mask(self) -> tuple[Any, ...]:
        """Return the good pixels: ``flex.bool`` for each panel of the model."""
        from scitbx.array_family import flex

        return tuple(flex.bool(piece) for piece in self._stills.mask())

    def get_detector(self, index: int | None = None) -> Any:
        """Return the detector; it does not move within a run."""
        del index
        return self._detector_instance

    def get_beam(self, index: int | None = None) -> Any:
        """Return the beam of an event; None where its photon energy is not known."""
        return self._beam(index)

    def get_goniometer(self, index: int | None = None) -> None:
        """Return None: a still has no goniometer."""

    def get_scan(self, index: int | None = None) -> None:
        """Return None: a still has no scan."""

    def get_vendortype(self) -> str:
        """Return what dxtbx calls the maker."""
        return "LCLS"

    def get_event_time(self, index: int | None = None) -> str:
        """Return the time of an event as ISO text, UTC: what `Run.sel` takes."""
        return str(self._stills.run.events["time"].values[index or 0])

    def _detector(self) -> Any:
        from dxtbx.model.detector import DetectorFactory

        return DetectorFactory.from_dict(self._stills.model())

    def _beam(self, index: int | None = None) -> Any:
        wavelength = self._stills.wavelength(index or 0)
        return None if wavelength is None else self._beam_factory.simple(wavelength)
