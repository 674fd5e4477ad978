"""Conditions on events as text: ``gmd.milliJoulesPerPulse > 0.3 and evr.has(90, -162)``.

The text is parsed by Python's own parser and evaluated by the few rules of this module:
names of detectors and fields, ``step``, EPICS variables, numbers, comparisons, ``and``, ``or``,
``not``, arithmetic, ``evr.has(...)``. Nothing else is ever called.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from psana_dask.errors import ConditionError, NameNotFound

if TYPE_CHECKING:
    from psana_dask.run import Run

Bools = npt.NDArray[np.bool_]


COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
}  # fmt: skip
SIGNS: dict[type, Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.Not: np.logical_not, ast.Invert: np.logical_not,
}  # fmt: skip
MOST_CHARACTERS = 2000


def events_where(run: Run, text: str) -> Bools:
    """Return which events of a run meet a condition, (event,).

    Events without a value that the condition asks for do not meet it.

    Parameters
    ----------
    run : Run
    text : str
        For example ``"gmd.milliJoulesPerPulse > 0.3 and not step == 2"``.

    Raises
    ------
    ConditionError
        The text is not understood; says where.
    NameNotFound
        A name fits nothing; lists the nearest ones.

    Examples
    --------
    >>> run.select(events_where(run, "evr.has(90, -162) and ebeam.charge > 100"))
    """
    if len(text) > MOST_CHARACTERS:
        raise ConditionError(f"a condition of {len(text)} characters: at most {MOST_CHARACTERS}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ConditionError(f"{text!r}: {error.msg} at character {error.offset}") from error
    seen: list[Bools] = []
    value = np.asarray(_value(run, tree, text, seen))
    if value.dtype != bool or value.shape not in ((), (len(run),)):
        raise ConditionError(f"{text!r} is no yes or no for each event")
    return np.logical_and.reduce([np.broadcast_to(value, (len(run),)), *seen])


def _value(run: Run, node: ast.AST, text: str, seen: list[Bools]) -> Any:
    """Return what a part of the condition says of each event; note in `seen` who has the values."""

    def of(part: ast.AST) -> Any:
        return _value(run, part, text, seen)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() as constant):
            return constant
        case ast.Name() | ast.Attribute():
            return _named(run, _dotted(node, text), seen)
        case ast.Subscript(value=ast.Name(id="epics"), slice=ast.Constant(value=str() as name)):
            return _epics(run, name, seen)
        case ast.UnaryOp() if type(node.op) in SIGNS:
            return SIGNS[type(node.op)](of(node.operand))
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            return ARITHMETIC[type(node.op)](of(node.left), of(node.right))
        case ast.BoolOp():
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            return join.reduce([np.broadcast_to(of(part), (len(run),)) for part in node.values])
        case ast.Compare() if all(type(op) in COMPARISONS for op in node.ops):
            return _compared([of(node.left), *map(of, node.comparators)], node.ops)
        case ast.Call(func=ast.Attribute(value=ast.Name(id="evr"), attr="has"), keywords=[]):
            return run.evr.has(*[int(of(code)) for code in node.args]).mask(run._view)
    raise ConditionError(f"{text!r}: {ast.unparse(node)!r} is not understood here")


def _compared(values: list[Any], ops: list[ast.cmpop]) -> Any:
    """Return ``a < b < c`` as Python means it."""
    pairs = zip(ops, values, values[1:], strict=False)
    return np.logical_and.reduce([COMPARISONS[type(op)](left, right) for op, left, right in pairs])


def _dotted(node: ast.AST, text: str) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            return f"{_dotted(value, text)}.{attribute}"
    raise ConditionError(f"{text!r}: {ast.unparse(node)!r} is no name")


def _named(run: Run, name: str, seen: list[Bools]) -> Any:
    """Return a scalar of each event: ``step``, ``detector.field``, ``epics.name``."""
    detector, _, field = name.partition(".")
    if name in ("step", "timestamp", "pulse_id", "fiducial") and name in (coords := run.events.coords):
        return coords[name].values
    if detector == "epics":
        return _epics(run, field, seen)
    if not field:
        raise NameNotFound(f"{name!r} is no scalar of events: say detector.field, step or epics.name")
    found = run[detector].field(field, chunks=None)
    if getattr(found, "dims", ()) != ("time",):
        raise ConditionError(f"{name} is no scalar: it has the dimensions {tuple(found.dims)}")
    seen.append(run[detector].present.values)
    return found.values


def _epics(run: Run, name: str, seen: list[Bools]) -> Any:
    """Return the values of an EPICS variable in force at the events."""
    series = run.epics.find(name)
    values, has = series.at(run.events.time.values)
    seen.append(has)
    return values
