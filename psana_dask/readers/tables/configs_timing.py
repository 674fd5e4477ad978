"""Time tool and level-3 trigger: configuration."""

from __future__ import annotations

from typing import Any

from psana_dask.readers.records import Array, Bits, Derived, Field, Hidden, Record
from psana_dask.readers.tables import choices as named
from psana_dask.readers.tables.imagers import CAMERA_FRAME_COORD


def _signal_size(r: Any) -> Any:
    return r.signal_x_size * r.signal_y_size


def _sideband_size(r: Any) -> Any:
    return r.sideband_x_size * r.sideband_y_size


def _reference_size(r: Any) -> Any:
    return r.reference_x_size * r.reference_y_size


def _columns(r: Any, roi: str) -> int:
    return int(getattr(r, roi + "_hi").column - getattr(r, roi + "_lo").column + 1)


def _rows(r: Any, roi: str) -> int:
    return int(getattr(r, roi + "_hi").row - getattr(r, roi + "_lo").row + 1)


def _projection(r: Any, roi: str) -> int:
    return _columns(r, roi) if r.project_axis == 0 else _rows(r, roi)


def _signal_projection(r: Any) -> int:
    return _projection(r, "sig_roi") if r.write_projections else 0


def _sideband_projection(r: Any) -> int:
    return _projection(r, "sb_roi") if r.write_projections and r.subtract_sideband else 0


def _reference_projection(r: Any) -> int:
    return _projection(r, "ref_roi") if r.write_projections and r.use_reference_roi else 0


def _signal_projection_unless_full(r: Any) -> int:
    return 0 if r.use_full_roi else _signal_projection(r)


def _sideband_projection_unless_full(r: Any) -> int:
    return 0 if r.use_full_roi else _sideband_projection(r)


def _reference_projection_unless_full(r: Any) -> int:
    return _projection(r, "ref_roi") if r.write_projections and not r.use_full_roi else 0


def _signal_columns(r: Any) -> int:
    return _columns(r, "sig_roi") if r.write_projections and r.use_full_roi else 0


def _signal_rows(r: Any) -> int:
    return _rows(r, "sig_roi") if r.write_projections and r.use_full_roi else 0


def _sideband_columns(r: Any) -> int:
    return _columns(r, "sb_roi") if r.write_projections and r.subtract_sideband and r.use_full_roi else 0


def _sideband_rows(r: Any) -> int:
    return _rows(r, "sb_roi") if r.write_projections and r.subtract_sideband and r.use_full_roi else 0


def _reference_columns(r: Any) -> int:
    return _columns(r, "ref_roi") if r.write_projections and r.use_full_roi else 0


def _reference_rows(r: Any) -> int:
    return _rows(r, "ref_roi") if r.write_projections and r.use_full_roi else 0


