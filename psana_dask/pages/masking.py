"""Saving the mask that was drawn on a picture as the constant ``pixel_mask``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import panel as pn

from psana_dask.calib.constants import Constants, RunRange
from psana_dask.errors import ConstantsError
from psana_dask.pages import markup
from psana_dask.pages.answers import Answers
from psana_dask.pages.canvas import Canvas
from psana_dask.pages.confirming import Confirmed, Plan
from psana_dask.pages.desk import LONGEST_COMMENT, READ_ONLY, Desk, name_in_store
from psana_dask.pages.drawing import Shapes, drawn_mask
from psana_dask.pages.pictures import Picture

if TYPE_CHECKING:
    from psana_dask.detector import Detector

KIND = "pixel_mask"


@dataclass(frozen=True)
class Drawn:
    """What a mask is made of.

    Parameters
    ----------
    detector : Detector
    picture : Picture
        An assembled image of it.
    shapes : Shapes
    keep : bool
        What the mask in force has, the new one has too.
    """

    detector: Detector
    picture: Picture
    shapes: Shapes
    keep: bool = True

    def mask(self) -> npt.NDArray[np.uint8]:
        """Return the mask of the detector's pixels: 0 for those whose bin of the image was drawn over."""
        image = drawn_mask(self.shapes, self.picture)
        pixels = np.asarray(self.detector.panels_of(image, fill=1), np.uint8)
        old = self.detector.constants.get(KIND) if self.keep else None
        if old is not None:
            pixels = pixels & (np.asarray(old.value).reshape(pixels.shape) != 0)
        return pixels

    def constant(self) -> Constants:
        """Return the mask as a constant.

        Raises
        ------
        ConstantsError
            Nothing was drawn.
        """
        if not self.shapes:
            raise ConstantsError("nothing is drawn: take a mask tool above the picture")
        return Constants(KIND, self.mask(), comment="drawn on an image", origin="psana_dask browse")


class DrawnOn(NamedTuple):
    """The image that a mask is drawn on."""

    detector: Detector
    run: int
    desk: Callable[[], Desk]  # where the mask is saved; may read a folder


class MaskCard:
    """The part of a page that saves a mask.

    Parameters
    ----------
    canvas : Canvas
        On which it is drawn.
    write : bool
        Whether masks can be saved at all; the desk decides again each time.
    document : bokeh Document, optional
    drawn_on : callable
        Returns what is shown; raises if it is no image.
    saved : callable
        Called when constants were changed.
    """

    def __init__(
        self,
        canvas: Canvas,
        write: bool,
        document: Any,
        drawn_on: Callable[[], DrawnOn],
        saved: Callable[[], None],
    ) -> None:
        self._canvas, self._drawn_on = canvas, drawn_on
        why_not = "" if write else READ_ONLY
        self.runs = pn.widgets.TextInput(label="For runs (10, 10-20 or 10-end)", width=180)
        self.comment = pn.widgets.TextInput(label="Comment", width=170, max_length=LONGEST_COMMENT)
        self.keep = pn.widgets.Checkbox(label="and what the mask in force has", value=True)
        self.clear = pn.widgets.Button(label="Clear what is drawn")
        Answers(document).click(self.clear, canvas.clear_shapes)
        self.save = Confirmed("Save mask", self._ask_save, document, saved, why_not)
        self.undo = Confirmed("Undo last mask", self._ask_undo, document, saved, why_not)
        hint = ("Draw on an image with the mask tools above it: what is drawn over becomes bad (0).\n"
                "A click chooses a shape, Backspace deletes it.")  # fmt: skip
        self.view = pn.Column(
            pn.pane.HTML(markup.note(hint), stylesheets=[markup.STYLE], width=380),
            pn.Row(self.runs, self.comment),
            self.keep, self.clear, self.save.view, self.undo.view,
        )  # fmt: skip

    def _ask_save(self) -> Callable[[], Plan]:
        on = self._drawn_on()
        if self._canvas.picture is None:
            raise ConstantsError("there is no image to draw a mask on")
        drawn = Drawn(on.detector, self._canvas.picture, self._canvas.shapes(), bool(self.keep.value))
        runs = str(self.runs.value).strip() or str(RunRange(max(on.run, 0)))
        comment = str(self.comment.value)
        return lambda: save_plan(on.desk(), drawn, runs, comment)

    def _ask_undo(self) -> Callable[[], Plan]:
        on = self._drawn_on()

        def work() -> Plan:
            desk = on.desk()
            return undo_plan(desk, name_in_store(desk, on.detector), KIND)

        return work


def save_plan(desk: Desk, drawn: Drawn, runs: str, comment: str) -> Plan:
    """Return the plan to put a mask in force."""
    constant = drawn.constant()
    name, group = name_in_store(desk, drawn.detector), drawn.detector._imaging.calibration.row.group
    [trial] = desk.preview([constant], name, runs, group)
    bad = int((np.asarray(constant.value) == 0).sum())
    shapes = "1 shape" if len(drawn.shapes) == 1 else f"{len(drawn.shapes)} shapes"
    lines = (f"{shapes}; {bad} pixels of {name} become bad.", trial.path, trial.difference)

    def deed() -> str:
        [done] = desk.deploy([constant], name, runs, comment, group)
        return f"wrote {done.path}; {done.difference}"

    return Plan("\n".join(map(str, lines)), deed)


def undo_plan(desk: Desk, detector: str, kind: str) -> Plan:
    """Return the plan to take the last deployment of a kind back."""
    last = desk.last(detector, kind)
    what = f"{kind} of {detector}: {last.file}, deployed {last.time} by {last.user}"
    after = "restored" if last.backup not in ("", "-") else "removed"
    comment = f" ({last.comment})" if last.comment else ""

    def deed() -> str:
        taken = desk.undo(detector, kind, last)
        return f"took back {kind} {taken.file}, deployed {taken.time} by {taken.user}"

    return Plan(f"take back {what}{comment}; the file is then {after}", deed)