TIMETOOL_EVENT_LOGIC = Record(
    "TimeTool.EventLogic",
    (
        Hidden("_Code", "u4",     0, bits=(
            Bits("event_code", 0, 8), Bits("logic_op", 8, 2, choices=named.TIMETOOL_EVENT_LOGIC_LOGIC_OP),
        )),
    ),
    size=4,
)
TIMETOOL_CONFIG_V1 = Record(
    "TimeTool.ConfigV1",
    (
        Hidden("_Control",                    "u4",     0, bits=(
            Bits("project_axis", 0, 1, choices=named.TIMETOOL_AXIS), Bits("write_image", 1, 1),
            Bits("write_projections", 2, 1), Bits("subtract_sideband", 3, 1),
            Bits("number_of_weights", 4, 16), Bits("calib_poly_dim", 20, 4), Bits("base_name_length", 24, 8),
        )),
        Field("number_of_beam_event_codes",   "u2",     4),
        Field("number_of_laser_event_codes",  "u2",     6),
        Field("signal_cut",                   "u4",     8),
        Field("sig_roi_lo",                   CAMERA_FRAME_COORD,  12),
        Field("sig_roi_hi",                   CAMERA_FRAME_COORD,  16),
        Field("sb_roi_lo",                    CAMERA_FRAME_COORD,  20),
        Field("sb_roi_hi",                    CAMERA_FRAME_COORD,  24),
        Field("sb_convergence",               "f8",    28),
        Field("ref_convergence",              "f8",    36),
        Array("beam_logic",                   TIMETOOL_EVENT_LOGIC,  44, ("number_of_beam_event_codes",)),
        Array("laser_logic",                  TIMETOOL_EVENT_LOGIC, None, ("number_of_laser_event_codes",)),
        Array("weights",                      "f8",  None, ("number_of_weights",)),
        Array("calib_poly",                   "f8",  None, ("calib_poly_dim",)),
        Array("base_name",                    "char", None, ("base_name_length",)),
    ),
    derived=(
        Derived("signal_projection_size", "u4", _signal_projection),
        Derived("sideband_projection_size", "u4", _sideband_projection),
    ),
)
TIMETOOL_CONFIG_V2 = Record(
    "TimeTool.ConfigV2",
    (
        Hidden("_Control",                    "u4",     0, bits=(
            Bits("project_axis", 0, 1, choices=named.TIMETOOL_AXIS), Bits("write_image", 1, 1),
            Bits("write_projections", 2, 1), Bits("subtract_sideband", 3, 1), Bits("use_reference_roi", 4, 1),
            Bits("number_of_weights", 5, 16), Bits("calib_poly_dim", 21, 4), Bits("base_name_length", 25, 8),
        )),
        Field("number_of_beam_event_codes",   "u2",     4),
        Field("number_of_laser_event_codes",  "u2",     6),
        Field("signal_cut",                   "u4",     8),
        Field("sig_roi_lo",                   CAMERA_FRAME_COORD,  12),
        Field("sig_roi_hi",                   CAMERA_FRAME_COORD,  16),
        Field("sb_roi_lo",                    CAMERA_FRAME_COORD,  20),
        Field("sb_roi_hi",                    CAMERA_FRAME_COORD,  24),
        Field("sb_convergence",               "f8",    28),
        Field("ref_roi_lo",                   CAMERA_FRAME_COORD,  36),
        Field("ref_roi_hi",                   CAMERA_FRAME_COORD,  40),
        Field("ref_convergence",              "f8",    44),
        Array("beam_logic",                   TIMETOOL_EVENT_LOGIC,  52, ("number_of_beam_event_codes",)),
        Array("laser_logic",                  TIMETOOL_EVENT_LOGIC, None, ("number_of_laser_event_codes",)),
        Array("weights",                      "f8",  None, ("number_of_weights",)),
        Array("calib_poly",                   "f8",  None, ("calib_poly_dim",)),
        Array("base_name",                    "char", None, ("base_name_length",)),
    ),
    derived=(
        Derived("signal_projection_size", "u4", _signal_projection),
        Derived("sideband_projection_size", "u4", _sideband_projection),
        Derived("reference_projection_size", "u4", _reference_projection),
    ),
)
TIMETOOL_CONFIG_V3 = Record(
    "TimeTool.ConfigV3",
    (
        Hidden("_Control",                    "u8",     0, bits=(
            Bits("project_axis", 0, 1, choices=named.TIMETOOL_AXIS), Bits("use_full_roi", 1, 1),
            Bits("use_fit", 2, 1), Bits("write_image", 3, 1), Bits("write_projections", 4, 1),
            Bits("subtract_sideband", 5, 1), Bits("use_reference_roi", 6, 1),
            Bits("number_of_weights", 7, 16), Bits("calib_poly_dim", 23, 4), Bits("fit_params_dim", 27, 4),
            Bits("base_name_length", 31, 8),
        )),
        Field("number_of_beam_event_codes",   "u2",     8),
        Field("number_of_laser_event_codes",  "u2",    10),
        Field("signal_cut",                   "u4",    12),
        Field("fit_max_iterations",           "u4",    16),
        Field("fit_weights_factor",           "f8",    20),
        Field("sig_roi_lo",                   CAMERA_FRAME_COORD,  28),
        Field("sig_roi_hi",                   CAMERA_FRAME_COORD,  32),
        Field("sb_roi_lo",                    CAMERA_FRAME_COORD,  36),
        Field("sb_roi_hi",                    CAMERA_FRAME_COORD,  40),
        Field("sb_convergence",               "f8",    44),
        Field("ref_roi_lo",                   CAMERA_FRAME_COORD,  52),
        Field("ref_roi_hi",                   CAMERA_FRAME_COORD,  56),
        Field("ref_convergence",              "f8",    60),
        Array("beam_logic",                   TIMETOOL_EVENT_LOGIC,  68, ("number_of_beam_event_codes",)),
        Array("laser_logic",                  TIMETOOL_EVENT_LOGIC, None, ("number_of_laser_event_codes",)),
        Array("weights",                      "f8",  None, ("number_of_weights",)),
        Array("calib_poly",                   "f8",  None, ("calib_poly_dim",)),
        Array("fit_params",                   "f8",  None, ("fit_params_dim",)),
        Array("base_name",                    "char", None, ("base_name_length",)),
    ),
    derived=(
        Derived("signal_projection_size", "u4", _signal_projection_unless_full),
        Derived("sideband_projection_size", "u4", _sideband_projection_unless_full),
        Derived("reference_projection_size", "u4", _reference_projection_unless_full),
        Derived("signal_x_size", "u4", _signal_columns),
        Derived("signal_y_size", "u4", _signal_rows),
        Derived("signal_size", "u4", _signal_size),
        Derived("sideband_x_size", "u4", _sideband_columns),
        Derived("sideband_y_size", "u4", _sideband_rows),
        Derived("sideband_size", "u4", _sideband_size),
        Derived("reference_x_size", "u4", _reference_columns),
        Derived("reference_y_size", "u4", _reference_rows),
        Derived("reference_size", "u4", _reference_size),
    ),
)
L3T_CONFIG_V1 = Record(
    "L3T.ConfigV1",
    (
        Field("module_id_len",  "u4",     0),
        Field("desc_len",       "u4",     4),
        Array("module_id",      "char",   8, ("module_id_len",)),
        Array("desc",           "char", None, ("desc_len",)),
    ),
)
